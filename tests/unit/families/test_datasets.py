"""What holds for every registered data set: labels are known before images, and equal settings are equal data."""

import re
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest

from cem.config import DATASETS, Augment, DatasetSettings, Split
from cem.data.check import check_files
from cem.data.sources import Format, Source, read_labels, read_source

from .examples import cases, wrong_facts

BESIDE = {  # setting → what a change of it needs
    "attribute": {"dataset": "celeba"},
    "min_images": {"dataset": "celeba", "attribute": "identity"},
}
EACH = pytest.mark.parametrize("cfg", cases(DATASETS))


@pytest.fixture(autouse=True)
def _where_the_files_are(raw_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(raw_files)


@cache
def source(cfg: DatasetSettings) -> Source:
    return read_source(cfg)


def every(read: Source) -> np.ndarray:
    return np.stack([read.images[row] for row in range(len(read.images))])


def another(cfg: DatasetSettings, name: str) -> Any:
    """A value of a setting that is not the one it has."""
    value, annotation = getattr(cfg, name), type(cfg).model_fields[name].annotation
    if value is None:
        return f"another {name}"
    if get_origin(annotation) is Literal:
        return next(choice for choice in get_args(annotation) if choice != value)
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 32
        case str():
            return f"{value}2"
        case Split():
            return Split(seed=value.seed + 1)
    raise AssertionError(f"{cfg.member}: no other value is known for {name} = {value!r}: give it one in EXAMPLES")


@EACH
def test_facts_have_their_types(cfg: DatasetSettings) -> None:
    facts = {"real": bool, "name": str, "id": str, "augmentation": Augment}
    assert not wrong_facts(cfg, facts)
    assert not wrong_facts(type("Files", (), {"files": cfg.files()})(), {"files": list[str]})
    assert re.fullmatch(r"[A-Za-z0-9_]+-[0-9a-f]{8}", cfg.id), "an id is part of a path"
    assert isinstance(cfg.load(), Format)


@EACH
def test_its_files_are_said_before_any_job_starts(cfg: DatasetSettings) -> None:
    assert all(Path(path).exists() for path in cfg.files())
    known = read_labels(cfg)
    each = max(10, 0 if known is None else len(known.class_names))  # one of each class
    check_files(cfg.model_copy(update={"split": Split(val=each, shadow=each, test=each)}))


@EACH
def test_images_are_bytes_one_for_each_label(cfg: DatasetSettings) -> None:
    read = source(cfg)
    images = every(read)
    assert images.dtype == np.uint8
    assert images.ndim == 3 or images.shape[3:] == (3,)
    assert len(read.images) == len(read.labels)
    assert images.std() > 0
    assert sorted(set(read.labels.tolist())) == list(range(len(read.class_names)))


@EACH
def test_labels_that_are_known_at_once_are_those_of_the_images(cfg: DatasetSettings) -> None:
    known, read = read_labels(cfg), source(cfg)
    if known is None:
        return  # it may still have to be downloaded
    np.testing.assert_array_equal(known.labels, read.labels)
    np.testing.assert_array_equal(known.is_test, read.is_test)
    np.testing.assert_array_equal(known.is_val, read.is_val)
    assert known.class_names == read.class_names


@EACH
def test_equal_settings_give_equal_data(cfg: DatasetSettings) -> None:
    one, again = source(cfg), read_source(type(cfg)(**cfg.sparse()))
    assert re.fullmatch("[0-9a-f]{64}", one.sha256)
    assert again.sha256 == one.sha256
    np.testing.assert_array_equal(every(again), every(one))
    np.testing.assert_array_equal(again.labels, one.labels)


@EACH
def test_a_data_set_that_is_not_real_says_that_no_claim_may_rest_on_it(cfg: DatasetSettings) -> None:
    assert source(cfg).description.endswith(".")
    assert ("no claim" in source(cfg).description) == (not cfg.real)


@EACH
def test_its_id_changes_with_every_setting_but_the_augmentation(cfg: DatasetSettings) -> None:
    ids = [cfg.id]
    for name in type(cfg).model_fields:
        if name not in (DATASETS.tag, "augment") and not (name == "split" and cfg.activations):  # divided already
            ids.append(type(cfg)(**{**cfg.sparse(), **BESIDE.get(name, {}), name: another(cfg, name)}).id)
    assert len(set(ids)) == len(ids)
    assert type(cfg)(**{**cfg.sparse(), "augment": Augment(flip=True)}).id == cfg.id
