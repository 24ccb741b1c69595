"""What our attacks' loops cost, against the plainest way to do the same thing.

* optimization: images a second of the search through a narrow encoder (VGG-11 width .25, cut 4, C8S1, 32×32; random
  weights, statistics of its batch normalisation from the images), all images of a batch together, against one image at
  a time. Same steps; the mean squared errors of the two are to agree within 2 %. Exit code 1 when the median of the
  ratios is below 3, or they do not agree.

The images are smooth and random. Everything runs on one thread, and the two are timed in turn.
Usage: python benchmarks/attacks.py [--only optimization] [--repeats N]
"""

import argparse
import statistics
import sys
import time

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cem.attacks import Knowledge
from cem.attacks.optimization import OptimizationAttack
from cem.config import Optimization, SplitModel
from cem.models import make_split
from cem.runtime import make_generator, set_up_process

IMAGE, NOISE_STD = (3, 32, 32), 0.05
BATCH, SINGLE, STEPS = 32, 8, 100  # images together, images one at a time, steps of each
REQUIRED, AGREEMENT = 3.0, 0.02


def narrow_encoder(images: Tensor) -> nn.Module:
    encoder, _ = make_split(SplitModel(width=0.25), IMAGE, 10)
    with torch.no_grad():
        for _ in range(50):  # the running statistics forget their start
            encoder.train()(images)
    return encoder.eval().requires_grad_(False)


def timed(attack: OptimizationAttack, smashed: Tensor) -> tuple[Tensor, float]:
    """Reconstructions, and images a second."""
    start = time.perf_counter()
    images = attack.reconstruct(smashed)
    return images, len(smashed) / (time.perf_counter() - start)


def measure_optimization(repeats: int) -> bool:
    """Whether the batched search is REQUIRED times as fast as one image at a time, and as good."""
    latent = torch.rand(BATCH, 3, 8, 8, generator=make_generator(0, "images", "cpu"))
    raw = (255 * interpolate(latent, size=IMAGE[1:], mode="bilinear")).round().byte()
    images = raw.float() / 255
    encoder = narrow_encoder(images)
    clean = encoder(images)
    smashed = clean + NOISE_STD * torch.randn(clean.shape, generator=make_generator(0, "noise", "cpu"))
    knowledge = Knowledge(raw, None, lambda rows, _: smashed[rows], seed=0, device=torch.device("cpu"), encoder=encoder)
    cfg = Optimization(steps=STEPS, tv=(0.03,), selection_images=8, batch_size=BATCH)
    together, alone = OptimizationAttack(cfg), OptimizationAttack(cfg.model_copy(update={"batch_size": 1}))
    together.fit(knowledge)
    alone.fit(knowledge)
    alone.tv, alone.stop = together.tv, together.stop = cfg.tv[0], STEPS
    ratios = []
    for repeat in range(repeats + 1):  # the first is not timed: memory is claimed then
        batched, fast = timed(together, smashed)
        single, slow = timed(alone, smashed[:SINGLE])
        if repeat > 0:
            ratios.append(fast / slow)
            print(f"one at a time: {slow:6.2f} images/s   {BATCH} together: {fast:6.2f} images/s", flush=True)
    mse, mse_alone = ((each[:SINGLE] - images[:SINGLE]).square().mean().item() for each in (batched, single))
    ratio = statistics.median(ratios)
    print(
        f"optimization: ratio {ratio:.2f} (median of {len(ratios)}, {min(ratios):.2f} to {max(ratios):.2f}; required: "
        f"{REQUIRED:g}); MSE of the same {SINGLE} images: together {mse:.6f}, one at a time {mse_alone:.6f}"
    )
    agree = abs(mse - mse_alone) <= AGREEMENT * mse_alone
    if not agree:
        print(f"expected errors within {AGREEMENT:.0%}, found {mse:.6f} and {mse_alone:.6f}", file=sys.stderr)
    if ratio < REQUIRED:
        print(f"too slow: expected at least {REQUIRED:g} times as many images/s, found {ratio:.2f}", file=sys.stderr)
    return agree and ratio >= REQUIRED


MEASUREMENTS = {"optimization": measure_optimization}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=sorted(MEASUREMENTS))
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    set_up_process(1)
    met = [measure(args.repeats) for name, measure in MEASUREMENTS.items() if args.only in (None, name)]
    return int(not all(met))


if __name__ == "__main__":
    sys.exit(main())
