"""A study: one YAML file, expanded to the runs it asks for."""

import json
from collections.abc import Iterable, Iterator
from copy import deepcopy
from functools import cached_property
from itertools import product
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from cem.config.attack import Attack
from cem.config.base import Seed, Settings, Slug
from cem.config.dataset import Dataset
from cem.config.defense import Defense
from cem.config.errors import describe
from cem.config.metric import METRICS, Metric
from cem.config.mixture import MixtureFit
from cem.config.model import Model, Vgg11
from cem.config.panels import or_panel
from cem.config.paths import at, depth, given, put
from cem.config.presets import PRESETS, Preset, preset_settings
from cem.config.run import Run
from cem.config.strict import validate
from cem.config.surrogate import SURROGATES, NoSurrogate, Surrogate
from cem.config.training import Training, TrainingOrNone

_SHARED = ("dataset", "model", "noise_std", "defenses", "training")  # settings of a study that its runs have


PaperColumn = Literal[
    "accuracy", "mse", "psnr_db", "ssim", "recognised", "embedding_similarity", "leakage_nats", "leakage_lower_nats",
    "train_seconds",
]  # fmt: skip


class ReportSettings(Settings):
    """What the report shows."""

    images: int = Field(8, ge=1, le=64, description="originals and reconstructions shown of each run")
    map_samples: int = Field(500, ge=10, le=5000, description="test images on the map of the smashed data")
    columns: tuple[PaperColumn, ...] = Field(
        ("accuracy", "mse", "psnr_db", "ssim", "leakage_nats"),
        min_length=1,
        description="columns of tables/paper.tex, in this order",
    )


class Gate(Settings):
    """When an attack's numbers count: it must invert the undefended reference of a run, at the same budget.

    The reference has the run's data, architecture, cut and training, but no surrogate, no defence and σ = 0. It is
    trained with every seed of the study's runs, and its spread counts.
    """

    max_mse_ratio: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="most that the attack's MSE there may be, in parts of the mean image's; with several seeds, "
        "the upper end of its 95 % interval",
    )
    max_over_best: float = Field(
        0.25,
        gt=0,
        description="by how much the attack's MSE there may exceed that of the best attack that knows no more, in "
        "parts of it; beyond, the attack is weak",
    )


def _noise_std(settings: dict[str, Any]) -> float:
    """A network that is given sends what it sends: noise is added only where a study says how much."""
    return 0.0 if settings["training"].none else float(Run.model_fields["noise_std"].default)


