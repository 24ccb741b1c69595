"""One attack on one run: fitted on what the attacker owns, scored once on private and on test images."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cem import NUMERICS, CemError, metrics
from cem.attacks import Attack, Fitted, Knowledge, make_attack
from cem.attacks.base import Rows, chunks
from cem.config import BASELINES, Run
from cem.config import Attack as AttackConfig
from cem.defenses import make_defense
from cem.resume import Progress, resumable, state_folder
from cem.runtime import device_name, make_generator, peak_memory_mb, set_up_process
from cem.store import (
    ActivationReader,
    DatasetReader,
    open_activations,
    open_dataset,
    sha256,
    whole_or_absent,
    write_file,
    write_json,
)
from cem.types import Smashed

SCOPES = {"train": "private", "infer": "test"}  # scope → the split it scores
CHECKED_ROWS = 4096  # activations looked at at once
Corrupt = Callable[[Smashed, torch.Generator], Smashed]


class EvaluationError(CemError):
    """Activations that no attack can be judged on."""


@dataclass(frozen=True)
class AttackedRun:
    """A trained run as its attackers meet it."""

    data: DatasetReader
    activations: ActivationReader
    corrupt: Corrupt
    seed: int
    device: torch.device

    def observe(self, split: str) -> Callable[[Rows, torch.Generator], Smashed]:
        """Access to what the client sends for one split's images, and to nothing else."""

        def observed(rows: Rows, generator: torch.Generator) -> Smashed:
            def corrupted(clean: np.ndarray) -> Smashed:
                return self.corrupt(torch.from_numpy(clean.astype(np.float32)).to(self.device), generator)

            return self.activations.read(split, rows if isinstance(rows, slice) else rows.cpu().numpy(), corrupted)

        return observed

    def knowledge(self, split: str) -> Knowledge:
        """What an attacker knows who owns the images of `split`."""
        return Knowledge(
            images=torch.from_numpy(self.data.images(split)).to(self.device),
            labels=torch.from_numpy(self.data.labels(split)),
            observe=self.observe(split),
            seed=self.seed,
            device=self.device,
        )


def attack_run(
    run: Run,
    attacks: Sequence[AttackConfig],
    *,
    activations: Path,
    data: Path,
    folder: Path,
    num_images: int,
    results: Path = Path("results"),
) -> None:
    """Fit and score attacks on a trained run: a job's work. See `run_attacks`.

    A learned attack keeps the state of its fit in `results/.state`, and goes on from there when it was interrupted.
    """
    device = set_up_process(run.training.threads)
    corrupt = make_defense(run.noise_std, run.defenses).corrupt
    inputs = {"activations": sha256(activations), "data": sha256(data)}

    def state_of(cfg: AttackConfig) -> Path:
        return state_folder(results, {"attack": cfg.sparse(), "run": run.sparse()}, inputs)

    run_attacks(
        attacks, activations, data, corrupt, folder, num_images=num_images, seed=run.seed, device=device,
        state_of=state_of,
    )  # fmt: skip


def run_attacks(
    attacks: Sequence[AttackConfig],
    activations_path: str | Path,
    data_path: str | Path,
    corrupt: Corrupt,
    folder: str | Path,
    *,
    num_images: int,
    seed: int,
    device: torch.device | str = "cpu",
    state_of: Callable[[AttackConfig], Path] | None = None,
) -> None:
    """Fit and score each attack; its results go to `folder/<attack.id>/`.

    * `metrics.parquet`: one row an image: scope (train: private images, infer: test images), index in the split, label,
      mse, psnr_db, ssim;
    * `reconstructions.h5`: index, images and reconstructions of the first `num_images` of each scope;
    * `attack.json`: settings, knowledge, cost, training curve, convergence, versions.

    corrupt: what the run's defence does to ẑ before it leaves. seed: of the attackers' generators, and, in streams of
    their own, of the corruption that is scored: that is the same for every attack on a run. state_of: folder for the
    state of a learned attack's fit; absent, nothing is kept of one that is interrupted.

    Raises StoreError unless the activations were made from this data set, EvaluationError for activations that are
    not finite or all equal, AttackError when a fit fails.
    """
    with open_dataset(data_path) as data, open_activations(activations_path) as activations:
        activations.check_source("data", data_path)
        for split in {*SCOPES.values(), *(cfg.data for cfg in attacks)}:
            _check_activations(activations, split)
        run = AttackedRun(data, activations, corrupt, seed, torch.device(device))
        sources = {"data": data_path, "activations": activations_path}
        for cfg in attacks:
            place = (cfg, run, sources, Path(folder) / cfg.id, num_images)
            if state_of is None or cfg.kind in BASELINES:
                _run_attack(*place, Progress())
            else:
                with resumable(state_of(cfg), device_name(run.device)) as progress:
                    _run_attack(*place, progress)


