"""How a mixture is fitted."""

from typing import Annotated, Literal

from pydantic import Field

from cem.config.base import Settings


class MixtureFit(Settings):
    """How a per-class Gaussian mixture is fitted to smashed data."""

    components: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        3, description="components of each class; auto: the number with the best held-out likelihood, up to 8"
    )
    covariance: Literal["spherical", "diag", "pca"] = Field(
        "diag", description="shape of a component; pca: diagonal plus a part of rank `rank` in a basis of its class"
    )
    rank: int = Field(8, ge=1, description="rank of a pca covariance")
    fit: Literal["kmeans", "em"] = Field("kmeans", description="hard k-means, or EM started from it")

    @property
    def label(self) -> str:
        rank = self.rank if self.covariance == "pca" else ""
        return f"k{self.components}-{self.covariance}{rank}-{self.fit}"
