"""The learning rate of a decoder: found once, on the undefended reference, and used on every run of its base."""

from pathlib import Path

from cem.config import Decoder
from cem.evaluation.victim import EvaluationError
from cem.storage.records import AttackRecord, read_record


def with_tuned_lr(cfg: Decoder, tuned: Path) -> Decoder:
    """The attack with the learning rate that its result on the reference says.

    Raises StoreError when that file is absent or damaged, EvaluationError when it is of other settings or says none.
    """
    found = read_record(tuned, AttackRecord, "attack")
    if found.settings != cfg.sparse():
        raise EvaluationError(
            f"{tuned}: expected a result with the settings {cfg.sparse()}, found {found.settings}. Delete it and "
            "rerun attack."
        )
    lr = found.choices.get("lr")
    if not isinstance(lr, float):
        raise EvaluationError(
            f"{tuned}: expected the learning rate that {cfg.id} chose on the undefended reference, found {lr!r}. "
            "Delete it and rerun attack."
        )
    return cfg.model_copy(update={"lr": lr})
