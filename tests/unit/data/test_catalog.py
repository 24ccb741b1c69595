"""What `cem data` says of sources and sets."""

import json
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter

from cem.cli import main
from cem.config import DATASETS, Dataset, TorchvisionDataset
from cem.data import catalog

KNOWN = [pytest.param(one, id=one.name) for one in catalog.SETS]


@pytest.mark.parametrize("one", KNOWN)
def test_the_settings_of_each_set_are_a_data_set(one: catalog.Known) -> None:
    dataset = TypeAdapter(Dataset).validate_python(yaml.safe_load(one.study))
    assert dataset.name == one.name


@pytest.mark.parametrize("one", KNOWN)
def test_a_set_is_found_where_it_looks(
    one: catalog.Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if one.files:
        assert one.found == "no"
        for file in one.files:
            (tmp_path / file).mkdir(parents=True)
        assert one.found == "yes"
    main_without_exit(["data", one.name])
    said = capsys.readouterr().out
    assert all(str(tmp_path / file) in said for file in one.files)
    assert one.get in said


def main_without_exit(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert not ended.value.code


def test_all_sources_and_sets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main_without_exit(["data"])
    said = capsys.readouterr().out
    names = [*DATASETS.members, *(one.name for one in catalog.SETS)]
    assert all(f"\n{name} " in f"\n{said}" for name in names)
    main_without_exit(["data", "--json"])
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for group in listed.values() for one in group] == names


def test_every_set_of_torchvision_is_known() -> None:
    choices = TorchvisionDataset.model_json_schema()["properties"]["dataset"]["enum"]
    assert set(choices) <= {one.name for one in catalog.SETS}


def test_an_unknown_name_ends_with_2_and_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["data", "celebA2"])
    assert ended.value.code == 2
    assert "celebA2: expected a source or a data set; did you mean celeba?" in capsys.readouterr().err
