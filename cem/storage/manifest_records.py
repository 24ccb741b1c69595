"""What an attack's numbers rest on: `manifest.json`, and the record of the evaluator that judged."""

from typing import Any, ClassVar

from pydantic import ConfigDict

from cem.storage.job_records import WeightsFile
from cem.storage.records import Part, Record


class KnownImages(Part):
    """What the attacker had. sha256: of its images. defense: whether it knows the defence.

    seen: of how many private images it learned from z alone.
    """

    split: str
    images: int
    sha256: str
    encoder: str
    observations: int
    labels: bool
    defense: bool
    seen: int = 0


class ScoredImages(Part):
    """What was scored of a scope. also_owned_by_attacker: how many of the images are, byte for byte, its own."""

    split: str
    images: int
    sha256: str
    labels_sha256: str
    also_owned_by_attacker: int


class DefenseFacts(Part):
    """The defence. settings: of each that acted beside the noise, on z or on the objective.

    Version 1 did not tell them, but the rates of dropout and top-k, which are passed by.
    """

    model_config = ConfigDict(extra="ignore")

    noise_std: float
    acts_in: list[str]
    settings: list[dict[str, Any]] | None = None


class ImageFacts(Part):
    """How images are given to the metrics."""

    range: list[int]
    stored_as: str
    normalisation: str


class SsimFacts(Part):
    """The window that SSIM is computed with."""

    window: int
    sigma: float
    borders: str


class MetricFacts(Part):
    """What the metrics' values depend on."""

    ssim: SsimFacts
    psnr_cap_db: float


class Seeds(Part):
    """Of the run and of the attack; None: it has none."""

    run: int
    attack: int | None


class EvaluatorFacts(Part):
    """The classifier that judges reconstructions: see `cem.evaluation.evaluator`.

    images: of the split, those it was fitted to; the digests are of the whole split. held_out_accuracy: in [0, 1], on
    images of the split that it was not fitted to; None: no class had enough for that. unavailable: why there is none;
    empty: there is one. classes_unknown: why it cannot say the classes of scored images; empty: it can.
    """

    split: str
    images: int
    images_sha256: str
    labels_sha256: str
    held_out_images: int
    held_out_accuracy: float | None = None
    steps: int = 0
    parameters: int = 0
    unavailable: str = ""
    classes_unknown: str = ""


class EvaluatorRecord(Record):
    """`{dataset}.evaluator.json` beside the data set: what is to be said of its evaluator."""

    facts: EvaluatorFacts
    numerics: list[int]
    torch: str
    device: str
    threads: int


class Manifest(Record):
    """`manifest.json`: what an attack's number rests on. budget: sizes and what the attacker chose.

    evaluator: what judged the reconstructions; None: nothing did. Version 2 tells the settings of every defence;
    version 3 the evaluator, and the files of weights that the attack started from.
    """

    VERSION: ClassVar[int] = 3
    attack: str
    settings: dict[str, Any]
    knowledge: KnownImages
    scored: dict[str, ScoredImages]
    disjoint_from_infer: bool
    defense: DefenseFacts
    images: ImageFacts
    metrics: MetricFacts
    evaluator: EvaluatorFacts | None = None
    seeds: Seeds
    budget: dict[str, Any]
    numerics: list[int]
    started_from: list[WeightsFile] = []