class Study(Settings):
    """One question, asked of several runs."""

    model_config = ConfigDict(defer_build=True)  # until all members of the families can be known

    name: Slug = Field(description="folder of the results: results/<name>")
    dataset: Dataset = Field(description="where the images come from, and how they are divided")
    preset: Preset | None = Field(
        None,
        description="a row of the published tables, which stands for its bottleneck, noise_std and defenses; also in "
        f"`grid` and `runs`: {', '.join(PRESETS)}",
    )
    model: Model = Field(Vgg11(), description="the network, and where it is cut")
    training: TrainingOrNone = Field(
        Training(), description="how every run is trained; none: the network is taken as it is given"
    )
    noise_std: float = Field(
        default_factory=_noise_std,
        ge=0,
        description="σ of the Gaussian noise added to ẑ before it leaves the client; absent: 0.025, without training 0",
    )
    defenses: tuple[Defense, ...] = Field((), description="what else is applied to z, or added to the objective")
    surrogates: tuple[Surrogate, ...] = Field((NoSurrogate(),), min_length=1, description="each trains its own runs")
    seeds: tuple[Seed, ...] = Field((0,), min_length=1, description="training seeds; the spread is over these")
    attacks: tuple[Attack, ...] = Field(
        min_length=1,
        description="every run is scored by all of them; {panel: quick}, standard or paper stands for a tested set, "
        "{panel: quick, also: […]} for more than it, {panel: quick, max_epochs: 32} for shorter fits",
        json_schema_extra=or_panel,
    )
    grid: dict[str, list[Any]] = Field(
        {}, description="dotted path of a run's setting → values; all combinations with surrogates and seeds are run"
    )
    extra_runs: list[dict[str, Any]] = Field(
        [], alias="runs", description="single rows: what differs from the study; without a seed, one for every seed"
    )
    leakage: MixtureFit = Field(
        MixtureFit(fit="em"),
        description="mixture that measures the leakage of a trained run; what is given replaces all of the "
        "default: say `fit: em` again",
    )
    smashed_dtype: Literal["auto", "float16", "float32"] = Field(
        "auto",
        description="number format of stored activations; auto: float16 where it is off by at most σ/100, else float32",
    )
    metrics: tuple[Metric, ...] = Field((), description="metrics beside those that every study has")
    gate: Gate = Field(Gate(), description="when an attack's numbers count")
    report: ReportSettings = Field(ReportSettings(), description="what the report shows")

    @field_validator("name")
    @classmethod
    def _not_taken(cls, value: str) -> str:
        if value.lower() == "data":  # lower: some file systems do not tell Data from data
            raise ValueError(f"{value!r} is taken: results/data holds the prepared data sets. Choose another name")
        return value

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"expected distinct seeds; found {list(value)}")
        return value

    @field_validator("attacks")
    @classmethod
    def _distinct_attacks(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        ids = [attack.id for attack in value]
        doubled = sorted({name for name in ids if ids.count(name) > 1})
        if doubled:
            raise ValueError(f"two attacks are called {', '.join(doubled)}: give each its own `name`")
        return value

    @field_validator("metrics")
    @classmethod
    def _metrics_once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [metric.member for metric in value]
        doubled = sorted({name for name in names if names.count(name) > 1 or METRICS.members[name].always})
        if doubled:
            raise ValueError(
                f"each metric at most once, and those that every study has never; found {', '.join(doubled)}"
            )
        return value

    @model_validator(mode="after")
    def _runs_are_valid(self) -> "Study":
        attacked = {(run.model, run.dataset.side, run.dataset.split.by) for run in self.runs()}
        for index, attack in enumerate(self.attacks):
            for model, side, by in attacked:
                try:
                    attack.check_model(model, side)
                    attack.check_split(by)
                except ValueError as error:
                    raise ValueError(f"attacks.{index}: {error}") from None
        return self

    def runs(self) -> list[Run]:
        """The grid's runs, then the single rows; equal runs once, in the order of their first mention."""
        return list(self._unique.values())

    @cached_property
    def _unique(self) -> dict[str, Run]:
        """Id → run; it is expanded and checked once."""
        return {run.id: run for run in self._expand()}

    def _expand(self) -> Iterator[Run]:
        base = {name: given(getattr(self, name)) for name in (*_SHARED, "preset") if self._says(name)}
        axes = {"surrogate": [given(surrogate) for surrogate in self.surrogates], "seed": list(self.seeds)}
        self._check_axes(axes["surrogate"])
        axes |= {path: self.grid[path] for path in sorted(self.grid, key=depth)}
        for values in product(*axes.values()):
            settings = deepcopy(base)
            for path, value in zip(axes, values, strict=True):
                if path.startswith("surrogate.") and not _has(settings["surrogate"], path):
                    continue  # `none` has no weight to vary
                put(settings, path, value)
            yield _expanded(settings, "grid")
        for index, row in enumerate(self.extra_runs):
            if "surrogate" not in row:
                raise ValueError(f"runs.{index}: expected a `surrogate`, such as {{kind: none}}; found {sorted(row)}")
            for seed in [row["seed"]] if "seed" in row else self.seeds:
                settings = deepcopy(base)
                for path in sorted({**row, "seed": seed}, key=depth):
                    put(settings, path, seed if path == "seed" else row[path])
                yield _expanded(settings, f"runs.{index}")

    def _says(self, name: str) -> bool:
        """Whether a run has to be told a setting. Not those that are a run's defaults: a preset may stand there."""
        own = Run.model_fields.get(name)
        if name in self.model_fields_set:
            return True
        # Where a study does not say noise_std, each run's own training decides it: see _expanded.
        return name != "noise_std" and own is not None and getattr(self, name) != own.default

    def _check_axes(self, surrogates: list[dict[str, Any]]) -> None:
        base = [*_SHARED, "preset"]
        for path, values in self.grid.items():
            head, _, tail = path.partition(".")
            if path in ("seed", "surrogate", "surrogate.kind"):
                raise ValueError(f"grid.{path}: list these under `{head}s`")
            if head not in [*base, "surrogate"]:
                raise ValueError(f"grid.{path}: unknown setting; choose from {', '.join(base)} and surrogate.<setting>")
            if not values:
                raise ValueError(f"grid.{path}: expected at least one value")
            if head == "surrogate" and not any(_has(surrogate, path) for surrogate in surrogates):
                choices = {name for surrogate in surrogates for name in _settings_of(surrogate)}
                raise ValueError(
                    f"grid.{path}: no surrogate of this study has the setting {tail!r}; "
                    f"choose from {', '.join(sorted(choices))}"
                )


def _settings_of(surrogate: dict[str, Any]) -> Iterable[str]:
    return SURROGATES.members[surrogate["kind"]].model_fields


def _has(surrogate: dict[str, Any], path: str) -> bool:
    return path.split(".")[1] in _settings_of(surrogate)


def _expanded(settings: dict[str, Any], where: str) -> Run:
    """The run, with the settings of its preset.

    Raises ValueError where what the study says contradicts that.
    """
    name = settings.pop("preset", None)
    asked = _run(settings if "noise_std" in settings else settings | {"noise_std": _noise_of(settings, where)}, where)
    if name is None:
        return asked
    try:
        published = preset_settings(name, asked.dataset.name)
        run = asked.as_preset(name)
    except ValidationError as error:
        raise ValueError(f"{where}: preset: {name}: {describe(error, Run)}") from None
    except ValueError as error:
        raise ValueError(f"{where}: preset: {error}") from None
    for path, value in published.items():
        if at(settings, path) is not ... and at(asked, path) != at(run, path):
            said = json.dumps(at(settings, path), ensure_ascii=False)
            raise ValueError(
                f"{where}: preset: {name} stands for {path}: {json.dumps(value)}, and {path}: {said} contradicts it. "
                "Leave one of them out"
            )
    return run


class _Trained(Settings):
    """Of a run's settings only the training, to know whether there is one."""

    model_config = ConfigDict(extra="ignore")

    training: TrainingOrNone = Training()


def _noise_of(settings: dict[str, Any], where: str) -> float:
    """noise_std of a run whose settings do not say it. Raises ValueError where they say no training."""
    try:
        return _noise_std({"training": validate(_Trained, settings).training})
    except ValidationError as error:
        raise ValueError(f"{where}: {describe(error, Run)}") from None


def _run(settings: dict[str, Any], where: str) -> Run:
    try:
        return validate(Run, settings)
    except ValidationError as error:
        raise ValueError(f"{where}: {describe(error, Run)}") from None
