"""How the images of a data set are divided."""

from typing import Annotated, Literal

from pydantic import Field

from cem.config.base import Seed, Settings

Amount = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)]


class Split(Settings):
    """How the images are divided. Every split is stratified by class, seeded and disjoint from the others.

    A whole number is a count of images, a number below 1 a fraction of the part it is taken from: `test` of everything
    (or of the source's own test part, where it has one), `val`, `shadow` and `private` of the rest. Where the source
    has a val part of its own, `val` is taken from that, and is the whole of it at its default.

    With `by: identity` the classes are persons, and `shadow` counts persons, or is a fraction of all. They are drawn
    first, with all their images, whatever part of the source they are in. The others are divided by image, as above.
    """

    by: Literal["image", "identity"] = Field(
        "image",
        description="image: every split has images of every class; identity: whole classes (persons) are drawn for "
        "`shadow`, so that none of the attacker's own persons is in another split",
    )

    private: Amount | None = Field(None, description="the defender's training images; absent: all that remain")
    val: Amount = Field(
        0.1, description="images that models are selected on; absent: 0.1, or the source's own val part"
    )
    shadow: Amount = Field(0.2, description="images an attacker owns that the defender never trained on")
    test: Amount | None = Field(
        None, description="images scored once, at the end; absent: the source's own test part, or 0.2 of everything"
    )
    seed: Seed = Field(0, description="seed of the division; the training seeds are apart from it")
