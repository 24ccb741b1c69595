"""A job of an earlier head is taken over when it is the right one, and cancelled when it is not."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from snakemake_executor_plugin_submitit.books.events import append
from snakemake_executor_plugin_submitit.cluster.slurm import Row
from snakemake_executor_plugin_submitit.head.adopt import TRIGGERS, Former, classify, identity, plain

START = {"node": "g1", "job": "7", "restarts": 0, "gpus": []}


def row(submission, state: str = "RUNNING") -> dict[str, Row]:
    return {submission.element(0): Row(state, submission.name, "")}


def end(submission, code: int = 0) -> None:
    append(submission.events(0), "start", **START)
    append(submission.events(0), "end", code=code)


def test_a_live_equal_is_adopted(make_task, enter) -> None:
    task = make_task()
    former = Former(enter(task), 0)
    assert classify(task, [former], row(former.submission), since=0) == (former, [])


def test_jobs_of_other_files_are_nobodys_business(make_task, enter) -> None:
    former = Former(enter(make_task("b")), 0)
    assert classify(make_task("a"), [former], row(former.submission), since=0) == (None, [])


def test_same_files_from_other_settings_are_out_of_date(make_task, enter) -> None:
    former = Former(enter(make_task(key="before")), 0)
    assert classify(make_task(key="after"), [former], row(former.submission), since=0) == (None, [former])


def test_a_job_that_is_gone_is_sent_again(make_task, enter) -> None:
    task = make_task()
    former = Former(enter(task), 0)
    assert classify(task, [former], {}, since=0) == (None, [former])
    assert classify(task, [former], row(former.submission, "FAILED"), since=0) == (None, [former])


def test_another_clusters_job_of_the_same_number_is_not_taken(make_task, enter) -> None:
    task = make_task()
    former = Former(enter(task), 0)
    rows = {"7": Row("RUNNING", "smk-somebody-elses", "")}
    assert classify(task, [former], rows, since=0)[0] is None


def test_half_an_array_is_not_taken(make_task, enter) -> None:
    task = make_task()
    former = Former(enter(task, whole=False), 0)
    assert classify(task, [former], row(former.submission), since=0) == (None, [former])


@pytest.mark.parametrize(("code", "before", "taken"), [(0, False, True), (0, True, False), (1, False, False)])
def test_a_result_counts_when_it_is_newer_than_the_decision_to_make_it(make_task, enter, code, before, taken) -> None:
    task = make_task()
    former = Former(enter(task), 0)
    end(former.submission, code)
    since = time.time() + (10 if before else -10)
    assert (classify(task, [former], {}, since)[0] is former) == taken


def test_a_job_is_found_by_its_name_when_its_head_died_before_noting_it(make_task, enter) -> None:
    former = Former(enter(make_task(), job_id=None), 0)
    former.find({})
    assert former.submission.job_id is None
    former.find({"31": Row("PENDING", former.submission.name, ""), "9": Row("PENDING", "other", "")})
    assert former.id == "31"


class Input(str):
    """A path as Snakemake has it."""

    is_ancient = False


class Params(list):
    """Values, and their names."""

    def items(self) -> list[tuple[str, object]]:
        return [("options", self[0])]


def rule_of(**said) -> SimpleNamespace:
    code = {"script": None, "notebook": None, "wrapper": None, "cwl": None, "run_func_src": None, "shellcmd": None}
    return SimpleNamespace(name="slow", **code | said)


def job(tmp_path, **changes) -> SimpleNamespace:
    """A job of the rule `slow` with one input."""
    made = {
        "rule": rule_of(shellcmd="x {params.options} {threads}"),
        "wildcards_dict": {},
        "output": ["slow"],
        "input": [Input(tmp_path / "in")],
        "params": Params([{"a", "b"}]),
        "shellcmd": "x a b 1",
        "is_run": False,
        "conda_env_spec": None,
        "container_img_url": None,
        "env_modules": None,
    }
    made |= changes
    return SimpleNamespace(is_group=lambda: False, non_derived_params=list(made["params"]), **made)


CHANGES = {
    "params": {"params": Params([{"a", "c"}])},
    "code": {"rule": rule_of(shellcmd="y")},
    "input": {"input": [Input("/elsewhere")]},
    "software-env": {"container_img_url": "docker://other"},
}


@pytest.mark.parametrize("trigger", CHANGES)
def test_what_is_no_rerun_trigger_is_no_part_of_a_jobs_identity(tmp_path, trigger) -> None:
    before, after = job(tmp_path), job(tmp_path, **CHANGES[trigger])
    others = set(TRIGGERS) - {trigger, "mtime"}
    assert identity(before, {trigger}) != identity(after, {trigger})
    assert identity(before, others) == identity(after, others)


@pytest.mark.parametrize("ancient", [False, True])
def test_the_time_of_an_input_counts_unless_it_is_ancient_or_no_trigger(tmp_path, ancient) -> None:
    (tmp_path / "in").touch()
    one = job(tmp_path)
    one.input[0].is_ancient = ancient
    before = [identity(one, triggers) for triggers in (TRIGGERS, ["params"])]
    os.utime(tmp_path / "in", (1, 1))
    after = [identity(one, triggers) for triggers in (TRIGGERS, ["params"])]
    assert (after[0] == before[0]) is ancient
    assert after[1] == before[1]


def test_a_command_counts_as_it_is_written_and_not_as_it_is_filled_in(tmp_path) -> None:
    """A set has another order in each process, an attempt more memory: Snakemake reruns nothing for these."""
    assert identity(job(tmp_path)) == identity(job(tmp_path, shellcmd="x b a 2"))
    other = job(tmp_path)
    other.params.append("of 4000 MB")  # which comes from resources
    assert identity(job(tmp_path)) == identity(other)


def test_what_a_command_takes_from_the_configuration_counts(tmp_path) -> None:
    rule = rule_of(shellcmd="x --lr {config[lr]} > {output}")
    found = {
        identity(job(tmp_path, rule=rule, format_wildcards=lambda text, lr=lr: text.format(config={"lr": lr})))
        for lr in (0.1, 0.2)
    }
    assert len(found) == 2


def test_which_name_has_which_value_counts(tmp_path) -> None:
    one, other = Params([1, 2]), Params([1, 2])
    one.items, other.items = (lambda: [("a", 1), ("b", 2)]), (lambda: [("b", 1), ("a", 2)])
    assert identity(job(tmp_path, params=one)) != identity(job(tmp_path, params=other))


def test_a_set_and_an_object_are_the_same_in_every_process() -> None:
    code = (
        "from snakemake_executor_plugin_submitit.head.adopt import plain\n"
        "import dataclasses\n"
        "@dataclasses.dataclass\nclass One:\n    names: object\n"
        "print(plain([{'a', 'b', 'c', 'd'}, {'x': {'e', 'f'}}, object(), One({'g', 'h'})]))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in "123"
    }
    assert len(said) == 1
    assert plain([1]) != plain((1,)) != plain({1})


def test_arrays_that_differ_where_their_repr_leaves_out_are_not_the_same() -> None:
    one, other = np.zeros(2000), np.zeros(2000)
    other[1000] = 1
    assert repr(one) == repr(other)
    assert plain({"x": one}) != plain({"x": other})
    assert plain(one) == plain(one.copy())
    assert plain(one) != plain(one.astype(np.float32))
    tables = [pd.DataFrame({"a": values}) for values in (one, other)]
    assert plain(tables[0]) != plain(tables[1])
    assert plain(tables[0]) == plain(tables[0].copy())


@pytest.mark.parametrize("kind", ["script", "notebook"])
@pytest.mark.parametrize("name", ["scripts/train.py", "scripts/{wildcards.what}.py"])
def test_a_script_is_read_where_its_rule_lies(tmp_path, kind, name) -> None:
    (tmp_path / "scripts").mkdir()
    rule = rule_of(**{kind: name}, basedir=tmp_path)
    found = []
    for text in ("print(1)", "print(2)"):
        (tmp_path / "scripts" / "train.py").write_text(text)
        made = job(tmp_path, rule=rule, format_wildcards=lambda text: text.replace("{wildcards.what}", "train"))
        found.append(identity(made, ["code"]))
    assert found[0] != found[1]


@pytest.mark.parametrize("kind", ["wrapper", "cwl"])
def test_another_wrapper_is_other_code(tmp_path, kind) -> None:
    first, second = (identity(job(tmp_path, rule=rule_of(**{kind: f"{n}/x"})), ["code"]) for n in (1, 2))
    assert first != second


def test_a_job_without_outputs_is_known_by_what_it_is(make_task, enter) -> None:
    """Two of them would do at once what is to be done once."""
    task = make_task(outputs=[])
    former, other = Former(enter(task), 0), Former(enter(make_task("b", outputs=[]), job_id="8"), 0)
    rows = {**row(former.submission), **row(other.submission)}
    assert classify(task, [other, former], rows, since=0) == (former, [])
