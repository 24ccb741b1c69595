"""Steps of a batch each, in float64, by one process or by several: run as a script, this is one of several."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from cem.config import (
    AttentionSurrogate,
    Dropout,
    GaussianSurrogate,
    GmmSurrogate,
    NoPeek,
    NoSurrogate,
    PairSurrogate,
    Run,
    SyntheticDataset,
    TopK,
    Training,
    Vgg11,
)
from cem.training.distributed import Ranks, World
from cem.training.protocol import train_batch

from .small import make_batch, make_state

SMALL = {"embedding": 16, "reduced": 16, "slots": 3, "components": 2}
SURROGATES = {
    "none": NoSurrogate(),
    "gmm bound": GmmSurrogate(),
    "gmm bound pca": GmmSurrogate(covariance="pca", rank=2),
    "gmm legacy": GmmSurrogate(formula="legacy"),
    "gaussian": GaussianSurrogate(),
    "attention mixture": AttentionSurrogate(**SMALL),
    "attention mixture linear": AttentionSurrogate(tokens="linear", **SMALL),
    "attention enhanced_variance": AttentionSurrogate(statistic="enhanced_variance", **SMALL),
    "attention shared": AttentionSurrogate(optimizer="shared", **SMALL),
    "attention conditional": AttentionSurrogate(statistic="conditional", features=8),
    "pair": PairSurrogate(lower=AttentionSurrogate(statistic="conditional", features=8)),
    "attention frozen": AttentionSurrogate(optimizer="frozen", **SMALL),
}
CASES = [(name, protocol) for name in SURROGATES for protocol in ("joint", "split")]
CASES = [
    case
    for case in CASES
    if case[1] == "joint" or case[0] in ("gmm bound", "attention mixture", "attention conditional", "pair")
]
SIZES = (18, 17, 3)  # images in each batch
DEFENSES = (NoPeek(weight=0.5), Dropout(rate=0.3), TopK(fraction=0.3, scope="batch"))


def steps(name: str, protocol: str, world: World) -> dict[str, Tensor]:
    """What each step read, its gradients, and the weights and statistics after it."""
    training = Training(epochs=2, warmup_epochs=0, protocol=protocol)
    network = Vgg11(width=0.05, bottleneck="noRELU_C4S1", activation="batch_norm")
    settings = {"model": network, "dataset": SyntheticDataset(images=100, classes=3, channels=1), "training": training}
    run = Run(noise_std=0.05, surrogate=SURROGATES[name], defenses=DEFENSES, **settings)
    state = make_state(run, world=world)
    modules = {"encoder": state.client.encoder, "classifier": state.server.classifier}
    modules["surrogate"] = state.client.surrogate
    found: dict[str, Tensor] = {}
    for step, size in enumerate(SIZES):
        readings, failure = train_batch(state.client, state.server, make_batch(step, size), run.surrogate.weight, True)
        assert failure is None
        found |= {f"{step}.{name}": torch.tensor(value) for name, value in readings.items()}
        for half, module in modules.items():
            found |= {f"{step}.{half}.{key}": value.clone() for key, value in module.state_dict().items()}
            gradients = {key: parameter.grad for key, parameter in module.named_parameters()}
            found |= {f"{step}.{half}.{key}.grad": g.clone() for key, g in gradients.items() if g is not None}
    return found


def every_case(world: World) -> dict[str, Tensor]:
    """All cases, by name."""
    torch.set_default_dtype(torch.float64)
    try:
        cases = {f"{name} {protocol}": steps(name, protocol, world) for name, protocol in CASES}
    finally:
        torch.set_default_dtype(torch.float32)
    return {f"{case}/{key}": value for case, found in cases.items() for key, value in found.items()}


if __name__ == "__main__":
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(folder / "meeting").as_uri(), rank=rank, world_size=size)
    save_file(every_case(Ranks(torch.device("cpu"))), folder / f"{rank}.safetensors")
