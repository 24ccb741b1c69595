"""A network as a graph of its modules' outputs, cut at one of them."""

from collections import Counter
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from operator import getitem
from typing import Any

import torch
from torch import Tensor, fx, nn

from cem.models.dropout import Dropout
from cem.models.split import Architecture, ImageShape, ModelError

SHOWN = 8  # modules that a message lists
EVAL_ONLY = (
    "the network's forward asks for self.training (as F.dropout does, and auxiliary heads do), which a graph cannot: "
    "it can be attacked as it is (training: none), and not trained. Use modules such as nn.Dropout in place of it"
)
DRAWS = (
    "a layer of the network draws from torch's global generator in training, so that a training that is stopped could "
    "not go on with the same bits, nor two GPUs draw as one: it can be attacked as it is (training: none), and not "
    "trained. nn.Dropout itself, without hooks, gets a generator of its own: use it in place of other layers that draw"
)
# What tracing, and the checks of a graph, raise for networks that cannot be taken apart.
UNTRACEABLE = (ValueError, RuntimeError, NotImplementedError, fx.proxy.TraceError)


class Part(nn.Module):
    """One side of the cut. It starts as the whole network starts that `make` gives, on the CPU.

    eval_only: why it cannot be trained, such as that its graph is that of evaluation; empty: it can.
    """

    eval_only = ""

    def __init__(self, inner: fx.GraphModule, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.inner, self.make = inner, make

    def draw(self, generator: torch.Generator) -> None:
        """First values, by the network's own code: torch's global generator is seeded for it, and then as it was."""
        seed = int(torch.randint(2**62, (), generator=generator))
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(seed)
            whole = self.make()
        started = {**whole.state_dict(), **dict(whole.named_buffers())}
        self.inner.load_state_dict({name: started[name] for name in self.inner.state_dict()})
        for name, buffer in self.inner.named_buffers():  # those that a state dict leaves out, too
            buffer.copy_(whole.get_buffer(name))

    def forward(self, x: Tensor) -> Tensor:
        if self.eval_only and self.training:
            raise ModelError(self.eval_only)
        out: Tensor = self.inner(x.clone())  # a network's own layers may write into what they are given
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
    """Records of every module that is called the node that it gives, and how often it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, fx.Node] = {}
        self.calls: Counter[str] = Counter()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Dropout | MeanOfWindows) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        out = super().call_module(m, forward, args, kwargs)
        if isinstance(out, fx.Proxy):
            self.given[self.path_of_module(m)] = out.node
            self.calls[self.path_of_module(m)] += 1
        return out


class Graph:
    """A network whose forward pass is known as a graph.

    name: what messages call it; setting: the one that names the module of the cut. Raises one of UNTRACEABLE where the
    network cannot be taken apart (what its own code raises goes through).
    """

    def __init__(self, name: str, whole: nn.Module, setting: str = "module") -> None:
        self.name, self.whole, self.setting = name, whole, setting
        self.tracer = Tracer()
        self.graph = self.tracer.trace(whole)
        own: Mapping[str, Any] = {**whole.state_dict(), **dict(whole.named_buffers())}
        if strange := [
            str(node.target) for node in self.graph.nodes if node.op == "get_attr" and node.target not in own
        ]:
            raise ValueError(f"its graph needs {strange[0]}, which is none of its parameters and buffers")
        *self.nodes, end = self.graph.nodes
        self.parameters = {name for name, _ in whole.named_parameters()}
        self.entry = next(node for node in self.nodes if node.op == "placeholder")
        (self.end,) = end.all_input_nodes

    def cut(self, module: str) -> tuple[fx.GraphModule, fx.GraphModule]:
        """What comes up to the output of a module, and the rest. Raises ModelError where that is no cut."""
        if module not in self.tracer.given:
            near = get_close_matches(module, self.tracer.given, SHOWN) or list(self.tracer.given)[:SHOWN]
            raise ModelError(f"{self.setting}: {self.name} has none called {module!r}; near it: {', '.join(near)}")
        if (times := self.tracer.calls[module]) > 1:
            raise ModelError(
                f"{self.setting}: {self.name} calls {module} {times} times, so that it is no place in the network. "
                + self._advice(module)
            )
        at = self.tracer.given[module]
        client, server, around = self._sides(at)
        if around:
            needed = ", ".join(sorted(node.name for node in around))
            raise ModelError(
                f"{self.setting}: {self.name} cannot be cut at {module}: what follows also needs {needed}. "
                + self._advice(module)
            )
        if not (self._learns(client) and self._learns(server)):
            raise ModelError(
                f"{self.setting}: {self.name} cut at {module} leaves one side nothing to learn. {self._advice(module)}"
            )
        return self._half(client, self.entry, at), self._half(server, at, self.end)

    def modules(self) -> list[str]:
        """Where it can be cut, in the order of the network; of modules with one output, each."""
        found = []
        for name, at in self.tracer.given.items():
            if self.tracer.calls[name] > 1:
                continue
            client, server, around = self._sides(at)
            if not around and self._learns(client) and self._learns(server):
                found.append(name)
        return found

    def _sides(self, at: fx.Node) -> tuple[set[fx.Node], set[fx.Node], set[fx.Node]]:
        """What a node needs, itself too; what the logits need beyond; what the latter need of the former but it."""
        client, needed = self._up_to(at), self._up_to(self.end)
        # How many images there are is known on both sides.
        server = (needed - client) | {node for node in needed if self._counts_images(node)}
        around = {one for node in server for one in self._inputs(node) if one in client and one not in server}
        return client, server, around - {at}

    def _inputs(self, node: fx.Node) -> list[fx.Node]:
        """What a node needs; nothing where it only tells how many images there are."""
        return [] if self._counts_images(node) else node.all_input_nodes

    def _counts_images(self, node: fx.Node) -> bool:
        """Whether it is `x.size(0)`, `x.size()[0]` or `x.shape[0]` of the images x."""
        if node.op == "call_method" and node.target == "size":
            return node.args == (self.entry, 0) and not node.kwargs
        if node.op != "call_function" or node.target is not getitem or node.args[1] != 0:
            return False
        whole = node.args[0]
        return isinstance(whole, fx.Node) and (
            (whole.op, whole.target, whole.args) == ("call_method", "size", (self.entry,))
            or (whole.op, whole.target, whole.args) == ("call_function", getattr, (self.entry, "shape"))
        )

    def _learns(self, nodes: set[fx.Node]) -> bool:
        """Whether parameters are among what these nodes use."""
        parts = (self.whole.get_submodule(str(node.target)) for node in nodes if node.op == "call_module")
        used = {str(node.target) for node in nodes if node.op == "get_attr"}  # by the code of a user's own layers
        return any(True for part in parts for _ in part.parameters()) or bool(self.parameters & used)

    def _advice(self, module: str) -> str:
        around = [name for name in self.modules() if module.startswith(f"{name}.")]
        near = around[:1] or get_close_matches(module, self.modules(), SHOWN) or self.modules()[:SHOWN]
        return f"Cut at {' or '.join(near)}." if near else "It can be cut at none of its modules."

    def _up_to(self, node: fx.Node) -> set[fx.Node]:
        """A node and all that it needs."""
        found, open_ = {node}, [node]
        while open_:
            fresh = [one for one in self._inputs(open_.pop()) if one not in found]
            found.update(fresh)
            open_ += fresh
        return found

    def _half(self, nodes: set[fx.Node], entry: fx.Node, end: fx.Node) -> fx.GraphModule:
        graph = fx.Graph()
        copies = {entry: graph.placeholder("x")}
        for node in self.nodes:
            if node in nodes and self._counts_images(node):
                copies[node] = graph.call_method("size", (copies[entry], 0))
            elif node in nodes and node is not entry:
                copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output(copies[end])
        return fx.GraphModule(self.whole, graph)


def resumable(whole: nn.Module) -> nn.Module:
    """The network with layers of the same kinds that draw from a given generator, and whose slope is the same.

    Layers of a class of the user's own, or with hooks, compute something else, and stay as they are.
    """
    for part in list(whole.modules()):
        for place, child in part.named_children():
            if _is_hooked(child):
                continue
            if type(child) is nn.Dropout:
                setattr(part, place, Dropout(child.p))
            elif type(child) is nn.AdaptiveAvgPool2d and (sides := _two(child.output_size)) not in (None, (1, 1)):
                setattr(part, place, MeanOfWindows(sides))
    return whole


def _is_hooked(part: nn.Module) -> bool:
    """Whether a call of it, or its gradient, does more than its class says."""
    return bool(part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks)


def _two(size: Any) -> tuple[int, int] | None:
    """The sides of a pooling's output; None where one of them is that of its input."""
    sides = (size, size) if isinstance(size, int) else tuple(size or ())
    return sides if len(sides) == 2 and None not in sides else None


def pieces(
    graph: Graph, module: str, image_shape: ImageShape, make: Callable[[], nn.Module], advice: str
) -> Architecture:
    """One stage, up to the module, and the rest as the head, of a network on the meta device.

    A module that gives one number for each channel gives a map of 1×1. Raises ModelError for one that gives no map,
    with advice, and RuntimeError where the network does not take these images.
    """
    client, server = graph.cut(module)
    with torch.no_grad(), torch.device("meta"):
        found = client.eval()(torch.zeros(1, *image_shape))
        if not isinstance(found, Tensor):
            raise ModelError(
                f"{graph.setting}: {module} of {graph.name} gives a {type(found).__name__}; expected one tensor. "
                f"{advice}"
            )
        server.eval()(found)
        channels, height, width = image_shape
        wide = client(torch.zeros(1, channels, height, 2 * width)) if found.ndim == 4 else found
    client.train()
    server.train()
    parts = Part(client, make), Part(server, make)
    if found.ndim == 2:
        return Architecture([[parts[0], nn.Unflatten(1, (found.shape[1], 1, 1))]], [nn.Flatten(), parts[1]])
    if found.ndim != 4 or found.shape[2] != found.shape[3] or wide.shape[:3] != found.shape[:3]:
        raise ModelError(
            f"{graph.setting}: {module} of {graph.name} gives {'×'.join(map(str, found.shape[1:]))} numbers an image; "
            "expected a square map (channels, height, width) or a vector: surrogates and attacks cannot lay out "
            f"others, such as tokens with one of the class, or maps with the channels last. {advice}"
        )
    return Architecture([[parts[0]]], [parts[1]])
