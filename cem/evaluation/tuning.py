"""The learning rate of a decoder: found once, on the undefended reference, and used on every run of its base."""

import json
from pathlib import Path

from cem.config import Decoder
from cem.evaluation.victim import EvaluationError


def with_tuned_lr(cfg: Decoder, tuned: Path) -> Decoder:
    """The attack with the learning rate that its result on the reference says.

    Raises EvaluationError when that file is absent, damaged, or of an attack with other settings.
    """
    try:
        found = json.loads(tuned.read_text(encoding="utf-8"))
        settings, lr = found["settings"], float(found["choices"]["lr"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EvaluationError(
            f"{tuned}: expected the result of {cfg.id} on the undefended reference, with the learning rate it chose; "
            f"cannot read it: {error!r}. Delete it and rerun attack."
        ) from None
    if settings != cfg.sparse():
        raise EvaluationError(
            f"{tuned}: expected a result with the settings {cfg.sparse()}, found {settings}. Delete it and "
            "rerun attack."
        )
    return cfg.model_copy(update={"lr": lr})
