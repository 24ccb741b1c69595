"""Are the attackers in order? Checks the results of config/attackers_mnist.yaml, or of any study with those attacks.

On the undefended reference: mean_image > linear > decoder in MSE on Infer, the GAN within 15 % of the decoder or
better, the search from a decoder not worse than the decoder on the same images. Over all seeds, none of these makes an
attack stronger by more than the spread over seeds: more noise, fewer images, its own images instead of the private
ones, fewer looks, no access to the encoder. Attacks that a study lacks are left out, and named.
Exit code 1 when one of these does not hold.
Usage: python benchmarks/attackers.py [results/attackers_mnist]
"""

import argparse
import math
import sys
from itertools import pairwise
from pathlib import Path

import pandas as pd

# (knows or has less, knows or has more): the first must not have the lower error
WEAKER = (
    ("linear_few", "linear"), ("linear_shadow", "linear"), ("linear", "linear_seen4"), ("decoder_few", "decoder"),
    ("decoder", "decoder_seen4"), ("shadow_model", "decoder"),
)  # fmt: skip
GAN_ALLOWED = 1.15
OPTIMIZED = "decoder_optimization"


def order(folder: Path, results: pd.DataFrame) -> list[tuple[str, bool]]:
    """What holds on the reference, in words, and whether it does."""
    there = results[results["reference"] & (results["scope"] == "infer")]
    error = there.groupby("attack")["mse"].mean()
    mean, linear, decoder = (float(error[name]) for name in ("mean_image", "linear", "decoder"))
    found = [(f"mean_image {mean:.5f} > linear {linear:.5f} > decoder {decoder:.5f}", mean > linear > decoder)]
    if "gan" in error:
        found.append((f"gan {error['gan']:.5f} ≤ {GAN_ALLOWED:g} × decoder", error["gan"] <= GAN_ALLOWED * decoder))
    if OPTIMIZED in error:
        run = there["run"].iloc[0]
        alone, searched = (
            pd.read_parquet(folder / "runs" / run / "attacks" / name / "metrics.parquet").query("scope == 'infer'")
            for name in ("decoder", OPTIMIZED)
        )
        same = alone.set_index("index").loc[searched["index"], "mse"].mean()
        after = searched["mse"].mean()
        found.append((f"{OPTIMIZED} {after:.5f} ≤ decoder {same:.5f} on {len(searched)} images", after <= same))
    return found


def monotone(results: pd.DataFrame) -> list[tuple[str, bool]]:
    """Pairs of which the first must not be the stronger beyond the spread, as rows of a table, and whether it holds."""
    spread = results[results["scope"] == "infer"].groupby(["attack", "noise_std"])["mse"].agg(["mean", "std", "count"])
    levels = sorted(results["noise_std"].unique())
    attacks = [name for name in dict.fromkeys(results["attack"]) if (name, levels[-1]) in spread.index]
    trained = [name for name in attacks if name not in ("mean_image", "class_mean")]
    pairs = [((name, more), (name, less)) for name in trained for less, more in pairwise(levels)]
    pairs += [((less, level), (more, level)) for less, more in WEAKER for level in levels]
    found = []
    for weaker, stronger in pairs:
        if weaker in spread.index and stronger in spread.index:
            w, s = spread.loc[weaker], spread.loc[stronger]
            allowed = math.hypot(w["std"], s["std"]) if min(w["count"], s["count"]) > 1 else 0.0
            holds = w["mean"] >= s["mean"] - allowed
            cells = [
                f"{name}, σ {level:g} | {x['mean']:.5f} ± {x['std']:.5f}"
                for (name, level), x in ((weaker, w), (stronger, s))
            ]
            found.append((f"| {cells[0]} | {cells[1]} | {'yes' if holds else '**no**'} |", bool(holds)))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("results/attackers_mnist"))
    folder = parser.parse_args().folder
    results = pd.read_parquet(folder / "results.parquet")
    in_order, pairs = order(folder, results), monotone(results)
    for text, holds in in_order:
        print(f"{'yes' if holds else 'NO '} {text}")
    print("\n| weaker | MSE | stronger | MSE | in order |\n|---|---|---|---|---|")
    print("\n".join(text for text, _ in pairs))
    absent = {name for pair in WEAKER for name in pair} - set(results["attack"])
    if absent:
        print(f"\nnot in this study: {', '.join(sorted(absent))}")
    wrong = [text for text, holds in [*in_order, *pairs] if not holds]
    print(f"\n{len(in_order) + len(pairs) - len(wrong)} of {len(in_order) + len(pairs)} hold", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
