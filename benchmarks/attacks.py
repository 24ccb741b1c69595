"""What our attacks' loops cost, against the simplest way to do the same thing.

* decoder: res_normN8C64 (711,539 parameters), 8×8×8 → 3×32×32, batches of 256: a fit of a few steps by our attack, with
  everything else that it does, against a plain PyTorch loop of the same network, loss, Adam and schedule; required: at
  most 1.05 times as long.
* flow: unet_C32 and what reads z (same z, images and batches), likewise against a plain loop of the same network and
  loss; required: the same.
* auto: a fit of res_normN2C16 whose budget ends by itself, here at 32 epochs, against a fit of 32 epochs; required: at
  most 2.2 times as long.
* optimization: images per second of the search through a narrow encoder (VGG-11 width .25, cut 4, C8S1, 32×32; random
  weights, statistics of its batch normalisation from the images), all images of a batch together, against one image at
  a time. Same steps. Required: the mean squared errors of the two agree within 2 %, and the ratio is at least 3.

The two of each are timed in turn, on --threads threads, and the median of the ratios counts. Exit code 1 when a
requirement is not met.
Usage: python benchmarks/attacks.py [--only decoder|flow|auto|optimization] [--repeats N] [--threads N]
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, mse_loss
from torch.optim.lr_scheduler import CosineAnnealingLR

from cem.attacks import Knowledge
from cem.attacks.decoder import DecoderAttack
from cem.attacks.flow import FlowAttack
from cem.attacks.optimization import OptimizationAttack
from cem.config import Decoder, Flow, Optimization, Vgg11
from cem.jobs.process import make_generator, set_up_process
from cem.models import make_decoder, make_split
from cem.models.velocity import make_velocity

NET, PARAMETERS, BATCH, STEPS = "res_normN8C64", 711_539, 256, 3
SMASHED, IMAGE = (8, 8, 8), (3, 32, 32)
ALLOWED = 1.05
AUTO_NET, AUTO_EPOCHS, AUTO_ALLOWED = "res_normN2C16", 32, 2.2
NOISE_STD = 0.05
TOGETHER, SINGLE, SEARCH_STEPS = 32, 8, 100  # images together, images one at a time, steps of each
REQUIRED, AGREEMENT = 3.0, 0.02


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure_decoder(repeats: int) -> bool:
    """Whether a decoder's step is at most ALLOWED times as long as the plain one."""
    images, smashed, knowledge = random_images()
    cfg = Decoder(net=NET, lr=1e-3, epochs=1, batch_size=BATCH, held_out=1e-6)

    def ours() -> None:
        assert DecoderAttack(cfg).fit(knowledge).parameters == PARAMETERS

    def plain() -> None:
        net = make_decoder(NET, SMASHED, IMAGE)
        optimizer, schedule = plain_optimizer(net, cfg.weight_decay)
        for rows in torch.randperm(STEPS * BATCH).split(BATCH):
            loss = mse_loss(net(smashed[rows]), images[rows].float() / 255)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    return against("decoder", "plain loop", plain, ours, STEPS, ALLOWED, repeats)


