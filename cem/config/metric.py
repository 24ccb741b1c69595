"""The metrics: how close a reconstruction is to its image."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from cem.config.base import ConfigError
from cem.config.registry import Family, Member


class MetricSettings(Member):
    """What all metrics share. A metric's column in the results has the name of its kind.

    always: whether every study has it. smallest_side: of smaller images it cannot be computed. better: whether a lower
    or a higher value says that the reconstruction is closer. unit: as tables say it; empty: none.
    """

    always: ClassVar[bool] = False
    smallest_side: ClassVar[int] = 1
    better: ClassVar[Literal["lower", "higher"]]
    unit: ClassVar[str] = ""

    def make(self, device: Any) -> Callable[..., Any]:
        """The function of reconstructions and images that gives one number per image. device: torch's."""
        made: Callable[..., Any] = self.load()
        return made

    def check(self) -> None:
        """Raise ConfigError for what it needs and is absent, before any job starts; without torch."""


class Mse(MetricSettings):
    """Mean squared error over channels and pixels."""

    kind: Literal["mse"] = "mse"
    implementation = "cem.metrics.pixels:mse"
    always, better = True, "lower"


class PsnrDb(MetricSettings):
    """Peak signal-to-noise ratio, at most 100 dB."""

    kind: Literal["psnr_db"] = "psnr_db"
    implementation = "cem.metrics.pixels:psnr_db"
    always, better, unit = True, "higher", "dB"


class Ssim(MetricSettings):
    """Structural similarity."""

    kind: Literal["ssim"] = "ssim"
    implementation = "cem.metrics.structure:ssim"
    always, better, smallest_side = True, "higher", 6


class MsSsim(MetricSettings):
    """Structural similarity at five scales, of images large enough to be halved four times."""

    kind: Literal["ms_ssim"] = "ms_ssim"
    implementation = "cem.metrics.structure:ms_ssim"
    always, better, smallest_side = True, "higher", 176


class Lpips(MetricSettings):
    """Distance of deep features (LPIPS with VGG-16), with weights of your own; needs the extra cem[lpips]."""

    kind: Literal["lpips"] = "lpips"
    implementation = "cem.metrics.perceptual:load_lpips"
    better = "lower"
    trunk: str = Field(description="file with VGG-16's ImageNet weights, torchvision's vgg16-397923af.pth")
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="SHA-256 of that file; absent: that of torchvision's"
    )

    def check(self) -> None:
        if find_spec("lpips") is None:
            raise ConfigError("metrics: lpips needs the package lpips: pip install lpips, or leave the metric out.")
        if not os.path.isfile(self.trunk):  # noqa: PTH113 (pathlib raises for a folder that may not be entered)
            raise ConfigError(
                f"metrics: lpips expects VGG-16's weights, torchvision's vgg16-397923af.pth, in {self.trunk}; there is "
                "no such file. Put it there, correct `trunk`, or leave the metric out: nothing is downloaded."
            )

    def make(self, device: Any) -> Callable[..., Any]:
        digest = {} if self.sha256 is None else {"trunk_sha256": self.sha256}
        made: Callable[..., Any] = self.load()(self.trunk, device=device, **digest)
        return made


METRICS = Family("metric", MetricSettings)
Metric = Annotated[MetricSettings, METRICS]


def every_metric(chosen: tuple[MetricSettings, ...]) -> list[MetricSettings]:
    """The metrics that every study has, then those that it chose."""
    return [*(member() for member in METRICS.members.values() if member.always), *chosen]
