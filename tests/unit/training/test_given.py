"""A network that is given: it is what its files say, and is attacked, measured and reported like any other."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cem.config import Run, parse_study
from cem.data.prepare import prepare_data
from cem.evaluation import attack_run
from cem.evaluation.victim import load_network
from cem.jobs.state import state_folder
from cem.models.split import ModelError
from cem.planning.plan import Plan
from cem.planning.preflight import check_before_start, network_files
from cem.report.page import write_report
from cem.report.results import aggregate
from cem.storage.files import StoreError, sha256
from cem.storage.hdf5 import open_dataset
from cem.storage.job_records import TrainRecord
from cem.storage.records import read_record
from cem.storage.tensors import CheckpointError, load_checkpoint
from cem.training import extract_activations, measure_mixture, take_as_given, train, warm_up

NET = """
from torch import nn

def build(num_classes, image_shape):
    first = nn.Sequential(nn.Conv2d(image_shape[0], 4, 3, 2, 1), nn.ReLU())
    return nn.Sequential(first, nn.Flatten(), nn.Linear(1024, num_classes))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("given")
    (found / "net.py").write_text(NET)
    for seed, name in enumerate(("defended", "plain")):
        generator = torch.Generator().manual_seed(seed)
        shapes = {"0.0.weight": (4, 1, 3, 3), "0.0.bias": (4,), "2.weight": (3, 1024), "2.bias": (3,)}
        weights = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
        save_file(weights, found / f"{name}.safetensors")
    return found


def planned(folder: Path, *, reference: bool = False, **changes: object) -> Plan:
    model = {"source": "module", "path": str(folder / "net.py"), "cut": "0"}
    model |= {"weights": str(folder / "defended.safetensors")}
    model |= {"reference": str(folder / "plain.safetensors")} if reference else {}
    study = {
        "name": "audit",
        "dataset": {"source": "synthetic", "images": 120, "classes": 3, "channels": 1},
        "model": model,
        "training": "none",
        "attacks": [{"kind": "mean_image"}, {"kind": "linear"}],
        "report": {"images": 2, "map_samples": 20},
    }
    return Plan(parse_study(study | changes, "test"), folder / "results")


def carried_out(plan: Plan) -> str:
    """The study up to its report, as the workflow's scripts call the stages."""
    check_before_start(plan)
    for dataset in plan.datasets.values():
        prepare_data(dataset, plan.data(dataset))
    for run in plan.runs.values():
        place, data = plan.run(run), plan.data(run.dataset)
        model, activations = place / "model.safetensors", place / "activations.h5"
        take_as_given(run, data, place, plan.root)
        extract_activations(run, data, model, "model", plan.study.smashed_dtype, activations)
        measure_mixture(run, plan.study.leakage, activations, plan.leakage(run), data=data, model=model)
        attack_run(
            run, plan.attacks(run), activations=activations, data=data, model=model, folder=place / "attacks",
            num_images=2, results=plan.root,
        )  # fmt: skip
    tables = [plan.folder / name for name in ("results.parquet", "results.csv", "runs.csv")]
    aggregate(plan, *tables)
    write_report(plan, tables[0], plan.report)
    return plan.report.read_text()


def test_without_undefended_weights_there_is_no_gate_and_the_page_says_so(folder: Path) -> None:
    plan = planned(folder)
    assert not plan.warmups
    assert list(plan.runs) == list(plan.asked)
    page = carried_out(plan)
    assert "a weak attack cannot be told from a strong defence" in page
    assert "No gate, and no certificate" in page
    (run,) = plan.runs.values()
    record = read_record(plan.run(run) / "train.json", TrainRecord, "train")
    assert (record.epochs, record.seconds) == (0, 0.0)
    assert record.files == {path: sha256(path) for path in run.model.files}
    assert run.noise_std == 0, "no noise is added to what a given network sends, unless a study says so"
    stored, _ = load_checkpoint(plan.run(run) / "model.safetensors", "model")
    given = load_file(folder / "defended.safetensors")
    assert sorted(float(one.sum()) for one in stored.values()) == sorted(float(one.sum()) for one in given.values())


def test_logits_that_are_not_of_the_datas_classes_are_named_by_the_job_itself(folder: Path, tmp_path: Path) -> None:
    source = NET.replace("num_classes, ", "").replace("1024, num_classes", "1024, 7")
    (tmp_path / "net.py").write_text(source)
    model = {"source": "module", "path": str(tmp_path / "net.py"), "cut": "0"}
    plan = planned(folder, model=model)
    (run,) = plan.runs.values()
    prepare_data(run.dataset, tmp_path / "data.h5")
    with pytest.raises(ModelError, match=r"gives 7 numbers an image; expected 3, one for each class"):
        take_as_given(run, tmp_path / "data.h5", tmp_path / "run", tmp_path)


