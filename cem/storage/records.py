"""The records beside results: one class for each file, shared by who writes it and who reads it. No torch in here.

A record's `version` is that of its format. Files of cem 0.1.0 do not say theirs: it is 1.
"""

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cem.storage.files import StoreError, write_json

R = TypeVar("R", bound="Record")
Seconds = Annotated[float, Field(ge=0)]
_FEW = 3  # findings of a damaged record that are told


class Part(BaseModel):
    """Of a record: closed, so that a key that is misspelt or unknown is an error for writer and reader alike."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Record(Part):
    """A file of JSON. VERSION: what is written now; older ones are read, with what they did not say at its default."""

    VERSION: ClassVar[int] = 1
    version: int = 1


class Attempt(Part):
    """One start of a job, by its own count.

    seconds: of work, as far as is known. lost_seconds: of those, what no later attempt could use. ended: saved (on
    request), failed, killed (nothing more was heard of it), done; empty while it runs. gpu_seconds: seconds times the
    GPUs it saw. cpu_seconds and max_rss_mb: of its process and those it started. None: unavailable, which is not 0.
    """

    node: str
    device: str
    started: str
    gpus: int | None = None
    seconds: Seconds = 0.0
    lost_seconds: Seconds = 0.0
    gpu_seconds: float | None = None
    cpu_seconds: float | None = None
    max_rss_mb: float | None = None
    ended: Literal["", "saved", "failed", "killed", "done"] = ""


class JobCost(BaseModel):
    """One start of a job, as a cluster's executor counted it and put into the record when the job was done.

    source: accounting, or job where there is none. lost: no result came of it. None: unavailable.
    """

    model_config = ConfigDict(frozen=True)  # the executor is another program, and may say more

    source: str
    lost: bool
    elapsed_s: float | None
    cpu_s: float | None
    gpu_s: float | None
    max_rss_mb: float | None


class JobRecord(Record):
    """What a job says of itself beside its results. costs: absent unless an executor puts them in, after the job."""

    attempts: list[Attempt]
    lost_seconds: Seconds  # of all attempts together
    costs: list[JobCost] = []


class TrainRecord(JobRecord):
    """`train.json`. Accuracies are in [0, 1]; seconds are of the epochs; parameters are counted for each module."""

    run: str
    accuracy_test: float
    accuracy_val: float
    best_epoch: int
    epochs: int
    seconds: Seconds
    warmup_seconds: Seconds
    parameters: dict[str, int]
    peak_memory_mb: float
    device: str
    threads: int
    versions: dict[str, str]
    numerics: int


class AttackKnowledge(Part):
    """The attacker's images: of which split, how many, and in words."""

    data: str
    images: int
    label: str


class LadderRung(Part):
    """A budget that an attack tried: see `cem.attacks.base.Rung`."""

    epochs: int
    val_mse: float
    seconds: Seconds


class WeightsFile(Part):
    """A file of weights that an attack started from. setting: the one that names it."""

    setting: str
    path: str
    sha256: str


class AttackRecord(JobRecord):
    """`attack.json`: settings, knowledge, what the fit has to say for itself (see `cem.attacks.Fitted`), and cost.

    constant: the encoder sends the same for every image. Version 1 did not say: such runs were refused. held_out_mse
    and ladder: version 2 did not have them. weights_sha256: of the file beside it with the fitted networks; None: there
    is none. started_from: none where the networks started from random weights. Version 3 says both.
    """

    VERSION: ClassVar[int] = 3
    attack: str
    kind: str
    settings: dict[str, Any]
    knowledge: AttackKnowledge
    parameters: int
    held_out_mse: float | None = None
    curve: list[dict[str, int | float]]
    ladder: list[LadderRung] = []
    converged: bool | None
    choices: dict[str, Any]
    failure: str
    fit_seconds: Seconds
    score_seconds: Seconds
    peak_memory_mb: float
    numerics: list[int]
    torch: str
    device: str
    threads: int
    constant: bool = False
    started_from: list[WeightsFile] = []
    weights_sha256: str | None = None


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


def write_record(path: Path, record: Record) -> None:
    """Write a record, whole or not at all, with its format's present version."""
    unsaid = {"costs"} if isinstance(record, JobRecord) and not record.costs else set()
    write_json(path, record.model_dump(mode="json", exclude=unsaid) | {"version": record.VERSION})


def read_record(path: Path, kind: type[R], rule: str) -> R:
    """The record at `path`. rule: what makes it.

    Raises StoreError, naming what was expected, what came and what to do, when it is absent, damaged, of a newer
    version, or of something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text)
    except FileNotFoundError:
        raise StoreError(f"{path}: expected a file, found none. Run {rule}.") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: expected JSON; cannot read it: {error}. Delete it and rerun {rule}.") from None
    version = found.get("version", 1) if isinstance(found, dict) else None
    if version not in range(1, kind.VERSION + 1):
        said = "no version" if version is None else f"version {version!r}"
        raise StoreError(
            f"{path}: expected {kind.__name__} version {kind.VERSION} or older, found {said}. Read it with the cem "
            f"that wrote it, or delete it and rerun {rule}."
        )
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise StoreError(
            f"{path}: expected {kind.__name__} version {version}; {findings(error)}. It is damaged or of an older "
            f"program: delete it and rerun {rule}."
        ) from None


def findings(error: ValidationError) -> str:
    """What is wrong with a record, the first few findings: where, what was expected, what came."""
    told = []
    for one in error.errors(include_url=False):
        where = ".".join(map(str, one["loc"]))
        if one["type"] == "missing":
            told.append(f"missing: {where}")
        else:
            told.append(f"{where}: {one['msg'][0].lower()}{one['msg'][1:]}, found {one['input']!r:.80}")
    more = f" (and {len(told) - _FEW} more)" if len(told) > _FEW else ""
    return "; ".join(told[:_FEW]) + more
