"""What a study makes: every file's place and every job, so that rules, command line and report agree."""

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

from cem.config import AttackSettings, DatasetSettings, MixtureFit, NoSurrogate, Run, Study

ATTACK_FILES = ("metrics.parquet", "reconstructions.h5", "attack.json", "manifest.json")  # of each attack on a run


class Plan:
    """Paths and jobs of a study, relative to the working folder."""

    def __init__(self, study: Study, results: Path | str = "results") -> None:
        self.study = study
        self.root = Path(results)
        self.folder = self.root / study.name

    @cached_property
    def asked(self) -> dict[str, Run]:
        """Run id → run, of those the study asks for."""
        return {run.id: run for run in self.study.runs()}

    @cached_property
    def _bases(self) -> dict[str, str]:
        """Id of an asked run → what its undefended runs share. Not of one that has none."""
        ids: dict[tuple[Any, ...], str] = {}  # hashed once for each network and training, not for each run
        for run in self.asked.values():
            if (key := _base_key(run)) not in ids:
                ids[key] = "" if (plain := run.undefended(0)) is None else plain.id
        return {name: base for name, run in self.asked.items() if (base := ids[_base_key(run)])}

    @cached_property
    def _references(self) -> dict[str, dict[str, Run]]:
        """What undefended runs share → these by id, one per seed of the asked runs, smallest seed first."""
        if all(attack.yardstick for attack in self.study.attacks):
            return {}
        seeds: dict[str, dict[int, Run]] = {}
        for name, base in self._bases.items():
            run = self.asked[name]
            if run.seed not in seeds.setdefault(base, {}) and (plain := run.undefended(run.seed)) is not None:
                seeds[base][run.seed] = plain
        return {base: {found[seed].id: found[seed] for seed in sorted(found)} for base, found in seeds.items()}

    @cached_property
    def references(self) -> dict[str, Run]:
        """Run id → run, of those that attacks must invert to count; empty where nothing has to."""
        return {name: run for found in self._references.values() for name, run in found.items()}

    @cached_property
    def runs(self) -> dict[str, Run]:
        """Run id → run: those the study asks for, then their references."""
        return self.asked | self.references

    @cached_property
    def _undefended(self) -> dict[str, list[Run]]:
        added = {name: list(found.values()) for found in self._references.values() for name in found}
        asked = {name: list(self._references.get(base, {}).values()) for name, base in self._bases.items()}
        return added | asked

    def undefended(self, run: Run) -> list[Run]:
        """The references of a run or of a reference: one per seed, smallest first.

        None where no attack needs one, or a network is given without undefended weights beside it.
        """
        return self._undefended.get(run.id, [])

    def reference(self, run: Run) -> Run | None:
        """The one of them where learning rates are found; None where no attack needs one."""
        return next(iter(self.undefended(run)), None)

    def is_reference(self, run: Run) -> bool:
        """Whether attacks must invert this run for their numbers on other runs to count."""
        return run.id in self.references

    def attacks(self, run: Run) -> list[AttackSettings]:
        """The attacks that a run is scored by."""
        everywhere = self.is_reference(run)
        return [attack for attack in self.study.attacks if everywhere or not attack.reference_only]

    def tuned(self, run: Run, attack: str) -> Path | None:
        """The result that holds an attack's learning rate, found on the reference; None where the settings give one."""
        cfg = next(cfg for cfg in self.study.attacks if cfg.id == attack)
        reference = self.reference(run)
        if not cfg.tunes_on_reference or reference is None or reference.id == run.id:
            return None
        return self.attack(reference, attack) / "attack.json"

    @cached_property
    def warmups(self) -> dict[str, Run]:
        """Base id → the run that it warms up, without what the runs of a base differ in."""
        trained = [run for run in self.runs.values() if run.trained]
        return {run.base: run.model_copy(update={"surrogate": NoSurrogate()}) for run in trained}

    @cached_property
    def datasets(self) -> dict[str, DatasetSettings]:
        """Data set id → data set, without what is decided later: the augmentation is the training's."""
        return {run.dataset.id: run.dataset.model_copy(update={"augment": None}) for run in self.runs.values()}

    @cached_property
    def trained(self) -> dict[str, Run]:
        """Folder below the study's → run, for everything that is trained: warm-ups and runs."""
        warmups = {f"warmup/{base}": run for base, run in self.warmups.items()}
        return warmups | {f"runs/{name}": run for name, run in self.runs.items()}

    @cached_property
    def mixtures(self) -> dict[str, MixtureFit]:
        """Label → how a mixture is fitted: those that surrogates start from, and the one that measures."""
        fits = [fit for run in self.runs.values() if (fit := run.surrogate.mixture) is not None]
        return {fit.label: fit for fit in [*fits, self.study.leakage]}

    @property
    def baselines(self) -> list[str]:
        """Ids of the attacks that need no training; all of a run's share one job."""
        return [attack.id for attack in self.study.attacks if not attack.trained]

    @property
    def learned(self) -> list[str]:
        """Ids of the attacks that are trained, a job each."""
        return [attack.id for attack in self.study.attacks if attack.trained]

    def learned_on(self, run: Run) -> list[str]:
        """Ids of those that a run is scored by."""
        return [attack.id for attack in self.attacks(run) if attack.trained]

    def data(self, dataset: DatasetSettings) -> Path:
        """The prepared data set."""
        return self.root / "data" / f"{dataset.id}.h5"

    def evaluator(self, dataset: DatasetSettings) -> Path:
        """What judges reconstructions of its images; what is to be said of it is beside it, `.json`."""
        return self.root / "data" / f"{dataset.id}.evaluator.safetensors"

    def warmup(self, run: Run) -> Path:
        """Folder of the warm-up a run starts from."""
        return self.folder / "warmup" / run.base

    def run(self, run: Run) -> Path:
        """Folder of a run."""
        return self.folder / "runs" / run.id

    def start_mixture(self, run: Run) -> Path | None:
        """The mixture a run's surrogate starts from; None when it needs none."""
        fit = run.surrogate.mixture
        return None if fit is None else self.warmup(run) / f"mixture-{fit.label}.h5"

    def leakage(self, run: Run) -> Path:
        """The mixture that measures a trained run's leakage."""
        return self.run(run) / f"mixture-{self.study.leakage.label}.h5"

    def attack(self, run: Run, attack: str) -> Path:
        """Folder of an attack on a run."""
        return self.run(run) / "attacks" / attack

    @property
    def report(self) -> Path:
        """The report."""
        return self.folder / "report.html"

    def jobs(self) -> Counter[str]:
        """Rule → how many jobs a study takes from the beginning."""
        starts = {path for run in self.runs.values() if (path := self.start_mixture(run)) is not None}
        bases = {path.parent for path in starts}
        runs = len(self.runs)
        return Counter(
            prepare_data=len(self.datasets),
            fit_evaluator=len(self.datasets) if self.study.attacks else 0,
            warm_up=len(self.warmups),
            extract_activations=len(bases) + runs,
            fit_mixture=len(starts) + runs,
            train=runs,
            baseline_attacks=runs if self.baselines else 0,
            attack=sum(len(self.learned_on(run)) for run in self.runs.values()),
            aggregate=1,
            report=1,
        )

    def renamed(self, folder: Path) -> str | None:
        """What a folder of version 0.1.0, whose ids ended in four digits, is called now; None where nothing is."""
        name = folder.relative_to(self.folder).as_posix()
        found = [planned for planned in self.trained if planned.startswith(name) and len(planned) > len(name)]
        return found[0] if len(found) == 1 else None

    @cached_property
    def folders(self) -> set[Path]:
        """Of everything that is trained, and of each attack on it."""
        attacks = {self.attack(run, attack.id) for run in self.runs.values() for attack in self.attacks(run)}
        return {self.folder / name for name in self.trained} | attacks

    def plans(self, path: Path) -> bool:
        """Whether a file or folder is of what this study plans; an attack on a planned run is planned by itself."""
        places = (path, *path.parents)
        return (
            next((one for one in places if one in self.folders or one.parent.name == "attacks"), None) in self.folders
        )

    def orphans(self) -> list[Path]:
        """Folders that this study no longer plans: of runs and warm-ups, and of attacks on runs that it does plan."""
        found = {
            path.parent for kind in ("runs", "warmup") for path in self.folder.glob(f"{kind}/**/model.safetensors")
        }
        for run in self.runs.values():
            found |= {path.parent for path in self.run(run).glob("attacks/*/*") if path.name in ATTACK_FILES}
        return sorted(found - self.folders)


def _base_key(run: Run) -> tuple[Any, ...]:
    """What runs have in common that share a reference."""
    return run.dataset, run.model, run.training
