"""What a study makes: every file's place and every job, so that rules, command line and report agree."""

from collections import Counter
from functools import cached_property
from pathlib import Path

from cem.config import BASELINES, Dataset, GmmSurrogate, MixtureFit, Run, Study


class Plan:
    """Paths and jobs of a study, relative to the working folder."""

    def __init__(self, study: Study, results: Path | str = "results") -> None:
        self.study = study
        self.root = Path(results)
        self.folder = self.root / study.name

    @cached_property
    def runs(self) -> dict[str, Run]:
        """Run id → run."""
        return {run.id: run for run in self.study.runs()}

    @cached_property
    def warmups(self) -> dict[str, Run]:
        """Base id → any run that starts from it."""
        return {run.base: run for run in self.runs.values()}

    @cached_property
    def datasets(self) -> dict[str, Dataset]:
        """Data set id → data set."""
        return {run.dataset.id: run.dataset for run in self.runs.values()}

    @cached_property
    def trained(self) -> dict[str, Run]:
        """Folder below the study's → run, for everything that is trained: warm-ups and runs."""
        warmups = {f"warmup/{base}": run for base, run in self.warmups.items()}
        return warmups | {f"runs/{name}": run for name, run in self.runs.items()}

    @cached_property
    def mixtures(self) -> dict[str, MixtureFit]:
        """Label → how a mixture is fitted: those that surrogates start from, and the one that measures."""
        fits = [run.surrogate.mixture for run in self.runs.values() if isinstance(run.surrogate, GmmSurrogate)]
        return {fit.label: fit for fit in [*fits, self.study.leakage]}

    @property
    def baselines(self) -> list[str]:
        """Ids of the attacks that need no training; all of a run's share one job."""
        return [attack.id for attack in self.study.attacks if attack.kind in BASELINES]

    @property
    def learned(self) -> list[str]:
        """Ids of the attacks that are trained, a job each."""
        return [attack.id for attack in self.study.attacks if attack.kind not in BASELINES]

    def data(self, dataset: Dataset) -> Path:
        """The prepared data set."""
        return self.root / "data" / f"{dataset.id}.h5"

    def warmup(self, run: Run) -> Path:
        """Folder of the warm-up a run starts from."""
        return self.folder / "warmup" / run.base

    def run(self, run: Run) -> Path:
        """Folder of a run."""
        return self.folder / "runs" / run.id

    def start_mixture(self, run: Run) -> Path | None:
        """The mixture a run's surrogate starts from; None when it needs none."""
        if not isinstance(run.surrogate, GmmSurrogate):
            return None
        return self.warmup(run) / f"mixture-{run.surrogate.mixture.label}.h5"

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
        """Rule → how many jobs a study from nothing takes."""
        starts = {path for run in self.runs.values() if (path := self.start_mixture(run)) is not None}
        bases = {path.parent for path in starts}
        runs = len(self.runs)
        return Counter(
            prepare_data=len(self.datasets),
            warm_up=len(self.warmups),
            extract_activations=len(bases) + runs,
            fit_mixture=len(starts) + runs,
            train=runs,
            baseline_attacks=runs if self.baselines else 0,
            attack=runs * len(self.learned),
            aggregate=1,
            report=1,
        )

    def orphans(self) -> list[Path]:
        """Folders of trained runs and warm-ups that this study no longer plans."""
        found = {
            path.parent for kind in ("runs", "warmup") for path in self.folder.glob(f"{kind}/**/model.safetensors")
        }
        return sorted(found - {self.folder / name for name in self.trained})
