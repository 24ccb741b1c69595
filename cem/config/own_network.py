"""Networks that are cut at one of their modules: torchvision's, one of the user's own; and z without any network."""

import re
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cem.config.base import Settings, Slug
from cem.config.imports import imported_beside
from cem.config.model_base import ModelSettings
from cem.config.registry import load
from cem.config.spelling import Also

ModuleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$")]


class CutAtModule(ModelSettings):
    """What the networks share that are cut at the output of one of their modules."""

    width: float = Field(1.0, ge=1, le=1, description="must be 1: the network has its own")
    cut_layer: int = Field(1, ge=1, description="must be 1: the module says where the cut is")
    stages = 1
    needs_network = True


class Torchvision(CutAtModule):
    """A classifier of torchvision with random weights, cut at the output of a module: `torchvision:resnet18@layer1`.

    `cem models torchvision:resnet18` lists the modules. A module that gives a vector gives a z of C×1×1; one that gives
    tokens is refused. Weights start as torchvision starts them.
    """

    arch: Literal["torchvision"] = Field(
        "torchvision", description="architecture; torchvision:<classifier>@<module> says all three at once"
    )
    implementation = "cem.models.torchvision:build_torchvision"
    classifier: Slug = Field(description="name of the classifier, such as resnet18")
    module: ModuleName = Field(description="the module whose output the client sends, as layer1.0")

    @model_validator(mode="before")
    @classmethod
    def _at_once(cls, value: Any) -> Any:
        if not (isinstance(value, dict) and str(value.get("arch", "")).startswith("torchvision:")):
            return value
        classifier, at, module = value["arch"].removeprefix("torchvision:").partition("@")
        if not (classifier and at and module) or {"classifier", "module"} & value.keys():
            raise ValueError(
                f"expected arch: torchvision:<classifier>@<module>, such as torchvision:resnet18@layer1, or classifier "
                f"and module on their own; found {value}"
            )
        return value | {"arch": "torchvision", "classifier": classifier, "module": module}

    @property
    def label(self) -> str:
        return f"{self.arch}-{self.classifier}-{self.module}"


class Checkpoint(Settings):
    """A file with the weights of a network that was trained elsewhere: safetensors, or a PyTorch state dict.

    A state dict is read by `torch.load(weights_only=True)`, and holds tensors and nothing else: no pickled object is
    ever run. A checkpoint that holds more than one state dict, or other values beside it, needs `entry`. Where the
    names in the file are not those of the network, `keys` maps them: the longest prefix that fits a name is replaced.
    """

    path: str = Field(min_length=1, description="path of the file")
    entry: str | None = Field(
        None, description="key of the state dict in the file, such as state_dict; absent: the file is one"
    )
    keys: dict[str, str | None] = Field(
        {}, description="prefix of names in the file → prefix in the network, such as {module.: ''}; null: leave out"
    )

    def __hash__(self) -> int:
        """A mapping has none of its own."""
        return hash((self.path, self.entry, tuple(sorted(self.keys.items()))))


OneCheckpoint = Annotated[Checkpoint, Also(lambda said: isinstance(said, str), str, lambda path: Checkpoint(path=path))]
Checkpoints = Annotated[
    tuple[OneCheckpoint, ...],
    Also(lambda said: isinstance(said, (str, dict, Checkpoint)), OneCheckpoint, lambda only: (only,)),
]


class OwnModel(CutAtModule):
    """A network of one's own, from a Python file, cut at the output of a module; docs/audit.md shows how.

    `make`, a function or a class in the file, gives an nn.Module from images to logits [batch, classes]; what it takes
    of `num_classes` and `image_shape` (channels, height, width) it is given by these names. The file is run, as Python
    runs any: name no file that you would not run. Without weights it starts as its own code draws it. `source: module`
    says the same as `arch: module`.
    """

    arch: Literal["module"] = Field("module", description="architecture; source: module is the same")
    implementation = "cem.models.own:build_own"
    path: str = Field(min_length=1, description="path of the Python file")
    make: str = Field("build", pattern=r"^[A-Za-z_]\w*$", description="function or class in it that gives the network")
    cut: ModuleName = Field(description="the module whose output the client sends, as features.3")
    weights: Checkpoints = Field(
        (),
        description="file of its weights, or several that each have a part; a path alone will do; none: random",
    )
    reference: Checkpoints = Field(
        (),
        description="weights of the same network trained without any defence, on which attacks are shown to be strong",
    )
    mean: tuple[float, ...] = Field((), description="of each channel, taken from images in [0, 1] before the network")
    std: tuple[Annotated[float, Field(gt=0)], ...] = Field((), description="of each channel, divided by after that")
    bottleneck: str | None = Field(
        None, description="`[noRELU_][Kk]CcSs`: kernel, channels, stride, put in at the cut; null: none"
    )
    activation: Literal["sigmoid", "relu", "batch_norm", "none"] = Field(
        "none", description="put in as the last step of the encoder; none: the module's output is sent as it is"
    )

    @model_validator(mode="after")
    def _mean_and_std(self) -> "OwnModel":
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean and std belong together, a number of each for each channel; found {len(self.mean)} and "
                f"{len(self.std)}"
            )
        return self

    @property
    def label(self) -> str:
        stem = re.sub(r"[^A-Za-z0-9_.-]", "_", PurePath(self.path).stem)
        return f"module-{stem}-{self.cut}"

    @property
    def files(self) -> tuple[str, ...]:
        return self.path, *imported_beside(self.path), *(one.path for one in self.weights)

    @property
    def fixed(self) -> bool:
        return bool(self.weights)

    @property
    def undefended(self) -> ModelSettings | None:
        return self.model_copy(update={"weights": self.reference, "reference": ()}) if self.reference else None

    @property
    def from_scratch(self) -> ModelSettings:
        return self.model_copy(update={"weights": (), "reference": ()})

    def check_weights(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        load("cem.models.own:check_own")(self, image_shape, num_classes)

    def check_untrained(self) -> None:
        if self.bottleneck is not None or self.activation == "batch_norm":
            raise ValueError(
                "a bottleneck, or batch_norm at the cut, has to be trained with the network: leave them out, or let "
                "the pipeline train it"
            )


class GivenActivations(CutAtModule):
    """No network: z comes with the data set (`source: activations`), and is all that is known of what made it.

    There is no accuracy, and attacks that need the network (encoder: weights, or none) are refused. Leakage is told
    where `noise_std` says how much noise is added to these z; without it they are attacked as they are.
    """

    arch: Literal["activations"] = Field("activations", description="architecture")
    implementation = "cem.training.pairs:import_activations"
    has_network = False
    bottleneck: None = Field(None, description="must be null: there is no network to put one in")
    activation: Literal["none"] = Field("none", description="must be none")

    @property
    def fixed(self) -> bool:
        return True
