"""A budget that ends by itself, against the same network with four times the epochs that it ended with.

On every run of a study that is trained and has activations: a decoder with `budget: auto`, and one with four times the
epochs of its last budget, whose rate falls along a cosine; the same network, rate and draws of the scored noise. Prints
a row of a Markdown table for each run, as it comes. Exit code 1 when an error of the first is more than 2 % above the
second's.
Usage: python benchmarks/budget.py config/budget_mnist.yaml [--results results] [--net NET] [--lr RATE] [--run PART]
"""

import argparse
import sys
import time
from pathlib import Path

import torch

from cem.attacks import Fitted
from cem.attacks.decoder import DecoderAttack
from cem.config import Decoder, Run, load_study
from cem.defenses import make_defense
from cem.evaluation import Victim
from cem.evaluation.victim import load_network
from cem.planning.plan import Plan
from cem.storage.hdf5 import open_activations, open_dataset

ALLOWED = 1.02
HEADER = ("run", "budget, epochs", "converged", "CPU, s", "MSE", "4 times the epochs", "CPU, s", "MSE", "ratio")
CPU = torch.device("cpu")


def fitted(cfg: Decoder, victim: Victim) -> tuple[Fitted, float, float]:
    """What a fit says of itself, its CPU seconds, and its mean squared error on the test images."""
    attack, began = DecoderAttack(cfg), time.process_time()
    said = attack.fit(victim.knowledge(cfg))
    seconds = time.process_time() - began
    images = torch.from_numpy(victim.data.images("test")).float() / 255
    z = victim.observe("test", cfg.observations)(slice(0, len(images)), torch.Generator().manual_seed(0))
    return said, seconds, (attack.reconstruct(z) - images).square().mean().item()


def row(plan: Plan, run: Run, cfg: Decoder) -> tuple[list[str], float]:
    """The cells of a run, and the ratio."""
    folder = plan.run(run)
    with open_dataset(plan.data(run.dataset)) as data, open_activations(folder / "activations.h5") as activations:
        network = load_network(folder / "model.safetensors", run.model, data, CPU)
        victim = Victim(data, activations, make_defense(run.noise_std, run.defenses), network, run.seed, CPU)
        auto, seconds, error = fitted(cfg, victim)
        epochs = 4 * auto.ladder[-1].epochs
        _, long_seconds, long_error = fitted(cfg.model_copy(update={"epochs": epochs}), victim)
    ratio = error / long_error
    cells = [run.id, str(auto.ladder[-1].epochs), str(auto.converged), f"{seconds:.0f}", f"{error:.5f}"]
    return [*cells, str(epochs), f"{long_seconds:.0f}", f"{long_error:.5f}", f"{ratio:.3f}"], ratio


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--net", default="res_normN2C16")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--run", default="", help="only runs whose id holds this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    plan = Plan(load_study(arguments.study), arguments.results)
    cfg = Decoder(net=arguments.net, lr=arguments.lr, batch_size=64)
    ratios = []
    for line in (HEADER, ["---"] * len(HEADER)):
        print(f"| {' | '.join(line)} |")
    for run in plan.runs.values():
        if arguments.run in run.id:
            cells, ratio = row(plan, run, cfg)
            ratios.append(ratio)
            print(f"| {' | '.join(cells)} |", flush=True)
    return int(max(ratios) > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
