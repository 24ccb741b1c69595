"""What a surrogate adds to a training step, and how it compares with the published per-class loop.

For the shapes of CIFAR-10, FaceScrub and Tiny ImageNet: seconds of forward and backward of each surrogate (attention:
the fit of its own parameters included), of the training step without one (VGG-11, full width, cut 4), of adversarial
training with a small decoder, and of the released heuristic as its code computes it, class by class. All are timed in
turn; medians count.
Exit code 1 when a surrogate adds more than 10 % at any shape, or gmm more than 3 % at CIFAR-10's; when `conditional`
costs more than a fifth of adversarial training; or when, at Tiny's, the loop takes less than 10 times as long as
`gmm legacy`.
Usage: python benchmarks/surrogates.py [--repeats N] [--threads 1 2]
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from cem.config import Adversarial, AttentionSurrogate, GaussianSurrogate, GmmSurrogate, Vgg11
from cem.defenses.adversarial import AdversarialDefense
from cem.defenses.base import Place
from cem.jobs.process import make_generator, set_up_process
from cem.mixture import ClassMixture
from cem.models import make_split, seed_dropout, smashed_shape
from cem.surrogates import Surrogate, make_surrogate

SIGMA, SAMPLES = 0.025, 50_000
LIMIT = 0.10  # of the step
AT_CIFAR = {"gmm bound": 0.03, "gmm legacy": 0.03}
OF_ADVERSARY = 0.2
FASTER_THAN_LOOP = 10.0
ADVERSARY = "adversarial N2C16"
CONFIGS = {
    "gmm bound": GmmSurrogate(),
    "gmm legacy": GmmSurrogate(formula="legacy"),
    "gaussian": GaussianSurrogate(),
    "attention mixture": AttentionSurrogate(),
    "attention conditional": AttentionSurrogate(statistic="conditional"),
}


@dataclass(frozen=True)
class Case:
    """A data set's shape: images of `side`, `classes`, batches of `batch`."""

    name: str
    side: int
    classes: int
    batch: int


CASES = (Case("CIFAR-10", 32, 10, 128), Case("FaceScrub", 48, 530, 256), Case("Tiny", 64, 200, 256))


def published_loop(smashed: Tensor, labels: Tensor, mixture: ClassMixture) -> Tensor:
    """docs/theory.md, "The released heuristic", as a loop over the classes of the batch and their clusters."""
    flat, gamma, tau = smashed.flatten(1), 0.01, 0.125
    classes = len(mixture.weights)
    total = flat.new_zeros(())
    present = labels.unique()
    for c in present:
        own = flat[labels == c]
        nearest = torch.cdist(own.detach(), mixture.means[c]).argmin(1)
        for j in nearest.unique():
            members = own[nearest == j]
            spread = (members - mixture.means[c, j]).square().mean()
            weight = mixture.weights[c, j]
            rate = 10 * len(members) / (weight * SAMPLES / classes)
            rate = torch.where(rate >= 1, 0.99, rate)
            variance = rate * spread + (1 - rate) * mixture.variances[c, j, 0]
            total = total + weight * torch.relu(torch.log(variance + gamma) - math.log(tau * SIGMA**2 + gamma))
    return total / len(present)


def random_mixture(classes: int, components: int, dimensions: int) -> ClassMixture:
    draws = make_generator(0, "mixture", "cpu")
    means = torch.rand(classes, components, dimensions, generator=draws)
    weights = torch.full((classes, components), 1 / components)
    return ClassMixture(weights, means, torch.full_like(means, 0.05), torch.full((classes,), 1 / classes))


