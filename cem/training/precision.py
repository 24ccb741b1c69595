"""In which number format activations are stored: a shorter one must not do what the client never does."""

from collections.abc import Iterable
from typing import Literal

from cem.defenses import NotApplicable
from cem.types import Smashed

DType = Literal["auto", "float16", "float32"]
NEGLIGIBLE = 0.01  # part of σ that float16 may be off by


def stored_dtype(setting: DType, noise_std: float | NotApplicable, batches: Iterable[Smashed]) -> tuple[str, str]:
    """The format for these activations, and why. noise_std: σ of noise that is of one size everywhere.

    Rounding hides digits of ẑ from attackers who would see them. With `auto` it is float16 only where no value is off
    by more than a hundredth of the noise's σ, so the noise hides the rounding; else, and at σ = 0, float32.
    """
    if setting != "auto":
        return setting, "the study says so"
    if isinstance(noise_std, NotApplicable):
        return "float32", "the noise is not of one size: it need not hide the rounding of float16 everywhere"
    if noise_std == 0:
        return "float32", "no noise would hide the rounding of float16"
    largest = 0.0
    for smashed in batches:
        error = float((smashed.float() - smashed.half().float()).abs().max())
        if not error <= NEGLIGIBLE * noise_std:  # nor where it is not a number
            return "float32", f"float16 would be off by {error:.2g}, more than a hundredth of σ = {noise_std:g}"
        largest = max(largest, error)
    return "float16", f"off by {largest:.2g} at most, within a hundredth of σ = {noise_std:g}"
