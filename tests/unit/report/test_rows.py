"""Tables of results that a spreadsheet, or a full disk, has changed: named on one line, with what makes them again."""

from pathlib import Path

import pytest
import yaml

from cem.cli import main
from cem.config import load_study
from cem.planning.plan import Plan

DAMAGED = {
    "latin": (b"run,attack\nr\xe9sultat,a\n", "expected a table in CSV and UTF-8; cannot read it: 'utf-8' codec"),
    "long": (b"run\n" + b"x" * 200_000, "expected a table in CSV and UTF-8; cannot read it: field larger"),
    "short": (b"run,attack\na,b\na\n", "expected 2 values in each row, found others in row 2"),
    "wide": (b"run,attack\na,b,c\n", "expected 2 values in each row, found others in row 1"),
    "semicolons": (b"run;attack\na;b\n", "found "),
    "nothing": (b"\0\0\0\n\0\n", "found "),
}


@pytest.fixture
def study(settings, tmp_path, monkeypatch) -> Plan:
    """A study with the folder of one run."""
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(yaml.safe_dump(settings()))
    plan = Plan(load_study("study.yaml"))
    plan.run(next(iter(plan.runs.values()))).mkdir(parents=True)
    return plan


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize(("command", "name"), [("status", "results"), ("show", "results"), ("compare", "runs")])
def test_a_table_that_cannot_be_read_is_named_with_what_makes_it_again(study, capsys, command, name, damage):
    data, said = DAMAGED[damage]
    (study.folder / f"{name}.csv").write_bytes(data)
    with pytest.raises(SystemExit) as done:
        main([command, next(iter(study.runs)) if command == "show" else "study.yaml"])
    out, err = capsys.readouterr()
    assert (done.value.code, out) == (2, "")
    assert err.startswith(f"{study.folder}/{name}.csv: expected ")
    assert said in err
    assert err.endswith("Make it anew: cem report FILE\n")
    assert err.count("\n") == 1