def seconds(work: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    work().backward()  # type: ignore[no-untyped-call]
    return time.perf_counter() - start


def make_work(case: Case) -> dict[str, Callable[[], Tensor]]:
    """Name → a function that gives a scalar to go backward from."""
    draws = make_generator(0, "benchmark", "cpu")
    encoder, classifier = make_split(Vgg11(), (3, case.side, case.side), case.classes, draws)
    seed_dropout(classifier, draws)
    shape = smashed_shape(encoder, (3, case.side, case.side))
    images = torch.rand(case.batch, 3, case.side, case.side, generator=draws)
    labels = torch.randint(case.classes, (case.batch,), generator=draws)
    smashed = torch.rand(case.batch, *shape, generator=draws)
    work: dict[str, Callable[[], Tensor]] = {"step": lambda: cross_entropy(classifier(encoder(images)), labels)}

    def surrogate_work(surrogate: Surrogate) -> Callable[[], Tensor]:
        def work() -> Tensor:
            seen = {"images": images} if surrogate.uses_images else {}
            loss = surrogate(smashed.clone().requires_grad_(), labels, draws, **seen).loss
            fit = surrogate.fit_loss(smashed, labels, draws, **seen)
            return loss if fit is None else loss + fit

        return work

    for name, cfg in CONFIGS.items():
        mixture = None
        if isinstance(cfg, GmmSurrogate):
            assert cfg.components != "auto"
            mixture = random_mixture(case.classes, cfg.components, math.prod(shape))
        surrogate = make_surrogate(
            cfg,
            smashed_shape=shape,
            num_classes=case.classes,
            noise_std=SIGMA,
            num_samples=SAMPLES if mixture else None,
            mixture=mixture,
        )
        if isinstance(cfg, GaussianSurrogate):  # whose time grows with its support: until that is full
            for _ in range(math.ceil(cfg.support / case.batch)):
                surrogate(smashed, labels)
        work[name] = surrogate_work(surrogate)
    cfg = Adversarial(net="res_normN2C16", score="log_mse", threshold=1.0, weight=0.1)
    adversary = AdversarialDefense(cfg)
    adversary.begin_training(
        Place((3, case.side, case.side), shape, case.classes), draws, torch.device("cpu"), torch.float32
    )

    def adversarial_work() -> Tensor:
        adversary.learn(images, smashed, labels)
        return adversary.penalty(images, smashed.clone().requires_grad_(), labels)

    work[ADVERSARY] = adversarial_work
    loop_mixture = random_mixture(case.classes, 5, math.prod(shape))
    work["published loop"] = lambda: published_loop(smashed.clone().requires_grad_(), labels, loop_mixture)
    return work


def measure(case: Case, repeats: int) -> dict[str, float]:
    """Median seconds of each, the first round apart, and of the ratios to the step and of the loop to ours."""
    work = make_work(case)
    rounds = [{name: seconds(one) for name, one in work.items()} for _ in range(repeats + 1)][1:]
    found = {name: statistics.median(times[name] for times in rounds) for name in work}
    found |= {
        f"{name} / step": statistics.median(times[name] / times["step"] for times in rounds)
        for name in work
        if name != "step"
    }
    found["conditional / adversary"] = statistics.median(
        times["attention conditional"] / times[ADVERSARY] for times in rounds
    )
    found["loop / legacy"] = statistics.median(times["published loop"] / times["gmm legacy"] for times in rounds)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    missed = []
    names = [*CONFIGS, ADVERSARY, "published loop"]
    heads = [f"{name}, ms (of the step)" for name in names]
    print(f"| threads | shape | step, s | {' | '.join(heads)} | conditional / adversarial | loop / legacy |")
    print(f"|{'---|' * (len(names) + 5)}")
    for threads in args.threads:
        set_up_process(threads)
        for case in CASES:
            found = measure(case, args.repeats)
            cells = [f"{1e3 * found[name]:.1f} ({100 * found[f'{name} / step']:.1f} %)" for name in names]
            faster, share = found["loop / legacy"], found["conditional / adversary"]
            cells += [f"{share:.2f}", f"{faster:.1f}"]
            print(f"| {threads} | {case.name} | {found['step']:.2f} | {' | '.join(cells)} |", flush=True)
            limits = dict.fromkeys(CONFIGS, LIMIT) | (AT_CIFAR if case.name == "CIFAR-10" else {})
            parts = {name: found[f"{name} / step"] for name in CONFIGS}
            above = [
                f"{name} adds {100 * part:.1f} %, expected at most {100 * limits[name]:g} %"
                for name, part in parts.items()
                if part > limits[name]
            ]
            if share > OF_ADVERSARY:
                above.append(f"conditional costs {share:.2f} of adversarial training, expected at most {OF_ADVERSARY}")
            missed += [f"{threads} threads, {case.name}: {text}" for text in above]
            if case.name == "Tiny" and faster < FASTER_THAN_LOOP:
                missed.append(
                    f"{threads} threads: the loop takes {faster:.1f} × gmm legacy, expected {FASTER_THAN_LOOP:g}"
                )
    for line in missed:
        print(line, file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
