"""A network of the user's own, from the Python file that the study names, cut at one of its modules."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from cem.config import OwnModel
from cem.models.checkpoint import load_weights
from cem.models.dropout import seed_dropout
from cem.models.graph import DRAWS, EVAL_ONLY, Graph, Part, pieces, resumable
from cem.models.own_file import function_of
from cem.models.split import Architecture, ImageShape, ModelError

GIVEN = ("num_classes", "image_shape")  # what a function that makes a network may take


class Standardise(nn.Module):
    """(x − mean) / std of each channel, as the network was trained on."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.values = mean, std
        self.register_buffer("mean", torch.empty(len(mean), 1, 1))
        self.register_buffer("std", torch.empty(len(std), 1, 1))

    def draw(self, generator: torch.Generator) -> None:
        """Nothing is drawn: the numbers are what the settings say."""
        for name, values in zip(("mean", "std"), self.values, strict=True):
            self.get_buffer(name).copy_(torch.tensor(values)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        return (images - self.get_buffer("mean")) / self.get_buffer("std")


def build_own(cfg: OwnModel, image_shape: ImageShape, num_classes: int) -> Architecture:
    """One stage, up to the module; the head is the rest.

    The file is run. Raises ModelError where it, the function or the module is not there, where the network cannot be
    taken apart, or where the halves are not the network.
    """
    channels = image_shape[0]
    if cfg.mean and len(cfg.mean) != channels:
        raise ModelError(f"mean and std: expected {channels} numbers each, one for each channel; found {len(cfg.mean)}")
    with _drawn(0):
        whole = _made(cfg, image_shape, num_classes).eval()
        images = torch.rand(2, *image_shape)
        # Of the network as its code gives it, with none of its layers replaced.
        expected, other = _run(whole, images, cfg), _shaken(whole)
        with _in_place_of(whole, other):
            shaken = _run(whole, images, cfg)
        whole = resumable(whole).eval()
        try:
            graph = Graph(cfg.path, whole, "cut")
        except Exception as error:  # whatever the user's own code raises on a proxy
            raise ModelError(
                f"{cfg.path}: the network cannot be taken apart: {error}. Its forward must take one tensor, give one, "
                "and do the same for every input: no if, len() or float() on values of tensors"
            ) from error
        halves = graph.cut(cfg.cut)
        with torch.no_grad():
            same = [torch.allclose(halves[1](halves[0](images.clone())), expected, rtol=1e-4, atol=1e-5)]
            if shaken.isfinite().all():
                with _in_place_of(whole, other):
                    same.append(torch.allclose(halves[1](halves[0](images.clone())), shaken, rtol=1e-4, atol=1e-5))
        if not all(same):
            raise ModelError(
                f"{cfg.path}: cut at {cfg.cut}, the network gives other logits than in one piece: its forward draws at "
                "random, or changes what it keeps. Make it the same at every call in evaluation mode"
            )
        _check_each_alone(halves, images, cfg)
        eval_only = _untrainable(whole, graph, images, cfg)
        graph.whole.to("meta")
    first: list[nn.Module] = [Standardise(cfg.mean, cfg.std)] if cfg.mean else []
    make = partial(make_network, cfg, image_shape, num_classes, with_weights=True)
    found_pieces = pieces(graph, cfg.cut, image_shape, make, "Cut elsewhere")
    (stage,) = found_pieces.stages
    for part in (*stage, *found_pieces.head):
        if isinstance(part, Part):
            part.eval_only = eval_only
    return Architecture([[*first, *stage]], found_pieces.head)


@torch.no_grad()
def _check_each_alone(halves: tuple[nn.Module, nn.Module], images: Tensor, cfg: OwnModel) -> None:
    """Raise ModelError where what the network gives for an image depends on the others of its batch."""
    both, alone = halves[0](images.clone()), halves[0](images[:1].clone())
    if not isinstance(both, Tensor):
        return  # which is refused elsewhere
    for several, one in ((both, alone), (halves[1](both.clone()), halves[1](alone.clone()))):
        if not torch.allclose(several[:1], one, rtol=1e-3, atol=1e-4):
            raise ModelError(
                f"{cfg.path}: gives other numbers for an image alone than beside another one, as batch normalisation "
                "without running statistics does, or a mean over the batch: attacks would see what nobody else sees. "
                "Let each image stand for itself in evaluation mode"
            )


@torch.no_grad()
def _shaken(whole: nn.Module) -> dict[str, Tensor]:
    """Other values of the parameters that start as one number: behind zeros, as heads and ends of blocks start, all
    inputs are alike."""
    return {
        name: parameter + 0.1 * torch.randn_like(parameter)
        for name, parameter in whole.named_parameters()
        if parameter.requires_grad and parameter.numel() and bool((parameter == parameter.flatten()[0]).all())
    }


@contextmanager
def _in_place_of(whole: nn.Module, values: dict[str, Tensor]) -> Iterator[None]:
    """With these parameters for a while; what the network's code keeps of its own is not written to."""
    own = {name: whole.get_parameter(name).data for name in values}
    try:
        for name, value in values.items():
            whole.get_parameter(name).data = value
        yield
    finally:
        for name, value in own.items():
            whole.get_parameter(name).data = value


def _untrainable(whole: nn.Module, graph: Graph, images: Tensor, cfg: OwnModel) -> str:
    """Why the network cannot be trained, which is said to one that is to be; empty: it can. Its buffers change.

    That is no fault of a network which is attacked as it is.
    """
    try:
        in_training = str(Graph(cfg.path, whole.train(), "cut").graph)
    except Exception:  # whatever the user's own code raises on a proxy, as auxiliary heads make it
        return EVAL_ONLY
    if in_training != str(graph.graph):
        return EVAL_ONLY
    seed_dropout(whole, torch.Generator())
    before = torch.default_generator.get_state()
    _run(whole, images, cfg)
    seed_dropout(whole, None)
    return "" if torch.equal(torch.default_generator.get_state(), before) else DRAWS


def check_own(cfg: OwnModel, image_shape: ImageShape, num_classes: int) -> None:
    """Raise ModelError where the weights do not fit the network, or its logits the classes of the data set."""
    with _drawn(0):
        whole = make_network(cfg, image_shape, num_classes, with_weights=True).eval()
        logits = _run(whole, torch.rand(2, *image_shape), cfg)
    if logits.shape != (2, num_classes):
        raise ModelError(
            f"{cfg.path}: gives {'×'.join(map(str, logits.shape[1:]))} numbers an image; expected {num_classes}, one "
            f"for each class of the data set. Let {cfg.make} take num_classes, or take the data that the network was "
            "trained on"
        )


def make_network(cfg: OwnModel, image_shape: ImageShape, num_classes: int, *, with_weights: bool = False) -> nn.Module:
    """The network, on the CPU, as its code draws it from torch's global generator, or with the weights of its files."""
    network = resumable(_made(cfg, image_shape, num_classes))
    if with_weights and cfg.weights:
        load_weights(network, cfg.weights)
    return network


def _made(cfg: OwnModel, image_shape: ImageShape, num_classes: int) -> nn.Module:
    """What the function in the file gives. Raises ModelError where it fails, or gives no network."""
    make, given = function_of(cfg), dict(zip(GIVEN, (num_classes, image_shape), strict=True))
    taken = inspect.signature(make).parameters.values()
    everything = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken)
    unknown = [
        one.name
        for one in taken
        if one.name not in given
        and one.default is inspect.Parameter.empty
        and one.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    ]
    if unknown:
        raise ModelError(
            f"{cfg.path}: {cfg.make} takes {', '.join(unknown)}, which nobody gives: it may take "
            f"{' and '.join(GIVEN)}. Give the others a default value"
        )
    names = given if everything else {one.name for one in taken} & given.keys()
    try:
        with torch.device("cpu"):
            found = make(**{name: given[name] for name in names})
    except Exception as error:  # whatever the user's own code raises
        raise ModelError(f"{cfg.path}: {cfg.make} failed: {type(error).__name__}: {error}. Correct it") from error
    if not isinstance(found, nn.Module):
        raise ModelError(f"{cfg.path}: expected an nn.Module of {cfg.make}, found {type(found).__name__}. Return one")
    if any(is_lazy(one) for one in (*found.parameters(), *found.buffers())):  # their sizes come from the first images
        _run(found.eval(), torch.zeros(2, *image_shape), cfg)
        found.train()
    return found


def _run(whole: nn.Module, images: Tensor, cfg: OwnModel) -> Tensor:
    shown = "×".join(map(str, images.shape[1:]))
    try:
        with torch.no_grad():
            found = whole(images.clone())
    except Exception as error:  # whatever the user's own code raises
        raise ModelError(
            f"{cfg.path}: the network does not take images of {shown} (channels, height, width): {error}. Set side and "
            "channels of the data set to those that it was made for"
        ) from error
    if not isinstance(found, Tensor) or found.ndim != 2:
        what = "×".join(map(str, found.shape)) if isinstance(found, Tensor) else type(found).__name__
        raise ModelError(
            f"{cfg.path}: expected logits [batch, classes] of the network, found {what}. Return them alone"
        )
    return found


@contextmanager
def _drawn(seed: int) -> Iterator[None]:
    """Torch's global generator with a seed, on the CPU, and afterwards as it was."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        yield
