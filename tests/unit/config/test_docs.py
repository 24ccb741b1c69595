"""config/README.md and config/schema.json say what the settings are."""

import json
from pathlib import Path

import yaml

from cem.config import docs, parse_study
from cem.config.study import Study

CONFIG = Path(__file__).parents[3] / "config"


def test_the_pages_are_up_to_date():
    assert docs.stale(CONFIG) == [], f"run {docs.COMMAND}"


def test_a_page_that_drifted_is_found_and_made_again(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("config").mkdir()
    assert docs.main([]) == 0
    assert docs.main(["--check"]) == 0
    page = Path("config", "README.md")
    page.write_text(page.read_text(encoding="utf-8").replace("0.025", "0.026"), encoding="utf-8")
    Path("config", "schema.json").unlink()
    assert docs.main(["--check"]) == 1
    assert "config/README.md, config/schema.json. Run python -m cem.config.docs" in capsys.readouterr().err
    assert docs.main([]) == 0
    assert docs.stale(Path("config")) == []


def test_every_setting_has_a_row_with_all_its_cells():
    page = docs.readme()
    for model in docs.sections():
        section = page.split(f"\n## {model.__name__}\n")[1].split("\n## ")[0]
        rows = [line for line in section.splitlines() if line.startswith("| `")]
        assert len(rows) == len(model.model_fields)
        for name, field in model.model_fields.items():
            (row,) = [row for row in rows if row.startswith(f"| `{field.alias or name}` |")]
            cells = row.replace("\\|", "").strip("|").split("|")
            assert len(cells) == 4
            assert all(cell.strip() for cell in cells)


def test_choices_bounds_and_defaults_are_told():
    page = docs.readme()
    assert '| `precision` | `fp32`, `bf16` | `"fp32"` | number format of the forward pass |' in page
    assert "| `momentum` | number ≥ 0, &lt; 1 | `0.9` | SGD's momentum |" in page
    assert "| `max_grad_norm` | number > 0 or null | `null` |" in page
    assert "| `kind` | `gmm` | required |" in page
    assert "absent: 0.1 (bound), 16.0 (legacy)" in page
    assert "| `split` | [Split](#split) | its defaults |" in page


def test_a_cell_cannot_break_its_table():
    assert docs._escape("a|b <c>") == "a\\|b &lt;c>"


def test_links_lead_to_sections():
    page = docs.readme()
    headings = {line[3:].lower() for line in page.splitlines() if line.startswith("## ")}
    targets = {part.split(")")[0] for part in page.split("](#")[1:]}
    assert targets <= headings


def test_the_example_is_a_study_and_its_runs_are_those_shown():
    runs = parse_study(yaml.safe_load(docs.EXAMPLE), "example").runs()
    page = docs.readme()
    assert docs.EXAMPLE in page
    assert f"asks for these {len(runs)} runs" in page
    assert all(f"\n{run.id}\n" in page for run in runs)


def test_the_schema_is_closed_and_holds_every_setting():
    schema = json.loads(docs.schema())
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {field.alias or name for name, field in Study.model_fields.items()}
    assert docs.schema() == docs.schema()
