"""What a row looks like, the same in every chart of a page."""

from pathlib import Path

from cem.report.front_drawing import front
from cem.report.groups import group_plan
from cem.report.looks import looks_of
from cem.report.pictures import PLAIN
from cem.report.results import gather
from cem.report.scores import Scores
from cem.report.threat import threat_models

from .conftest import STUDY, write_study

WEIGHTS = (3.0, 0.1, 1.0, 0.3)


def test_a_method_has_one_colour_on_the_whole_page_and_its_strengths_differ(tmp_path: Path) -> None:
    methods = "".join(f"  - {{kind: gmm, weight: {weight}}}\n" for weight in WEIGHTS)
    plan = write_study(tmp_path, STUDY.replace("  - {kind: gmm}\n", methods))
    groups = group_plan(plan)
    looks = looks_of(groups)
    assert looks.keys() == {group.label for group in groups}
    assert len(set(looks.values())) == len(groups)
    gmm = [looks[f"gmm-bound-w{weight:g}"] for weight in sorted(WEIGHTS)]
    assert len({one.colour for one in gmm}) == 1
    assert [one.line for one in gmm] == ["-", "--", "-.", "-"]
    assert len({one.marker for one in gmm}) == len(WEIGHTS)
    assert {looks[label].colour for label in ("none", "undefended reference")} == {PLAIN}
    results, _ = gather(plan)
    drawn = front(groups, results, threat_models(plan)[0], Scores(plan))
    assert drawn is not None
    plain, *families = drawn.families
    assert plain.colour == "var(--ink)"
    colours = {one.colour.partition(", ")[2].removesuffix(")") for one in families}
    assert colours == {look.colour for look in looks.values()} - {PLAIN}
