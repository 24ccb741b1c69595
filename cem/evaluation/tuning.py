"""What an attack chose once, on the undefended reference, and uses on every run of its base."""

from pathlib import Path

from cem.config import AttackSettings
from cem.evaluation.victim import EvaluationError
from cem.storage.job_records import AttackRecord
from cem.storage.records import read_record


def as_tuned(cfg: AttackSettings, result: Path) -> AttackSettings:
    """The attack with what its result on the reference says.

    Raises StoreError when that file is absent or damaged, EvaluationError when it is of other settings or says none.
    """
    found = read_record(result, AttackRecord, "attack")
    if found.settings != cfg.sparse():
        raise EvaluationError(
            f"{result}: expected a result with the settings {cfg.sparse()}, found {found.settings}. Delete it and "
            "rerun attack."
        )
    try:
        return cfg.tuned(found.choices)
    except (KeyError, TypeError, ValueError) as error:
        raise EvaluationError(
            f"{result}: expected what {cfg.id} chose on the undefended reference, found {found.choices} ({error!r}). "
            "Delete it and rerun attack."
        ) from None
