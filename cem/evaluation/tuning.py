"""What an attack chose once, on the undefended reference, and uses on every run of its base."""

import json
from pathlib import Path

from cem.config import AttackSettings
from cem.evaluation.victim import EvaluationError


def as_tuned(cfg: AttackSettings, result: Path) -> AttackSettings:
    """The attack with what its result on the reference says.

    Raises EvaluationError when that file is absent, damaged, or of an attack with other settings.
    """
    try:
        found = json.loads(result.read_text(encoding="utf-8"))
        settings, tuned = found["settings"], cfg.tuned(found["choices"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(
            f"{result}: expected the result of {cfg.id} on the undefended reference, with what it chose there; cannot "
            f"read it: {error!r}. Delete it and rerun attack."
        ) from None
    if settings != cfg.sparse():
        raise EvaluationError(
            f"{result}: expected a result with the settings {cfg.sparse()}, found {settings}. Delete it and rerun "
            "attack."
        )
    return tuned
