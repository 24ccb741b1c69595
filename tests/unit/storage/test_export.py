"""`cem attack export`: the weights of a finished attack as a file, or what is there instead and what to do."""

import json
import shlex
from pathlib import Path

import pytest
import torch

from cem.attacks import Fitted
from cem.attacks.weights import Weights, save_weights
from cem.cli import main
from cem.planning.workflow import WORKFLOW
from cem.storage.files import sha256
from cem.storage.weights import NetworkFacts, read_header

FACTS = NetworkFacts(
    network="decoder", net="res_normN0C4", smashed_shape=(8, 4, 4), masked=False, image_shape=(1, 32, 32)
)
RUN = "synthetic-vgg11-c4/noise0.1/none/s0-0123456789ab"


def finish(folder: Path, kind: str, **changes) -> None:
    """attack.json, and the weights where they are said to be there."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "version": 3, "attack": folder.name, "kind": kind, "settings": {"kind": kind}, "parameters": 1, "curve": [],
        "knowledge": {"data": "private", "images": 9, "label": "private"}, "converged": None, "choices": {},
        "failure": "", "fit_seconds": 1.0, "score_seconds": 1.0, "peak_memory_mb": 1.0, "numerics": [5, 4],
        "torch": "2", "device": "cpu", "threads": 1, "attempts": [], "lost_seconds": 0.0,
    }  # fmt: skip
    (folder / "attack.json").write_text(json.dumps(record | changes))


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = Path("results/mine/runs", RUN)
    kept = folder / "attacks/decoder/weights.safetensors"
    kept.parent.mkdir(parents=True)
    save_weights(kept, Weights(FACTS, {"net": torch.nn.Linear(1, 1)}), Fitted(1, converged=True), None, [])
    finish(kept.parent, "decoder", weights_sha256=sha256(kept))
    finish(folder / "attacks/linear", "linear")
    finish(folder / "attacks/broken", "decoder", failure="val_mse is nan in epoch 2: lower lr")
    finish(folder / "attacks/old", "decoder", version=2)
    return folder


@pytest.fixture
def cem(capsys):
    def called(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as done:
            main(["attack", "export", *map(str, arguments)])
        return done.value.code, *capsys.readouterr()

    return called


@pytest.mark.parametrize("said", [RUN, f"results/mine/runs/{RUN}"])
def test_a_run_is_its_folder_or_its_id(cem, run, said) -> None:
    code, out, err = cem(said, "decoder")
    kept = run / "attacks/decoder/weights.safetensors"
    assert (code, err) == (0, "")
    assert out.startswith("decoder.safetensors: decoder res_normN0C4 from z 8×4×4 to images 1×32×32\n")
    assert sha256(kept) in out
    assert Path("decoder.safetensors").read_bytes() == kept.read_bytes()
    assert read_header("decoder.safetensors").converged is True
    assert cem(said, "decoder")[0] == 0, "the same again is no error"


def test_another_file_is_not_overwritten(cem, run) -> None:
    Path("decoder.safetensors").write_text("mine")
    code, _, err = cem(RUN, "decoder")
    assert code == 2
    assert "decoder.safetensors: there is another file or folder already. Delete it, or choose another with -o" in err
    assert Path("decoder.safetensors").read_text() == "mine"
    assert cem(RUN, "decoder", "-o", "kept/of/a.safetensors")[0] == 0
    assert Path("kept/of/a.safetensors").exists()


@pytest.mark.parametrize(
    ("said", "attack", "message"),
    [
        ("a/b/c/s0-1", "decoder", f"found none for 'a/b/c/s0-1' in results. Runs there: results/mine/runs/{RUN}."),
        ("", "decoder", "expected the folder or id of a run, or a part of its id; found none for ''"),
        (
            RUN,
            "flow",
            "found no attack.json. Finished on this run: broken, decoder, linear, old. One that the study has",
        ),
        (
            RUN,
            "flow",
            f"is made by: snakemake --snakefile {shlex.quote(str(WORKFLOW))} --cores all --configfile FILE -- "
            f"results/mine/runs/{RUN}/attacks/flow/attack.json",
        ),
        (RUN, "../attacks/decoder", "expected a finished attack"),
        (RUN, "linear", "expected an attack that fits networks (decoder, gan, flow, prior_search), found linear"),
        (RUN, "broken", "the fit failed: val_mse is nan in epoch 2: lower lr"),
        (RUN, "old", "an older cem made this result and kept no weights: delete results/"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(cem, run, said, attack, message) -> None:
    code, out, err = cem(said, attack)
    assert (code, out) == (2, "")
    assert message in err
    assert not list(Path.cwd().glob("*.safetensors"))


def test_weights_that_attack_json_does_not_speak_of_are_refused(cem, run) -> None:
    kept = run / "attacks/decoder/weights.safetensors"
    kept.write_bytes(kept.read_bytes() + b"x")
    assert "expected the weights that attack.json speaks of, found none or others: delete" in cem(RUN, "decoder")[2]
    kept.unlink()
    assert "found none or others" in cem(RUN, "decoder")[2]


def test_a_run_of_two_studies_is_asked_about(cem, run) -> None:
    Path("results/other/runs", RUN, "attacks").mkdir(parents=True)
    expected = f"in 2. Give one of these folders, or more of its id: results/mine/runs/{RUN}, results/other/runs/{RUN}"
    assert expected in cem(RUN, "decoder")[2]
