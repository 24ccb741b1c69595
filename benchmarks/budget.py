"""A budget that ends by itself, against the same network with four times the epochs that it ended with.

On every run of a study that is trained and has activations: a decoder with `budget: auto`, and one with four times the
epochs of its last budget, whose rate falls along a cosine; the same network, rate, images, draws of the scored noise.
With --next, also the next size of network, with a budget that ends by itself: where it leaves more than 3 % less, the
run is marked ¶. Prints a row of a Markdown table for each run, as it comes. Exit code 1 when an error of the first is
more than 2 % above the second's.
Usage: python benchmarks/budget.py config/budget_mnist.yaml [--results results] [--net NET] [--next NET] [--lr RATE]
       [--images N] [--batch-size N] [--max-epochs N] [--run PART]
"""

import argparse
import sys
import time
from pathlib import Path

import torch

from cem.attacks import Fitted
from cem.attacks.decoder import DecoderAttack
from cem.config import Decoder, Run, load_study
from cem.defenses import defense_of
from cem.evaluation import Victim
from cem.evaluation.victim import load_network
from cem.planning.plan import Plan
from cem.storage.hdf5 import open_activations, open_dataset

ALLOWED, NEXT_SIZE = 1.02, 0.97
HEADER = ("run", "budget, epochs", "converged", "CPU, s", "MSE", "4 times the epochs", "CPU, s", "MSE", "ratio")
OF_NEXT = ("next size: budget", "converged", "CPU, s", "MSE", "part of the first")
CPU = torch.device("cpu")


def fitted(cfg: Decoder, victim: Victim) -> tuple[Fitted, float, float]:
    """What a fit says of itself, its CPU seconds, and its mean squared error on the test images."""
    attack, began = DecoderAttack(cfg), time.process_time()
    said = attack.fit(victim.knowledge(cfg))
    seconds = time.process_time() - began
    images = torch.from_numpy(victim.data.images("test")).float() / 255
    z = victim.observe("test", cfg.observations)(slice(0, len(images)), torch.Generator().manual_seed(0))
    return said, seconds, (attack.reconstruct(z) - images).square().mean().item()


def row(plan: Plan, run: Run, cfg: Decoder, next_size: Decoder | None) -> tuple[list[str], float]:
    """The cells of a run, and the ratio."""
    folder = plan.run(run)
    with open_dataset(plan.data(run.dataset)) as data, open_activations(folder / "activations.h5") as activations:
        network = load_network(folder / "model.safetensors", run, data, CPU)
        victim = Victim(data, activations, defense_of(run, activations, CPU), network, run.seed, CPU)
        auto, seconds, error = fitted(cfg, victim)
        epochs = 4 * auto.ladder[-1].epochs
        given = cfg.model_copy(update={"epochs": epochs, "max_epochs": type(cfg).model_fields["max_epochs"].default})
        _, long_seconds, long_error = fitted(given, victim)
        ratio = error / long_error
        cells = [run.id, str(auto.ladder[-1].epochs), str(auto.converged), f"{seconds:.0f}", f"{error:.5f}"]
        cells += [str(epochs), f"{long_seconds:.0f}", f"{long_error:.5f}", f"{ratio:.3f}"]
        if next_size is not None:
            larger, seconds, next_error = fitted(next_size, victim)
            part = next_error / error
            cells += [str(larger.ladder[-1].epochs), str(larger.converged), f"{seconds:.0f}", f"{next_error:.5f}"]
            cells.append(f"{part:.3f}{' ¶' if part < NEXT_SIZE else ''}")
    return cells, ratio


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--net", default="res_normN2C16")
    parser.add_argument("--next", default=None, help="the next size of network, such as res_normN4C32")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--images", type=int, default=None, help="that the attacker owns; absent: all private ones")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--max-epochs", type=int, default=256)
    parser.add_argument("--run", default="", help="only runs whose id holds this")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    plan = Plan(load_study(arguments.study), arguments.results)
    shared = {"lr": arguments.lr, "batch_size": arguments.batch_size, "data_size": arguments.images}
    shared["max_epochs"] = arguments.max_epochs
    cfg = Decoder(net=arguments.net, **shared)
    next_size = Decoder(net=arguments.next, **shared) if arguments.next is not None else None
    header = HEADER if next_size is None else HEADER + OF_NEXT
    ratios = []
    for line in (header, ["---"] * len(header)):
        print(f"| {' | '.join(line)} |", flush=True)
    for run in plan.runs.values():
        if arguments.run in run.id:
            cells, ratio = row(plan, run, cfg, next_size)
            ratios.append(ratio)
            print(f"| {' | '.join(cells)} |", flush=True)
    return int(max(ratios) > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