def test_attacks_are_judged_on_the_undefended_weights_that_are_named(folder: Path) -> None:
    plan = planned(folder, reference=True)
    (name,) = plan.asked
    (reference,) = plan.references.values()
    assert reference.model.weights[0].path.endswith("plain.safetensors")
    assert not reference.trained
    assert [one.id for one in plan.undefended(plan.asked[name])] == [reference.id]
    page = carried_out(plan)
    assert "No gate" not in page


def test_or_on_a_reference_that_the_pipeline_trains_from_random_weights(folder: Path) -> None:
    plan = planned(folder, training={"epochs": 0, "reference": {"epochs": 3}}, noise_std=0.1)
    (reference,) = plan.references.values()
    assert reference.trained
    assert reference.training.epochs == 3
    assert (reference.noise_std, reference.model.weights) == (0.0, ())
    assert list(plan.warmups) == [reference.base]
    assert next(iter(plan.asked.values())).noise_std == 0.1


def test_other_contents_of_the_files_are_another_job(folder: Path, tmp_path: Path) -> None:
    run: Run = next(iter(planned(folder).asked.values()))
    before = network_files(run)
    assert set(before) == {str(folder / "net.py"), str(folder / "defended.safetensors")}
    absent = run.model_copy(update={"model": run.model.model_copy(update={"path": str(tmp_path / "gone.py")})})
    with pytest.raises(StoreError, match=r"gone.py: expected a file"):
        network_files(absent)


def test_a_trained_network_of_ones_own_says_which_files_it_came_from(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is saved on the way is of these: a file with other code does not go on from it."""
    (tmp_path / "net.py").write_text(f"import beside\n{NET}")
    (tmp_path / "beside.py").write_text("SIZE = 1\n")
    model = {"source": "module", "path": str(tmp_path / "net.py"), "cut": "0"}
    plan = planned(folder, model=model, training={"epochs": 2, "warmup_epochs": 1, "batch_size": 32})
    run = next(iter(plan.asked.values()))
    data, warm, out, results = (tmp_path / name for name in ("data.h5", "warm", "run", "results"))
    prepare_data(run.dataset, data)
    folders: list[Path] = []

    def noted(*given: object) -> Path:
        folders.append(state_folder(*given))
        return folders[-1]

    monkeypatch.setattr("cem.training.stages.state_folder", noted)
    changes = {"beside.py": "SIZE = 2\n", "net.py": f"import beside\n{NET.replace('nn.ReLU()', 'nn.Tanh()')}"}
    for changed, text in changes.items():
        warm_up(run, data, warm / "model.safetensors", warm / "history.csv", results)
        train(run, data, warm / "model.safetensors", warm / "history.csv", None, out, results)
        files = {str(tmp_path / name): sha256(tmp_path / name) for name in ("net.py", "beside.py")}
        assert load_checkpoint(warm / "model.safetensors", "warm_up")[1]["files"] == files
        assert load_checkpoint(out / "model.safetensors", "model")[1]["files"] == files
        assert read_record(out / "train.json", TrainRecord, "train").files == files
        (tmp_path / changed).write_text(text)
    warm_up(run, data, warm / "model.safetensors", warm / "history.csv", results)
    assert len(set(folders)) == 5


def test_a_model_is_not_read_by_other_code_than_it_was_made_by(folder: Path, tmp_path: Path) -> None:
    code = tmp_path / "net.py"
    code.write_text(NET)
    plan = planned(folder, model={"source": "module", "path": str(code), "cut": "0"})
    (run,) = plan.runs.values()
    data, model = tmp_path / "data.h5", tmp_path / "run/model.safetensors"
    prepare_data(run.dataset, data)
    take_as_given(run, data, model.parent, tmp_path)
    code.write_text(NET.replace("nn.ReLU()", "nn.Tanh()"))
    with pytest.raises(CheckpointError, match=r"expected .*net\.py as it was .*found another .*Delete .* run again"):
        extract_activations(run, data, model, "model", "auto", tmp_path / "z.h5")
    with open_dataset(data) as file, pytest.raises(CheckpointError, match=r"expected .*net\.py as it was"):
        load_network(model, run, file, torch.device("cpu"))
    code.write_text(NET)
    extract_activations(run, data, model, "model", "auto", tmp_path / "z.h5")
