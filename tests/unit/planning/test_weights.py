"""Files of weights that attacks start from: what is wrong with them is said before any job."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from cem import ATTACK_NUMERICS, NUMERICS, CemError
from cem.attacks import Fitted
from cem.attacks.weights import Weights, save_weights
from cem.planning.plan import Plan
from cem.planning.preflight import check_before_start, started_from
from cem.planning.status import _changed
from cem.storage.files import sha256
from cem.storage.weights import NetworkFacts

DATA = {"source": "synthetic", "images": 200, "classes": 2, "channels": 1}
Z = (8, 16, 16)  # of VGG-11 at cut_layer 3 with its bottleneck, for images of 32×32


def write(path: Path, **changes) -> str:
    """A file of weights that fits the study below, but for the changes."""
    facts = {
        "network": "decoder",
        "net": "res_normN0C4",
        "smashed_shape": Z,
        "masked": False,
        "image_shape": (1, 32, 32),
    }
    save_weights(path, Weights(NetworkFacts(**facts | changes), {"net": torch.nn.Linear(1, 1)}), Fitted(1), None, [])
    return str(path)


@pytest.fixture
def plan(study, tmp_path):
    def of(attack: dict, **changes) -> Plan:
        given = {"dataset": DATA, "model": {"cut_layer": 3}, "training": {"epochs": 4, "batch_size": 16}} | changes
        return Plan(study(attacks=[attack], **given), tmp_path / "results")

    return of


def decoder(path: str, **changes) -> dict:
    return {"kind": "decoder", "net": "res_normN0C4", "weights": path} | changes


def test_a_file_that_fits_is_accepted(plan, tmp_path) -> None:
    path = write(tmp_path / "decoder.safetensors")
    check_before_start(plan(decoder(path)))
    inner = {"net": "res_normN0C4", "weights": path, "epochs": 0}
    check_before_start(plan({"kind": "optimization", "start": "decoder", "decoder": inner}))
    prior = write(tmp_path / "prior.safetensors", network="prior", net="unet_C4", smashed_shape=None)
    for layer in (2, 4):  # a prior is of no cut
        check_before_start(
            plan({"kind": "prior_search", "net": "unet_C4", "weights": prior}, model={"cut_layer": layer})
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"network": "gan"},
            r"expected weights of decoder res_normN0C4 .*; found those of gan .* of that kind of attack",
        ),
        ({"net": "unet_C8"}, r"found those of decoder unet_C8 .* Set net: unet_C8, or take a file of res_normN0C4"),
        ({"image_shape": (3, 32, 32)}, r"to images 1×32×32; found .* to images 3×32×32. Take a file of images of this"),
        ({"image_shape": (1, 64, 64)}, r"to images 1×32×32; found .* to images 1×64×64"),
        ({"smashed_shape": (8, 8, 8)}, r"from z 8×16×16 to .*; found .* from z 8×8×8 .*the same cut, bottleneck"),
        ({"masked": True}, r"found .* under a defence that masks .* whose defences mask as this run's do"),
    ],
)
def test_weights_of_another_network_are_refused(plan, tmp_path, changes, message) -> None:
    with pytest.raises(CemError, match=message):
        check_before_start(plan(decoder(write(tmp_path / "own.safetensors", **changes))))


@pytest.mark.parametrize("masked", [False, True])
def test_no_file_serves_runs_that_hide_values_and_the_references_which_hide_none(plan, tmp_path, masked) -> None:
    path = write(tmp_path / "own.safetensors", masked=masked)
    with pytest.raises(CemError, match=r"decoder: weights names one file for all runs, but .*dropout0.2.* leave the"):
        check_before_start(plan(decoder(path), defenses=[{"kind": "dropout"}]))
    prior = {"network": "prior", "net": "unet_C4", "smashed_shape": None}
    cfg = {"kind": "prior_search", "net": "unet_C4", "weights": write(tmp_path / "prior.safetensors", **prior)}
    check_before_start(plan(cfg, defenses=[{"kind": "dropout"}]))


def test_a_prior_of_another_image_size_is_refused(plan, tmp_path) -> None:
    facts = {"network": "prior", "net": "unet_C4", "smashed_shape": None, "image_shape": (1, 64, 64)}
    cfg = {"kind": "prior_search", "net": "unet_C4", "weights": write(tmp_path / "prior.safetensors", **facts)}
    with pytest.raises(CemError, match=r"expected weights of prior unet_C4 to images 1×32×32; found .* 1×64×64"):
        check_before_start(plan(cfg))


def test_what_is_no_file_of_weights_is_refused(plan, tmp_path) -> None:
    path = tmp_path / "own.safetensors"

    def refused(message: str) -> None:
        with pytest.raises(
            CemError, match=rf"own\.safetensors: expected weights that `cem attack export` wrote{message}"
        ):
            check_before_start(plan(decoder(str(path))))

    refused(", found no file. Correct the path")
    path.write_bytes(b"\x80\x04K\x01.")  # a pickle
    refused("; cannot read it as safetensors")
    save_file({"a": np.zeros(2)}, path)
    refused("; found safetensors that do not say of what network")
    save_file({"a": np.zeros(2)}, path, metadata={"cem": json.dumps({"kind": "model", "version": 1})})
    refused("; found a file of kind 'model'. Take one that it wrote")
    save_file({"a": np.zeros(2)}, path, metadata={"cem": "kind: decoder"})
    refused("; its metadata are no JSON")
    save_file({"a": np.zeros(2)}, path, metadata={"cem": json.dumps({"kind": "attack weights", "version": 2})})
    refused(", version 1; missing: network; .*Export it again with this cem")
    whole = Path(write(path)).read_bytes()
    path.write_bytes(whole[:-4])
    refused("; cannot read it as safetensors")
    path.write_bytes(whole[:-4] + np.float32(np.nan).tobytes())
    refused("; found numbers in net.* that are not finite")
    path.unlink()
    path.mkdir()
    refused("; cannot read it as safetensors")


def test_a_file_that_is_gone_is_missed_until_its_results_are_there(plan, tmp_path) -> None:
    path = Path(write(tmp_path / "own.safetensors"))
    planned = plan(decoder(str(path), lr=0.01))
    digest = {"weights": sha256(path)}
    assert [started_from(planned, name, "decoder") for name in planned.runs] == [digest] * 2
    again = plan(decoder(str(path), lr=0.01))
    path.unlink()
    with pytest.raises(CemError, match="found no file"):
        check_before_start(again)
    for run in again.runs.values():
        folder = again.attack(run, "decoder")
        folder.mkdir(parents=True)
        (folder / "attack.json").write_text(json.dumps(finished(again, digest["weights"], str(path))))
    check_before_start(again)
    assert [started_from(again, name, "decoder") for name in again.runs] == [digest] * 2, "nothing runs again"
    with pytest.raises(CemError, match=r"other\.safetensors: .*found no file"):  # the results are not of that one
        check_before_start(plan(decoder(str(tmp_path / "other.safetensors"), lr=0.01)))


def test_other_contents_are_another_job_and_status_says_so(plan, tmp_path) -> None:
    path = Path(write(tmp_path / "own.safetensors"))
    planned = plan(decoder(str(path), lr=0.01))
    ((name, run), *_) = planned.runs.items()
    folder = planned.attack(run, "decoder")
    folder.mkdir(parents=True)
    (folder / "attack.json").write_text(json.dumps(finished(planned, sha256(path), str(path))))
    assert "weights" not in _changed(planned, name, run)
    write(path, net="unet_C8")
    assert "decoder started from other weights" in _changed(planned, name, run)
    assert started_from(planned, name, "decoder") == {"weights": sha256(path)}


def finished(plan: Plan, digest: str, path: str) -> dict:
    """attack.json of the decoder."""
    (cfg,) = plan.study.attacks
    return {
        "version": 3, "attack": cfg.id, "kind": "decoder", "settings": json.loads(json.dumps(cfg.sparse())),
        "knowledge": {"data": "private", "images": 9, "label": "private"}, "parameters": 1, "curve": [],
        "converged": None, "choices": {}, "failure": "", "fit_seconds": 1.0, "score_seconds": 1.0,
        "peak_memory_mb": 1.0, "numerics": [NUMERICS, ATTACK_NUMERICS], "torch": "2", "device": "cpu", "threads": 1,
        "attempts": [], "lost_seconds": 0.0,
        "started_from": [{"setting": "weights", "path": path, "sha256": digest}],
    }  # fmt: skip
