"""Activations of the user's own: stored as they are given, attacked without a network, and refused with the reason."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from cem.config import ActivationsDataset, ConfigError, parse_study
from cem.data.check import check_files
from cem.data.prepare import prepare_data
from cem.data.sources import DataError
from cem.evaluation import attack_run
from cem.planning.plan import Plan
from cem.planning.preflight import check_before_start
from cem.report.page import write_report
from cem.report.results import aggregate
from cem.storage.hdf5 import SPLITS, open_activations, open_dataset
from cem.storage.job_records import TrainRecord
from cem.storage.records import read_record
from cem.training import import_activations, measure_mixture, take_as_given

Arrays = dict[str, np.ndarray]


def arrays(count: int = 24) -> Arrays:
    """Of each split some images, in which a class is a brightness, and z of 2×4×4 which shows them."""
    rng = np.random.default_rng(0)
    found = {}
    for split in SPLITS:
        labels = np.arange(count) % 3
        images = rng.integers(0, 60, (count, 32, 32)) + 60 * labels[:, None, None]
        coarse = images.reshape(count, 4, 8, 4, 8).mean((2, 4)) / 255
        z = np.stack([coarse, 1 - coarse], 1) + 0.01 * rng.standard_normal((count, 2, 4, 4))
        found |= {f"{split}/z": z.astype(np.float32), f"{split}/x": images.astype(np.uint8), f"{split}/y": labels}
    return found


def write(path: Path, found: Arrays) -> str:
    if path.suffix.lower() == ".npz":
        with path.open("wb") as file:
            np.savez(file, **{name.replace("/", "_"): value for name, value in found.items()})
    else:
        with h5py.File(path, "w") as file:
            for name, value in found.items():
                file[name] = value
    return str(path)


def planned(path: str, results: Path, **changes: object) -> Plan:
    study = {
        "name": "audit",
        "dataset": {"source": "activations", "name": "mine", "path": path, "channels": 1},
        "model": {"arch": "activations"},
        "training": "none",
        "attacks": [{"kind": "mean_image"}, {"kind": "linear"}],
        "report": {"images": 2, "map_samples": 20},
    }
    return Plan(parse_study(study | changes, "test"), results)


def carried_out(plan: Plan) -> str:
    check_before_start(plan)
    (run,) = plan.runs.values()
    place, data = plan.run(run), plan.data(run.dataset)
    model, activations = place / "model.safetensors", place / "activations.h5"
    prepare_data(run.dataset, data)
    take_as_given(run, data, place, plan.root)
    import_activations(run, data, model, plan.study.smashed_dtype, activations)
    measure_mixture(run, plan.study.leakage, activations, plan.leakage(run), data=data, model=model)
    attack_run(
        run, plan.attacks(run), activations=activations, data=data, model=model, folder=place / "attacks",
        num_images=2, results=plan.root,
    )  # fmt: skip
    tables = [plan.folder / name for name in ("results.parquet", "results.csv", "runs.csv")]
    aggregate(plan, *tables)
    write_report(plan, tables[0], plan.report)
    return plan.report.read_text()


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_z_and_images_stay_together_in_the_files_splits(tmp_path: Path, suffix: str) -> None:
    found = arrays()
    plan = planned(write(tmp_path / f"z.{suffix}", found), tmp_path / "results")
    (run,) = plan.runs.values()
    data, out = plan.data(run.dataset), plan.run(run) / "activations.h5"
    prepare_data(run.dataset, data)
    take_as_given(run, data, out.parent, plan.root)
    import_activations(run, data, out.parent / "model.safetensors", "auto", out)
    with open_dataset(data) as images, open_activations(out) as smashed:
        for split in SPLITS:
            np.testing.assert_array_equal(images.images(split)[:, 0], found[f"{split}/x"])
            np.testing.assert_array_equal(images.labels(split), found[f"{split}/y"])
            np.testing.assert_array_equal(smashed.read(split, slice(0, 99), np.asarray), found[f"{split}/z"])
    record = read_record(out.parent / "train.json", TrainRecord, "train")
    assert (record.accuracy_test, record.parameters) == (None, {})


def test_they_are_attacked_to_a_report_and_without_a_stated_noise_no_leakage_is_told(tmp_path: Path) -> None:
    plan = planned(write(tmp_path / "z.npz", arrays()), tmp_path / "results")
    page = carried_out(plan)
    results = pd.read_csv(plan.folder / "results.csv")
    assert results["leakage_nats"].isna().all()
    assert results["not_applicable"].str.contains("nobody says which noise it has").all()
    assert results["accuracy"].isna().all()
    mse = results[results["scope"] == "infer"].set_index("attack")["mse"]
    assert mse["linear"] < 0.5 * mse["mean_image"]
    assert "No leakage is told" in page
    assert not results["not_applicable"].str.contains("set noise_std").any()  # it would add a second noise
    assert "a weak attack cannot be told from a strong defence" in page


@pytest.mark.parametrize("noise", [{"noise_std": 0.1}, {"defenses": [{"kind": "local_dp", "epsilon": 50.0}]}])
def test_with_a_stated_noise_leakage_is_told(tmp_path: Path, noise: dict[str, Any]) -> None:
    plan = planned(write(tmp_path / "z.npz", arrays()), tmp_path / "results", **noise)
    carried_out(plan)
    assert np.isfinite(pd.read_csv(plan.folder / "results.csv")["leakage_nats"]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val/z": None}, r"expected val/z \(or val_z\), found .*private_z"),
        ({"test/z": np.zeros((24, 3, 4, 4), np.float32)}, r"alike in all splits; found .*test \[24, 3, 4, 4\]"),
        ({"test/z": np.zeros((23, 2, 4, 4), np.float32)}, "z of test: expected as many"),
        ({"shadow/x": np.zeros((24, 32, 32), np.float32)}, "expected images as uint8"),
        ({"val/z": np.zeros((24, 2, 4, 4), int)}, "z of val as floating-point numbers .*found int64"),
        ({"private/y": np.zeros((24, 3))}, r"y of private as integers \[n\], found \[24, 3\]"),
        ({"private/y": np.array([{}] * 24, dtype=object)}, "cannot be read as npz or HDF5: Object arrays"),
        ({"private/z": np.float32(1)}, "expected private_z as an array .*found a single value"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change: dict[str, np.ndarray | None], message: str) -> None:
    found = {name: value for name, value in (arrays() | change).items() if value is not None}
    dataset = ActivationsDataset(name="mine", path=write(tmp_path / "z.npz", found))
    with pytest.raises(DataError, match=message):
        check_files(dataset)


def test_z_that_are_not_finite_are_counted_before_anything_is_made_of_them(tmp_path: Path) -> None:
    found = arrays()
    found["shadow/z"][3, 1, :, 2] = np.nan
    found["shadow/z"][5, 0, 0, 0] = np.inf
    dataset = ActivationsDataset(name="mine", path=write(tmp_path / "z.npz", found), channels=1)
    with pytest.raises(DataError, match="z of shadow as finite numbers, found 5 of 768 that are not"):
        prepare_data(dataset, tmp_path / "data.h5")
    assert not (tmp_path / "data.h5").exists()


def test_z_beyond_what_is_kept_are_refused_as_infinite_ones_are(tmp_path: Path) -> None:
    found = arrays()
    found["val/z"] = found["val/z"].astype(np.float64)
    found["val/z"][2, 0, 1, 1] = 1e39  # float32 ends at 3.4e38
    dataset = ActivationsDataset(name="mine", path=write(tmp_path / "z.h5", found), channels=1)
    with pytest.raises(DataError, match="z of val as finite numbers, found 1 of 768 that are not"):
        prepare_data(dataset, tmp_path / "data.h5")


def linked(file: h5py.File, other: Path) -> None:
    file["test/z"] = h5py.ExternalLink(str(other), "test/z")


def virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((24, 2, 4, 4), np.float32)
    layout[:] = h5py.VirtualSource(str(other), "test/z", (24, 2, 4, 4))
    file.create_virtual_dataset("test/z", layout)


def grouped(file: h5py.File, other: Path) -> None:
    file["test/z/values"] = arrays()["test/z"]


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (linked, "test/z in this file, found a link to another file"),
        (virtual, "test/z in this file, found a link to another file"),
        (grouped, "test/z as an array, found a group"),
    ],
)
def test_what_hdf5_keeps_elsewhere_is_refused(tmp_path: Path, stored: Callable[..., None], message: str) -> None:
    other = Path(write(tmp_path / "other.h5", arrays()))
    with h5py.File(write(tmp_path / "z.h5", arrays()), "a") as file:
        del file["test/z"]
        stored(file, other)
    with pytest.raises(DataError, match=rf"z\.h5: expected {message}"):
        check_files(ActivationsDataset(name="mine", path=str(tmp_path / "z.h5")))


def test_a_file_that_is_absent_damaged_or_replaced_is_named(tmp_path: Path) -> None:
    path = tmp_path / "z.h5"
    dataset = ActivationsDataset(name="mine", path=str(path))
    with pytest.raises(DataError, match=r"z\.h5: expected an npz or HDF5 file, found none"):
        check_files(dataset)
    path.write_bytes(b"neither")
    with pytest.raises(DataError, match="cannot be read as npz or HDF5"):
        check_files(dataset)
    with (tmp_path / "one.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(DataError, match="expected an npz file, found a single array"):
        check_files(ActivationsDataset(name="mine", path=str(tmp_path / "one.npz")))
    path = tmp_path / "y.NPZ"
    plan = planned(write(path, arrays()), tmp_path / "results")
    (run,) = plan.runs.values()
    prepare_data(run.dataset, plan.data(run.dataset))
    write(path, arrays(27))
    with pytest.raises(DataError, match=r"expected the file that .* was prepared from, found another"):
        import_activations(run, plan.data(run.dataset), plan.data(run.dataset), "auto", tmp_path / "out.h5")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attacks": [{"kind": "optimization"}]}, r"optimization needs the network \(encoder: weights\)"),
        ({"attacks": [{"kind": "shadow_model", "data": "shadow"}]}, r"shadow_model needs the network"),
        ({"training": {"epochs": 3}}, "activations that are given cannot be trained"),
        ({"training": {"epochs": 0, "reference": {"epochs": 10}}}, "training.reference: .* Leave it out"),
        ({"dataset": {"source": "synthetic"}}, "z must come with the data"),
    ],
)
def test_what_needs_a_network_is_refused_with_the_reason(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        planned("z.npz", tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val/x": lambda x: (x > 90).astype(np.uint8)}, "x of val: expected values from 0 to 255, but all are 0 or 1"),
        ({"test/x": lambda x: np.full_like(x, 99)}, "x of test: expected images that differ"),
        ({"private/y": lambda y: np.minimum(y, 1)}, "expected images of every class in private, found none of 2"),
        ({f"{split}/z": lambda z: z[:, :0, 0, 0] for split in SPLITS}, "expected z as"),
    ],
)
@pytest.mark.parametrize("name", ["mine.npz", "mine.h5"])
def test_nonsense_is_refused_before_any_job(tmp_path: Path, changes: dict, message: str, name: str) -> None:
    found = arrays()
    changed = found | {key: change(found[key]) for key, change in changes.items()}
    with pytest.raises(DataError, match=message):
        check_files(ActivationsDataset(name="mine", path=write(tmp_path / name, changed), channels=1))


def test_labels_may_be_a_column_and_a_folder_or_pipe_is_no_file(tmp_path: Path) -> None:
    found = {key: value[:, None] if key.endswith("/y") else value for key, value in arrays().items()}
    known = check_files(ActivationsDataset(name="mine", path=write(tmp_path / "mine.h5", found), channels=1))
    assert known.counts["private"].tolist() == [8, 8, 8]
    os.mkfifo(tmp_path / "pipe.h5")
    for path, kind in ((tmp_path, "a folder"), (tmp_path / "pipe.h5", "a pipe or device")):
        with pytest.raises(DataError, match=f"expected an npz or HDF5 file, found {kind}"):
            check_files(ActivationsDataset(name="mine", path=str(path), channels=1))
