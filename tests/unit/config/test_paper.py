"""The studies of config/paper hold every row of the published tables, with the published settings."""

import re
from pathlib import Path

import pytest

from cem.config import load_study
from cem.config.presets import PRESETS
from cem.report.published import attack_differences, differences, is_published, row_of, rows

PAPER = Path(__file__).parents[3] / "config/paper"
ABSENT = {("cifar100", "No_defense")}  # from the tables
STUDIES = {file.stem: load_study(file) for file in PAPER.glob("*.yaml")}


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "tinyimagenet", "facescrub"])
def test_a_study_has_three_seeds_of_every_row_as_published(dataset):
    runs = STUDIES[dataset].runs()
    of_rows = [(run, row) for run in runs if (row := row_of(run)) is not None]
    found = [row for _, row in of_rows]
    asked = [row for row in rows() if row.dataset == dataset and (dataset, row.preset) not in ABSENT]
    assert {row.label: found.count(row) for row in found} == {row.label: 3 for row in asked}
    assert [text for run, row in of_rows for text in differences(run, row)] == []


@pytest.mark.parametrize("dataset", STUDIES)
def test_a_study_has_attention_beside_every_row_with_cem(dataset):
    runs = STUDIES[dataset].runs()
    beside = {(run.defenses, run.noise_std) for run in runs if row_of(run) is None}
    assert beside == {(run.defenses, run.noise_std) for run in runs if (row := row_of(run)) and row.cem}
    assert all(run.surrogate.member == "attention" for run in runs if row_of(run) is None)


@pytest.mark.parametrize("dataset", STUDIES)
def test_the_attacks_are_the_published_ones(dataset):
    attacks = {attack.id: attack for attack in STUDIES[dataset].attacks}
    decoder, gan = attacks["decoder"], attacks["gan"]
    assert (decoder.net, decoder.epochs, decoder.lr, decoder.batch_size) == ("res_normN8C64", 50, 1e-3, 256)
    assert (gan.net, gan.epochs, gan.batch_size, gan.mse_weight) == ("res_normN8C64", 150, 128, 1500)
    assert {attack.data for attack in attacks.values()} == {"private"}
    assert is_published(decoder)
    assert is_published(gan)
    assert attack_differences(decoder) == attack_differences(gan) == []


def cells():
    """Row of the table, and the ids that the page says it has."""
    for line in (PAPER / "README.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        for column, cell in enumerate(cells[1:]):
            if found := re.fullmatch(r"`(?P<place>/\S+/)s0-…`", cell):
                yield cells[0], column, found["place"]


def test_the_page_names_the_runs_of_every_cell():
    listed = list(cells())
    assert {name for name, *_ in listed} == set(PRESETS)
    for dataset, study in STUDIES.items():
        for name, column, place in listed:
            there = [row_of(run) for run in study.runs() if re.fullmatch(rf"[\w-]+{re.escape(place)}s\d-\w+", run.id)]
            if (dataset, name) not in ABSENT:
                assert len(there) == 3
                assert all((row is None) == (column == 2) for row in there)
                assert all((row.preset, row.cem) == (name, column == 1) for row in there if row is not None)
