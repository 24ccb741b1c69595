"""What our attacks' loops cost, against the plainest way to do the same thing.

* decoder: res_normN8C64 (711,539 parameters), 8×8×8 → 3×32×32, batches of 256: a fit of a few steps by our attack, with
  all that it does beside them, against a plain PyTorch loop of the same network, loss, Adam and schedule.

The two are timed in turn, and the median of the ratios counts. Exit code 1 when ours takes
more than 1.05 times as long.
Usage: python benchmarks/attacks.py [--only decoder] [--repeats N] [--threads N]
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch.nn.functional import mse_loss

from cem.attacks import Knowledge
from cem.attacks.decoder import DecoderAttack
from cem.config import Decoder
from cem.models import make_decoder
from cem.runtime import set_up_process

NET, PARAMETERS, BATCH, STEPS = "res_normN8C64", 711_539, 256, 3
SMASHED, IMAGE = (8, 8, 8), (3, 32, 32)
ALLOWED = 1.05


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_decoder(repeats: int) -> bool:
    """Whether our step is at most ALLOWED times as long as the plain one."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (STEPS * BATCH + 1, *IMAGE), dtype=torch.uint8, generator=draws)  # one is held out
    smashed = torch.rand(len(images), *SMASHED, generator=draws)
    knowledge = Knowledge(images, None, lambda rows, _: smashed[rows], seed=0, device=torch.device("cpu"))
    cfg = Decoder(net=NET, lr=1e-3, epochs=1, batch_size=BATCH, held_out=1e-6)

    def ours() -> None:
        assert DecoderAttack(cfg).fit(knowledge).parameters == PARAMETERS

    def plain() -> None:
        net = make_decoder(NET, SMASHED, IMAGE)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=cfg.weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS, eta_min=1e-5)
        for rows in torch.randperm(STEPS * BATCH).split(BATCH):
            loss = mse_loss(net(smashed[rows]), images[rows].float() / 255)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    ratios = []
    for repeat in range(repeats + 1):  # the first is not timed: memory is claimed then
        theirs, our_own = seconds(plain) / STEPS, seconds(ours) / STEPS
        if repeat > 0:
            ratios.append(our_own / theirs)
            print(f"plain loop: {theirs:6.3f} s a step   DecoderAttack: {our_own:6.3f} s a step", flush=True)
    ratio = statistics.median(ratios)
    print(
        f"decoder: ratio {ratio:.2f} (median of {len(ratios)}, {min(ratios):.2f} to {max(ratios):.2f}; "
        f"at most {ALLOWED:g} allowed)"
    )
    if ratio > ALLOWED:
        print(f"too slow: expected at most {ALLOWED:g} times the plain step, found {ratio:.2f}", file=sys.stderr)
    return ratio <= ALLOWED


MEASUREMENTS = {"decoder": measure_decoder}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=sorted(MEASUREMENTS))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    set_up_process(args.threads)
    chosen = [args.only] if args.only else sorted(MEASUREMENTS)
    met = [MEASUREMENTS[name](args.repeats) for name in chosen]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
