"""torchvision's classifiers, cut at a named module."""

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, fx, nn

from cem.config import Torchvision
from cem.models.dropout import Dropout, StochasticDepth
from cem.models.split import Architecture, ImageShape, ModelError

CHANNELS = 3  # that each of them takes
SHOWN = 8  # modules that a message lists


class Part(nn.Module):
    """One side of the cut. It starts as torchvision starts the whole classifier."""

    def __init__(self, inner: fx.GraphModule, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.inner, self.make = inner, make

    def draw(self, generator: torch.Generator) -> None:
        """First values, by torchvision's own code: its global generator is seeded for it, and then as it was."""
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)
            whole = self.make().state_dict()
        self.inner.load_state_dict({name: whole[name] for name in self.inner.state_dict()})

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x.clone())  # torchvision's own layers may write into what they are given
        return out


class MeanOfWindows(nn.Module):
    """AdaptiveAvgPool2d as products with two matrices: on CUDA the layer's own slope is not the same at every call."""

    def __init__(self, sides: Any) -> None:
        super().__init__()
        self.sides: tuple[int, int] = sides

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (_windows(n, side).to(x) for n, side in zip(x.shape[2:], self.sides, strict=True))
        out: Tensor = rows @ x @ columns.T
        return out


def _windows(before: int, after: int) -> Tensor:
    """[after, before]: row i is the mean over ⌊i·before/after⌋ to ⌈(i + 1)·before/after⌉, as torch has them."""
    first = torch.arange(after) * before // after
    beyond = -(-(torch.arange(after) + 1) * before // after)
    inside = (torch.arange(before) >= first[:, None]) & (torch.arange(before) < beyond[:, None])
    return inside / inside.sum(1, keepdim=True)


class Tracer(fx.Tracer):
    """Records of every module that is called the node that it gives, the last one if it is called again."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, fx.Node] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Dropout | MeanOfWindows) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        out = super().call_module(m, forward, args, kwargs)
        if isinstance(out, fx.Proxy):
            self.given[self.path_of_module(m)] = out.node
        return out


class Classifier:
    """A classifier as a graph. Raises ModelError where it does not exist, or cannot be taken apart."""

    def __init__(self, name: str, num_classes: int) -> None:
        names = torchvision.models.list_models(module=torchvision.models)
        if name not in names:
            near = ", ".join(get_close_matches(name, names, SHOWN)) or ", ".join(names)
            raise ModelError(f"classifier: torchvision has none called {name!r}; near it: {near}")
        self.name, self.make = name, partial(_make, name, num_classes)
        self.tracer = Tracer()
        try:
            with torch.device("meta"):
                self.whole = self.make()
            if getattr(self.whole, "aux_logits", False):
                raise ValueError("it has more than one head")
            self.graph = self.tracer.trace(self.whole)
            own = self.whole.state_dict()
            if strange := [
                str(node.target) for node in self.graph.nodes if node.op == "get_attr" and node.target not in own
            ]:
                raise ValueError(f"its graph needs {strange[0]}, which is none of its parameters and buffers")
        except (ValueError, RuntimeError, NotImplementedError, fx.proxy.TraceError) as error:
            raise ModelError(f"classifier {name}: cannot be cut: {error}. Choose another.") from error
        *self.nodes, end = self.graph.nodes
        self.entry = next(node for node in self.nodes if node.op == "placeholder")
        (self.end,) = end.all_input_nodes

    def cut(self, module: str) -> tuple[fx.GraphModule, fx.GraphModule]:
        """What comes up to the output of a module, and the rest. Raises ModelError where that is no cut."""
        if module not in self.tracer.given:
            near = get_close_matches(module, self.tracer.given, SHOWN) or list(self.tracer.given)[:SHOWN]
            raise ModelError(f"module: {self.name} has none called {module!r}; near it: {', '.join(near)}")
        at = self.tracer.given[module]
        client, server, around = self._sides(at)
        if around:
            needed = ", ".join(sorted(node.name for node in around))
            raise ModelError(
                f"module: {self.name} cannot be cut at {module}: what follows also needs {needed}. "
                + self._advice(module)
            )
        if not (self._learns(client) and self._learns(server)):
            raise ModelError(
                f"module: {self.name} cut at {module} leaves one side nothing to learn. {self._advice(module)}"
            )
        return self._half(client, self.entry, at), self._half(server, at, self.end)

    def modules(self) -> list[str]:
        """Where it can be cut, in the order of the network; of modules with one output, each."""
        found = []
        for name, at in self.tracer.given.items():
            client, server, around = self._sides(at)
            if not around and self._learns(client) and self._learns(server):
                found.append(name)
        return found

    def _sides(self, at: fx.Node) -> tuple[set[fx.Node], set[fx.Node], set[fx.Node]]:
        """What a node needs, itself too; what the logits need beyond; what the latter need of the former but it."""
        client = self._up_to(at)
        server = self._up_to(self.end) - client
        return client, server, {one for node in server for one in node.all_input_nodes if one in client} - {at}

    def _learns(self, nodes: set[fx.Node]) -> bool:
        """Whether parameters are among what these nodes use."""
        parts = (self.whole.get_submodule(str(node.target)) for node in nodes if node.op == "call_module")
        return any(True for part in parts for _ in part.parameters())

    def _advice(self, module: str) -> str:
        around = [name for name in self.modules() if module.startswith(f"{name}.")]
        near = around[:1] or get_close_matches(module, self.modules(), SHOWN) or self.modules()[:SHOWN]
        return f"Cut at {' or '.join(near)}."

    def _up_to(self, node: fx.Node) -> set[fx.Node]:
        """A node and all that it needs."""
        found, open_ = {node}, [node]
        while open_:
            fresh = [one for one in open_.pop().all_input_nodes if one not in found]
            found.update(fresh)
            open_ += fresh
        return found

    def _half(self, nodes: set[fx.Node], entry: fx.Node, end: fx.Node) -> fx.GraphModule:
        graph = fx.Graph()
        copies = {entry: graph.placeholder("x")}
        for node in self.nodes:
            if node in nodes and node is not entry:
                copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output(copies[end])
        return fx.GraphModule(self.whole, graph)


def _make(name: str, num_classes: int) -> nn.Module:
    """The classifier with random weights, whose dropout can be resumed."""
    made: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    for part in list(made.modules()):
        for place, child in part.named_children():
            if isinstance(child, nn.Dropout):
                setattr(part, place, Dropout(child.p))
            elif isinstance(child, torchvision.ops.StochasticDepth):
                setattr(part, place, StochasticDepth(child.p))
            elif isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size not in (1, (1, 1)):
                setattr(part, place, MeanOfWindows(child.output_size))  # all of torchvision's have two sides
    return made


def build_torchvision(cfg: Torchvision, image_shape: ImageShape, num_classes: int) -> Architecture:
    """One stage, up to the module; the head is the rest.

    A module that gives one number for each channel gives a map of 1×1. Raises ModelError for one that gives no map.
    """
    classifier = Classifier(cfg.classifier, num_classes)
    client, server = classifier.cut(cfg.module)
    shown = "×".join(map(str, image_shape))
    if image_shape[0] != CHANNELS:
        raise ModelError(
            f"torchvision's {cfg.classifier} does not take images of {shown} (channels, height, width): it takes those "
            f"of {CHANNELS} channels. Set channels: {CHANNELS} of the data set, which repeats grey ones"
        )
    try:
        with torch.no_grad(), torch.device("meta"):
            found = client.eval()(torch.zeros(1, *image_shape))
            server.eval()(found)
            channels, height, width = image_shape
            wide = client(torch.zeros(1, channels, height, 2 * width)) if found.ndim == 4 else found
    except RuntimeError as error:
        raise ModelError(
            f"torchvision's {cfg.classifier} does not take images of {shown} (channels, height, width): {error}"
        ) from error
    client.train()
    server.train()
    parts = Part(client, classifier.make), Part(server, classifier.make)
    if found.ndim == 2:
        return Architecture([[parts[0], nn.Unflatten(1, (found.shape[1], 1, 1))]], [nn.Flatten(), parts[1]])
    if found.ndim != 4 or found.shape[2] != found.shape[3] or wide.shape[:3] != found.shape[:3]:
        raise ModelError(
            f"module: {cfg.module} of {cfg.classifier} gives {'×'.join(map(str, found.shape[1:]))} numbers an image; "
            "expected a square map (channels, height, width) or a vector: surrogates and attacks cannot lay out "
            "others, such as tokens with one of the class, or maps with the channels last. Cut elsewhere, or take "
            "vit_small"
        )
    return Architecture([[parts[0]]], [parts[1]])