def _run_attack(
    cfg: AttackConfig,
    run: AttackedRun,
    sources: Mapping[str, str | Path],
    folder: Path,
    num_images: int,
    progress: Progress,
) -> None:
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    attack = make_attack(cfg, progress)
    started = time.perf_counter()
    knowledge = run.knowledge(cfg.data)
    fitted = attack.fit(knowledge)
    fit_seconds = time.perf_counter() - started
    tables, images = [], {}
    for scope, split in SCOPES.items():
        table, images[scope] = _score(attack, run, scope, owned=split == cfg.data, num_images=num_images)
        tables.append(table)
    score_seconds = time.perf_counter() - started - fit_seconds
    fit_seconds += progress.earlier_seconds
    with whole_or_absent(folder / "metrics.parquet") as temporary:
        pd.concat(tables, ignore_index=True).to_parquet(temporary, index=False)
    with write_file(folder / "reconstructions.h5", "reconstructions", sources, {"attack": cfg.id}) as file:
        for scope, stored in images.items():
            for name, values in stored.items():
                file[f"{scope}/{name}"] = values
    scored = {scope: len(table) for scope, table in zip(SCOPES, tables, strict=True)}
    attempts = progress.end()
    took = {"fit_seconds": fit_seconds, "score_seconds": score_seconds, "attempts": attempts}
    took |= {"lost_seconds": sum(attempt["lost_seconds"] for attempt in attempts)}
    write_json(folder / "attack.json", _record(cfg, run, knowledge, fitted) | took | {"scored": scored})


def _score(
    attack: Attack, run: AttackedRun, scope: str, *, owned: bool, num_images: int
) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """One row an image, and the first `num_images` images beside their reconstructions as bytes."""
    split = SCOPES[scope]
    images, observe = run.data.dataset(f"{split}/images"), run.observe(split)
    corruption = make_generator(run.seed, f"scoring/{scope}", run.device)
    scores: dict[str, list[Tensor]] = {"mse": [], "psnr_db": [], "ssim": []}
    kept = []
    for rows in chunks(images.shape):
        target = torch.from_numpy(images[rows]).to(run.device).float() / 255
        own = torch.arange(rows.start, rows.stop, device=run.device) if owned else None
        reconstruction = attack.reconstruct(observe(rows, corruption), own)
        for name, values in scores.items():
            values.append(getattr(metrics, name)(reconstruction, target).cpu())
        wanted = reconstruction[: max(0, num_images - rows.start)]
        kept.append((wanted * 255).round().byte().cpu())
    table = pd.DataFrame({"scope": scope, "index": np.arange(len(images)), "label": run.data.labels(split)})
    for name, values in scores.items():
        table[name] = torch.cat(values).numpy()
    reconstructions = torch.cat(kept).numpy()
    return table, {
        "index": np.arange(len(reconstructions)),
        "images": images[: len(reconstructions)],
        "reconstructions": reconstructions,
    }


def _record(cfg: AttackConfig, run: AttackedRun, knowledge: Knowledge, fitted: Fitted) -> dict[str, object]:
    return {
        "attack": cfg.id,
        "kind": cfg.kind,
        "settings": cfg.sparse(),
        "knowledge": {"data": cfg.data, "images": knowledge.num_images, "encoder": True, "defense": True},
        **asdict(fitted),
        "peak_memory_mb": peak_memory_mb(run.device),
        "numerics": NUMERICS,
        "torch": str(torch.__version__),
        "device": device_name(run.device),
        "threads": torch.get_num_threads(),
    }


def _extremes(clean: np.ndarray) -> tuple[float, float]:
    return float(clean.min()), float(clean.max())


def _check_activations(activations: ActivationReader, split: str) -> None:
    """Raise EvaluationError when a split's activations are not finite, or are one number everywhere."""
    lows, highs = [], []
    for start in range(0, activations.count(split), CHECKED_ROWS):
        low, high = activations.read(split, slice(start, start + CHECKED_ROWS), _extremes)
        lows.append(low)
        highs.append(high)
    low, high = min(lows), max(highs)
    # The smallest and largest of numbers are finite only if all are; NaN spreads within a read, not between reads.
    if not np.isfinite([*lows, *highs]).all():
        raise EvaluationError(
            f"{activations.path}: expected finite activations of {split}, found values that are not. The training of "
            "this run diverged: lower its lr or weight, and train again."
        )
    if low == high:
        raise EvaluationError(
            f"{activations.path}: expected activations of {split} that differ, found {low:g} everywhere. The encoder "
            "sends nothing: lower the weight of its surrogate or defence, and train again."
        )
