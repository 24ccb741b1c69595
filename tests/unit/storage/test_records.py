"""Records come back as they were written; an old one is read; a damaged or foreign one is named with what to do."""

import json
import subprocess
import sys

import pytest

from cem.storage.files import StoreError
from cem.storage.job_records import AttackKnowledge, AttackRecord, Attempt, JobCost, TrainRecord
from cem.storage.manifest_records import (
    DefenseFacts,
    EvaluatorFacts,
    EvaluatorRecord,
    ImageFacts,
    KnownImages,
    Manifest,
    MetricFacts,
    ScoredImages,
    Seeds,
    SsimFacts,
)
from cem.storage.records import read_record, write_record

ATTEMPT = Attempt(node="n1", device="cpu", started="2026-01-01T00:00:00+00:00", gpus=0, seconds=7.0, ended="done")
COST = {"source": "accounting", "lost": False, "elapsed_s": 60, "cpu_s": None, "gpu_s": 0.0, "max_rss_mb": 900.0}
TRAIN = TrainRecord(
    run="a/b/s0-1f3a",
    accuracy_test=0.5,
    accuracy_val=1,
    best_epoch=3,
    epochs=4,
    seconds=10.5,
    warmup_seconds=0,
    parameters={"encoder": 100},
    peak_memory_mb=50.0,
    device="cpu",
    threads=1,
    versions={"cem": "0.1.0"},
    numerics=4,
    attempts=[ATTEMPT],
    lost_seconds=0.0,
)
ATTACK = AttackRecord(
    attack="decoder",
    kind="decoder",
    settings={"kind": "decoder", "lr_sweep": [0.1, 0.01]},
    knowledge=AttackKnowledge(data="private", images=100, label="private"),
    parameters=321,
    curve=[{"epoch": 1, "val_mse": 0.25}],
    converged=None,
    choices={"lr": 0.1, "sweep": {"0.1": None}},
    failure="",
    fit_seconds=1.5,
    score_seconds=0.5,
    peak_memory_mb=50.0,
    numerics=[4, 2],
    torch="2",
    device="cpu",
    threads=1,
    attempts=[],
    lost_seconds=0.0,
)
FACTS = EvaluatorFacts(
    split="shadow", images=90, images_sha256="e", labels_sha256="f", held_out_images=10, held_out_accuracy=0.5
)
EVALUATOR = EvaluatorRecord(facts=FACTS, numerics=[4, 2], torch="2", device="cpu", threads=1)
MANIFEST = Manifest(
    attack="decoder",
    settings={"kind": "decoder"},
    knowledge=KnownImages(
        split="private", images=3, sha256="ab", encoder="query", observations=1, labels=False, defense=True
    ),
    scored={"infer": ScoredImages(split="test", images=2, sha256="c", labels_sha256="d", also_owned_by_attacker=0)},
    disjoint_from_infer=True,
    defense=DefenseFacts(
        noise_std=0.1, dropout_rate=0.0, pruned_fraction=0.0, acts_in=["scoring"], settings=[{"kind": "nopeek"}]
    ),
    images=ImageFacts(range=[0, 1], stored_as="uint8", normalisation="none"),
    metrics=MetricFacts(ssim=SsimFacts(window=11, sigma=1.5, borders="reflected"), psnr_cap_db=100.0),
    evaluator=FACTS,
    seeds=Seeds(run=0, attack=None),
    budget={"parameters": 321},
    numerics=[4, 2],
)
RECORDS = {"train.json": TRAIN, "attack.json": ATTACK, "manifest.json": MANIFEST, "evaluator.json": EVALUATOR}


@pytest.fixture(params=RECORDS)
def written(request, tmp_path):
    path = tmp_path / request.param
    write_record(path, RECORDS[request.param])
    return path, RECORDS[request.param]


def change(path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_what_is_written_is_read(written) -> None:
    path, record = written
    assert read_record(path, type(record), "x") == record.model_copy(update={"version": record.VERSION})
    assert json.loads(path.read_text())["version"] == record.VERSION


def test_a_record_without_a_version_is_the_first(written) -> None:
    path, record = written
    content = json.loads(path.read_text())
    del content["version"]
    if record is MANIFEST:
        del content["defense"]["settings"]  # which the first version did not have
    path.write_text(json.dumps(content))
    found = read_record(path, type(record), "x")
    assert found.version == 1
    assert found == record if record is not MANIFEST else found.defense.settings is None


def test_costs_come_from_an_executor_afterwards(tmp_path) -> None:
    for name in ("train.json", "attack.json"):
        write_record(tmp_path / name, RECORDS[name])
        assert "costs" not in json.loads((tmp_path / name).read_text())
        change(tmp_path / name, costs=[COST | {"job": "12_3", "state": "COMPLETED"}])
        assert read_record(tmp_path / name, type(RECORDS[name]), "x").costs == [JobCost(**COST)]


@pytest.mark.parametrize("version", [0, 4, "1", None, 1.5])
def test_another_version_is_named(written, version) -> None:
    path, record = written
    change(path, version=version)
    expected = rf"{path.name}: expected \w+ version {record.VERSION} or older, found .*delete it and rerun some_rule\."
    with pytest.raises(StoreError, match=expected):
        read_record(path, type(record), "some_rule")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda text: text[: len(text) // 2], "cannot read it"),
        (lambda text: "", "cannot read it"),
        (lambda text: "[]", "found no version"),
        (lambda text: text.replace('"numerics"', '"numeric"'), r"missing: numerics; numeric: extra inputs"),
        (lambda text: text.replace('"version"', '"settings_"'), "settings_: extra inputs are not permitted"),
    ],
)
def test_a_damaged_record_is_named_with_what_to_do(written, damage, said) -> None:
    path, record = written
    path.write_text(damage(path.read_text()))
    with pytest.raises(StoreError, match=rf"{path.name}: expected .*{said}.*elete it and rerun some_rule\."):
        read_record(path, type(record), "some_rule")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"accuracy_test": "0.5"}, r"accuracy_test: input should be a valid number, found '0\.5'"),
        ({"attempts": [{"node": "n", "device": "cpu"}]}, r"missing: attempts\.0\.started"),
        ({"best_epoch": None, "epochs": None, "run": 1, "device": 2}, r"\(and 1 more\)"),
        ({"seconds": -1.0}, "seconds: input should be greater than or equal to 0"),
        ({"costs": [{"source": "job"}]}, r"missing: costs\.0\.lost"),
    ],
)
def test_the_first_findings_are_told(tmp_path, changes, said) -> None:
    write_record(tmp_path / "train.json", TRAIN)
    change(tmp_path / "train.json", **changes)
    with pytest.raises(StoreError, match=said):
        read_record(tmp_path / "train.json", TrainRecord, "train")


def test_an_absent_record_is_named_with_its_rule(tmp_path) -> None:
    with pytest.raises(StoreError, match=r"train\.json: expected a file, found none\. Run train\."):
        read_record(tmp_path / "train.json", TrainRecord, "train")


def test_numbers_that_json_lacks_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        TRAIN.model_copy().model_validate(TRAIN.model_dump() | {"accuracy_val": float("nan")})


def test_no_torch() -> None:
    code = "import sys, cem.storage.manifest_records; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