def measure_flow(repeats: int) -> bool:
    """Whether a flow's step is at most ALLOWED times as long as the plain one."""
    images, smashed, knowledge = random_images()
    cfg = Flow(lr=1e-3, epochs=1, batch_size=BATCH, held_out=1e-6, steps=1)

    def ours() -> None:
        assert not FlowAttack(cfg).fit(knowledge).failure

    def plain() -> None:
        velocity, condition = make_velocity(cfg.net, IMAGE, SMASHED, torch.Generator().manual_seed(0))
        optimizer, schedule = plain_optimizer(nn.ModuleList([velocity, condition]), 0.0)
        for rows in torch.randperm(STEPS * BATCH).split(BATCH):
            x = 3 * (images[rows].float() / 255 - 0.5)
            noise, time = torch.randn_like(x), torch.rand(len(x))
            at = time.view(-1, 1, 1, 1)
            loss = mse_loss(velocity(at * x + (1 - at) * noise, time, condition(smashed[rows])), x - noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()

    return against("flow", "plain loop", plain, ours, STEPS, ALLOWED, repeats)


def measure_auto(repeats: int) -> bool:
    """Whether a budget that ends by itself costs at most AUTO_ALLOWED times the fit that it ends with."""
    *_, knowledge = random_images()
    cfg = Decoder(net=AUTO_NET, lr=1e-3, batch_size=BATCH, held_out=1e-6, max_epochs=AUTO_EPOCHS)
    known = Decoder(net=AUTO_NET, lr=1e-3, batch_size=BATCH, held_out=1e-6, epochs=AUTO_EPOCHS)

    def ours() -> None:
        assert DecoderAttack(cfg).fit(knowledge).ladder[-1].epochs == AUTO_EPOCHS

    def theirs() -> None:
        DecoderAttack(known).fit(knowledge)

    return against("auto", f"{AUTO_EPOCHS} epochs", theirs, ours, STEPS * AUTO_EPOCHS, AUTO_ALLOWED, repeats)


def random_images() -> tuple[Tensor, Tensor, Knowledge]:
    """Images, their z, and an attacker who knows both; one image is held out."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (STEPS * BATCH + 1, *IMAGE), dtype=torch.uint8, generator=draws)
    smashed = torch.rand(len(images), *SMASHED, generator=draws)
    return images, smashed, Knowledge(images, None, lambda rows, _: smashed[rows], seed=0, device=torch.device("cpu"))


def plain_optimizer(net: nn.Module, weight_decay: float) -> tuple[torch.optim.Adam, CosineAnnealingLR]:
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=weight_decay)
    return optimizer, CosineAnnealingLR(optimizer, T_max=STEPS, eta_min=1e-5)


def against(
    name: str,
    other: str,
    theirs: Callable[[], None],
    ours: Callable[[], None],
    steps: int,
    allowed: float,
    repeats: int,
) -> bool:
    """Whether our fit takes at most `allowed` times as long as the other, which takes so many steps."""
    ratios = []
    for repeat in range(repeats + 1):  # the first is not timed: memory is claimed then
        other_time, our_own = seconds(theirs) / steps, seconds(ours) / steps
        if repeat > 0:
            ratios.append(our_own / other_time)
            print(f"{other}: {other_time:6.3f} s per step   {name}: {our_own:6.3f} s per step", flush=True)
    ratio = statistics.median(ratios)
    print(
        f"{name}: ratio {ratio:.2f} (median of {len(ratios)}, {min(ratios):.2f} to {max(ratios):.2f}; "
        f"at most {allowed:g} allowed)"
    )
    if ratio > allowed:
        print(f"too slow: expected at most {allowed:g} times the {other}, found {ratio:.2f}", file=sys.stderr)
    return ratio <= allowed


def narrow_encoder(images: Tensor) -> nn.Module:
    encoder, _ = make_split(Vgg11(width=0.25), IMAGE, 10)
    with torch.no_grad():
        for _ in range(50):  # the running statistics forget their start
            encoder.train()(images)
    return encoder.eval().requires_grad_(False)


def timed(attack: OptimizationAttack, smashed: Tensor) -> tuple[Tensor, float]:
    """Reconstructions, and images per second."""
    start = time.perf_counter()
    images = attack.reconstruct(smashed)
    return images, len(smashed) / (time.perf_counter() - start)


def measure_optimization(repeats: int) -> bool:
    """Whether the batched search is REQUIRED times as fast as one image at a time, and as good."""
    latent = torch.rand(TOGETHER, 3, 8, 8, generator=make_generator(0, "images", "cpu"))
    raw = (255 * interpolate(latent, size=IMAGE[1:], mode="bilinear")).round().byte()
    images = raw.float() / 255
    encoder = narrow_encoder(images)
    clean = encoder(images)
    smashed = clean + NOISE_STD * torch.randn(clean.shape, generator=make_generator(0, "noise", "cpu"))
    knowledge = Knowledge(raw, None, lambda rows, _: smashed[rows], seed=0, device=torch.device("cpu"), encoder=encoder)
    cfg = Optimization(steps=SEARCH_STEPS, tv=(0.03,), posterior=(), selection_images=8, batch_size=TOGETHER)
    together, alone = OptimizationAttack(cfg), OptimizationAttack(cfg.model_copy(update={"batch_size": 1}))
    together.fit(knowledge)
    alone.fit(knowledge)
    alone.stop = together.stop = SEARCH_STEPS
    ratios = []
    for repeat in range(repeats + 1):  # the first is not timed: memory is claimed then
        batched, fast = timed(together, smashed)
        single, slow = timed(alone, smashed[:SINGLE])
        if repeat > 0:
            ratios.append(fast / slow)
            print(f"one at a time: {slow:6.2f} images/s   {TOGETHER} together: {fast:6.2f} images/s", flush=True)
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


MEASUREMENTS = {
    "decoder": measure_decoder, "flow": measure_flow, "auto": measure_auto, "optimization": measure_optimization,
}  # fmt: skip


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
