"""`snakemake --report`: tables, figures and the page with their captions, by category."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cem.report.page import write_report
from cem.report.results import aggregate

from .conftest import STUDY, write_study

SNAKEFILE = Path(__file__).parents[3] / "Snakefile"


@pytest.mark.workflow
def test_snakemakes_report_has_all_of_ours_with_captions(tmp_path):
    plan = write_study(tmp_path, STUDY + "training: {batch_size: 16}\n")
    aggregate(plan, plan.folder / "results.parquet", plan.folder / "results.csv", plan.folder / "runs.csv")
    write_report(plan, plan.folder / "results.parquet", plan.report, plan.folder / "figures", plan.folder / "tables")
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--configfile", "study.yaml"]
    done = subprocess.run([*words, "--report", "all.html"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "all.html").read_text(encoding="utf-8")
    told = dict(re.findall(r'"(results/fake/[^"]+)": \{"name": "[^"]*".{0,400}?"caption": "<p>(.*?)</p>', html))
    ours = [plan.report, *(plan.folder / name for name in ("results.csv", "runs.csv"))]
    ours += [path for kind in ("figures", "tables") for path in (plan.folder / kind).glob("*")]
    kept = [path for path in ours if path.suffix in (".html", ".csv", ".svg", ".png", ".tex")]
    assert [path for path in kept if path.relative_to(tmp_path).as_posix() not in told] == []
    assert told["results/fake/tables/paper.tex"].startswith("paper: a table of the report.")
    drawn = {Path(path).stem: text for path, text in told.items() if path.startswith("results/fake/figures/")}
    assert "epoch by epoch" in drawn["terms"] if "terms" in drawn else "training" in drawn
    assert drawn["attack_decoder"].startswith("attack_decoder: The error of this attack while it was fitted")
    assert [name for name, text in drawn.items() if "a figure of the report" in text] == []
    for category in ("Report", "Results", "Figures", "Tables"):
        assert f'"{category}"' in html
