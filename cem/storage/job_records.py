"""What a job says of itself: its attempts and cost, with `train.json` of a run and `attack.json` of an attack."""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from cem.storage.records import Part, Record, Seconds


class Attempt(Part):
    """One start of a job, by its own count.

    seconds: of work, as far as is known. lost_seconds: of those, what no later attempt could use. ended: saved (on
    request), failed, killed (nothing more was heard of it), done; empty while it runs. gpu_seconds: seconds times the
    GPUs it saw. cpu_seconds: of its process and those it started, meanwhile; max_rss_mb: the most that one of them
    held. None: unavailable, which is not 0.
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

    @property
    def unsaid(self) -> set[str]:
        return set() if self.costs else {"costs"}


class TrainRecord(JobRecord):
    """`train.json`. Accuracies are in [0, 1], None where there is no network; seconds are of the epochs; parameters are
    counted for each module.

    files: path → SHA-256 of those that the network came from, where a study names any. Version 1 does not have it.
    """

    VERSION: ClassVar[int] = 2
    run: str
    accuracy_test: float | None
    accuracy_val: float | None
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
    files: dict[str, str] = {}


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
