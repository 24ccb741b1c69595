"""A run: one trained split model, or one that is given, and what acts on its z."""

from functools import cached_property

from pydantic import ConfigDict, Field, field_validator, model_validator

from cem.config.base import Seed, Settings, digest
from cem.config.dataset import Dataset
from cem.config.defense import Defense
from cem.config.defense_base import DefenseSettings
from cem.config.model import Model, Vgg11
from cem.config.model_base import ModelSettings
from cem.config.paths import given, put
from cem.config.presets import preset_settings
from cem.config.strict import validate
from cem.config.surrogate import NoSurrogate, Surrogate
from cem.config.training import Training, TrainingOrNone

DIGITS = 12  # of the digest in a run's id: among millions of runs no two are expected to be equal


class Run(Settings):
    """One trained split model: one row of the study's table."""

    model_config = ConfigDict(defer_build=True)  # until all members of the families can be known

    dataset: Dataset
    model: Model = Vgg11()
    noise_std: float = Field(0.025, ge=0, description="σ of the Gaussian noise added to ẑ before it leaves the client")
    defenses: tuple[Defense, ...] = Field((), description="what else is applied to z, or added to the objective")
    surrogate: Surrogate = NoSurrogate()
    training: TrainingOrNone = Training()
    seed: Seed = Field(0, description="seed of initialisation, data order, noise and surrogate")

    @field_validator("defenses")
    @classmethod
    def _in_their_order(cls, value: tuple[DefenseSettings, ...]) -> tuple[DefenseSettings, ...]:
        """As they act: two orders of one list are one run."""
        kinds = [defense.member for defense in value]
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"each kind at most once; found {', '.join(kinds)}")
        return tuple(sorted(value, key=lambda defense: (defense.order, defense.member)))

    @model_validator(mode="after")
    def _fits_together(self) -> "Run":
        self.model.check_side(self.dataset.side)
        if not self.model.has_network:
            self._check_activations()
        if self.trained:
            self.surrogate.check_training(self.training)
        else:
            self._check_untrained()
        for defense in self.defenses:
            defense.check_model(self.model, self.dataset.side)
        self._check_pruning()
        own = [defense.member for defense in self.defenses if defense.adds_noise]
        if own and (self.noise_std > 0 or len(own) > 1):
            found = [f"noise_std: {self.noise_std:g}"] if self.noise_std > 0 else []
            raise ValueError(
                f"{own[0]} is the noise of a run, and no other stands beside it; found {', '.join([*found, *own])}. "
                + ("Set noise_std: 0" if self.noise_std > 0 else "Keep one")
            )
        return self

    def _check_activations(self) -> None:
        if not self.dataset.activations:
            raise ValueError(
                f"model {self.model.arch} has no network, so that z must come with the data: expected dataset: "
                f"{{source: activations, path: …}}, found source: {self.dataset.member}"
            )
        if self.trained:
            raise ValueError("activations that are given cannot be trained. Set training: none")
        if self.training.reference is not None:
            raise ValueError(
                f"training.reference: model {self.model.arch} has no network that a reference could be trained of. "
                "Leave it out"
            )

    def _check_untrained(self) -> None:
        self.model.check_untrained()
        if self.training.reference is not None and self.model.undefended is not None:
            raise ValueError(
                "model.reference names undefended weights, and training.reference trains others: expected one of the "
                "two. Leave one out"
            )
        if self.surrogate.adds_term:
            raise ValueError(
                f"the surrogate {self.surrogate.member} is a term of the training, and training: none has none. Leave "
                "it out, or give a training"
            )
        for defense in self.defenses:
            if defense.needs_training:
                raise ValueError(
                    f"the defence {defense.member} acts by training, and training: none has none. Leave it out, or "
                    "give a training"
                )

    @property
    def trained(self) -> bool:
        """Whether the pipeline trains it; otherwise the network is taken as it is given."""
        return not self.training.none

    def _check_pruning(self) -> None:
        epoch, training = self.pruned_before, self.training
        if epoch is not None and not training.warmup_epochs <= epoch < training.epochs:
            raise ValueError(
                f"pruning: expected it after the {training.warmup_epochs} epochs of warm-up, which trainings share, "
                f"and before the {training.epochs} of all have passed; found it after {epoch}. Change `at`"
            )

    @property
    def trained_model(self) -> ModelSettings:
        """The network that the training ends with: `model`, or what a defence has left of it."""
        model: ModelSettings = self.model
        for defense in self.defenses:
            model = defense.pruned(model)
        return model

    @property
    def pruned_before(self) -> int | None:
        """Epoch (from 0) before whose first batch the network becomes `trained_model`; None: it is that already."""
        found = (defense.prunes_at(self.training.epochs) for defense in self.defenses)
        return next((epoch for epoch in found if epoch is not None), None)

    @property
    def noise_known(self) -> bool:
        """Whether all noise of z is known: z that are given may have some, unless a study says what is added."""
        return self.model.has_network or self.noise_std > 0 or any(defense.adds_noise for defense in self.defenses)

    # Hashed once each: a plan of thousands of runs asks for them again and again.
    @cached_property
    def id(self) -> str:
        """Readable, path-safe and unique: what the path does not name is in its last twelve digits."""
        return f"{self._stem}/{self.surrogate.label}/s{self.seed}-{self.digest(DIGITS)}"

    @cached_property
    def base(self) -> str:
        """Id of the warm-up: shared by the runs that differ only in the surrogate and its weight."""
        settings = self.sparse()
        settings.pop("surrogate", None)
        return f"{self._stem}/s{self.seed}-{digest(settings, DIGITS)}"

    def undefended(self, seed: int) -> "Run | None":
        """The same network and training with nothing to hinder an attack: no surrogate, no defence, no noise.

        Of a network that is given: one with weights that the study names, or that is trained for this; None: neither.
        """
        changes = {"noise_std": 0.0, "defenses": (), "surrogate": NoSurrogate(), "seed": seed}
        if self.model.undefended is not None:
            changes["model"] = self.model.undefended
        elif not self.trained:
            if self.training.reference is None:
                return None
            changes |= {"model": self.model.from_scratch, "training": self.training.reference}
        return self.model_copy(update=changes)

    def as_preset(self, name: str) -> "Run":
        """This run with the settings of a row of the published tables. Raises ValueError where none is called so."""
        settings = given(self)
        for path, value in preset_settings(name, self.dataset.name).items():
            put(settings, path, value)
        return validate(Run, settings)

    @property
    def _stem(self) -> str:
        defenses = "".join(f"+{defense.label}" for defense in self.defenses)
        model = f"{self.dataset.name}-{self.model.label}-c{self.model.cut_layer}"
        return f"{model}/noise{self.noise_std:g}{defenses}"
