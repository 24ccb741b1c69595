"""The steps of a run: of each its rule, the files it makes and its log. The rules in workflow/rules say the same."""

from dataclasses import dataclass
from pathlib import Path

from cem.config import Run
from cem.planning.plan import ATTACK_FILES, Plan

LOGS = Path("logs")  # where the rules' logs go, below the working folder
STOPPED = "stopped on request, the state saved"  # how the log of a job begins its last line that was asked to stop


@dataclass(frozen=True)
class Step:
    """One job. own: whether it is of this run alone, not of several."""

    rule: str
    outputs: tuple[Path, ...]
    log: Path
    own: bool = True


def steps_of(plan: Plan, name: str, run: Run, logs: Path = LOGS) -> list[Step]:
    """All that a run needs, in order, from the data to its attacks."""
    base = f"warmup/{run.base}"
    place, warm = plan.folder / "runs" / name, plan.folder / base
    of_study = logs / plan.study.name
    steps = [
        Step("prepare_data", (plan.data(run.dataset),), logs / "data" / f"{run.dataset.id}.log", own=False),
        *_judging(plan, run, logs),
    ]
    if run.trained:
        warmed = _in(warm, "model.safetensors", "history.csv")
        steps.append(Step("warm_up", warmed, of_study / base / "warm_up.log", own=False))
    start = plan.start_mixture(run)
    if start is not None:
        steps += _measuring(warm, of_study / base, start.name, own=False)
    outputs = _in(place, "model.safetensors", "history.csv", "train.json")
    steps.append(Step("train", outputs, of_study / name / "train.log"))
    steps += _measuring(place, of_study / "runs" / name, plan.leakage(run).name, own=True)
    attacks = [attack.id for attack in plan.attacks(run)]
    plain = [attack for attack in attacks if attack in plan.baselines]
    if plain:
        files = tuple(file for attack in plain for file in _in(place / "attacks" / attack, *ATTACK_FILES))
        steps.append(Step("baseline_attacks", files, of_study / name / "baseline_attacks.log"))
    return steps + [
        Step("attack", _in(place / "attacks" / attack, *ATTACK_FILES), of_study / name / f"attack-{attack}.log")
        for attack in attacks
        if attack not in plain
    ]


def _judging(plan: Plan, run: Run, logs: Path) -> list[Step]:
    if not plan.study.attacks:
        return []
    model = plan.evaluator(run.dataset)
    log = logs / "data" / f"{run.dataset.id}.evaluator.log"
    return [Step("fit_evaluator", (model, model.with_suffix(".json")), log, own=False)]


def _measuring(place: Path, logs: Path, mixture: str, own: bool) -> list[Step]:
    label = mixture.removesuffix(".h5").removeprefix("mixture-")
    return [
        Step("extract_activations", _in(place, "activations.h5"), logs / "extract_activations.log", own),
        Step("fit_mixture", _in(place, mixture), logs / f"fit_mixture-{label}.log", own),
    ]


def _in(folder: Path, *names: str) -> tuple[Path, ...]:
    return tuple(folder / name for name in names)
