"""Steps of a batch each, in float64, by one process or by several: run as a script, this is one of several."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import Tensor

from cem.config import (
    Adversarial,
    AttentionSurrogate,
    DefenseSettings,
    Dropout,
    GaussianSurrogate,
    GmmSurrogate,
    Hsic,
    LocalDp,
    NoPeek,
    NoSurrogate,
    PairSurrogate,
    Run,
    ShapedNoise,
    SparseCoding,
    SyntheticDataset,
    TopK,
    Training,
    Vgg11,
    Vib,
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
DEFENSES: dict[str, tuple[DefenseSettings, ...]] = {  # what adds noise takes the place of noise_std
    "masks": (NoPeek(weight=0.5), Dropout(rate=0.3), TopK(fraction=0.3, scope="batch")),
    "penalties": (
        NoPeek(weight=0.5),
        Hsic(),
        Adversarial(net="res_normN0C4", weight=0.5, threshold=-0.5, steps=2),
        SparseCoding(),
    ),
    "shaped learned": (ShapedNoise(std=0.5, shape="learned"),),
    "shaped fisher": (ShapedNoise(std=0.5, shape="fisher"), Adversarial(net="res_normN0C4", score="mse", threshold=1)),
    "vib": (Vib(weight=1e-2),),
    "local_dp": (LocalDp(mechanism="laplace", epsilon=20, clip=1),),
}
SPLIT = ("gmm bound", "attention mixture", "attention conditional", "pair")  # also under the split protocol
CASES = [(name, "masks", protocol) for name in SURROGATES for protocol in ("joint", "split")]
CASES = [case for case in CASES if case[2] == "joint" or case[0] in SPLIT]
CASES += [("none", name, protocol) for name in DEFENSES if name != "masks" for protocol in ("joint", "split")]
CASES += [("gmm bound", "vib", "joint"), ("attention mixture", "shaped learned", "joint")]
SIZES = (18, 17, 3)  # images in each batch


def copied(value: Tensor) -> Tensor:
    """In the layout that files have."""
    return value.clone(memory_format=torch.contiguous_format)


def steps(name: str, defenses: str, protocol: str, world: World) -> dict[str, Tensor]:
    """What each step read, its gradients, and the weights and statistics after it."""
    training = Training(epochs=2, warmup_epochs=0, protocol=protocol)
    chosen = DEFENSES[defenses]
    network = Vgg11(width=0.05, bottleneck="noRELU_C4S1", activation="batch_norm")
    settings = {"model": network, "dataset": SyntheticDataset(images=100, classes=3, channels=1), "training": training}
    noise_std = 0.0 if any(one.adds_noise for one in chosen) else 0.05
    run = Run(noise_std=noise_std, surrogate=SURROGATES[name], defenses=chosen, **settings)
    state = make_state(run, world=world)
    modules = {"encoder": state.client.encoder, "classifier": state.server.classifier}
    modules |= {"surrogate": state.client.surrogate, "learned": state.client.defense.learned}
    modules |= state.client.defense.training_state.modules
    found: dict[str, Tensor] = {}
    for step, size in enumerate(SIZES):
        readings, failure = train_batch(state.client, state.server, make_batch(step, size), run.surrogate.weight, True)
        assert failure is None
        found |= {f"{step}.{name}": torch.tensor(value) for name, value in readings.items()}
        for half, module in modules.items():
            found |= {f"{step}.{half}.{key}": copied(value) for key, value in module.state_dict().items()}
            gradients = {key: parameter.grad for key, parameter in module.named_parameters()}
            found |= {f"{step}.{half}.{key}.grad": copied(g) for key, g in gradients.items() if g is not None}
    return found


def every_case(world: World) -> dict[str, Tensor]:
    """All cases, by name."""
    torch.set_default_dtype(torch.float64)
    try:
        cases = {" ".join(case): steps(*case, world) for case in CASES}
    finally:
        torch.set_default_dtype(torch.float32)
    return {f"{case}/{key}": value for case, found in cases.items() for key, value in found.items()}


if __name__ == "__main__":
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(folder / "meeting").as_uri(), rank=rank, world_size=size)
    save_file(every_case(Ranks(torch.device("cpu"))), folder / f"{rank}.safetensors")
