"""The command line checks a study, shows its runs, and says how far they are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cem import __version__
from cem.cli import main, site
from cem.config import load_study
from cem.jobs.work import name_work
from cem.planning.plan import Plan
from snakemake_executor_plugin_submitit.books.records import Books, Member

SURROGATES = [{"kind": "none"}, {"kind": "gmm", "formula": "legacy"}]
ATTACKS = [{"kind": "mean_image"}, {"kind": "decoder"}]


@pytest.fixture
def file(settings, tmp_path, monkeypatch) -> Path:
    """A study of two runs, in a working folder of its own."""
    monkeypatch.chdir(tmp_path)
    defenses = [{"kind": "dropout"}, {"kind": "topk", "fraction": 0.5}]
    path = Path("study.yaml")
    path.write_text(yaml.safe_dump(settings(surrogates=SURROGATES, attacks=ATTACKS, defenses=defenses)))
    return path


@pytest.fixture
def plan(file) -> Plan:
    return Plan(load_study(file))


@pytest.fixture
def cem(capsys):
    """Run a command: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as done:
            main([str(argument) for argument in arguments])
        return done.value.code, *capsys.readouterr()

    return run


def make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def lines_with(text: str, word: str) -> list[str]:
    return [line for line in text.splitlines() if word in line]


def test_a_good_study_is_one_line(cem, file, plan):
    assert cem("validate", file) == (0, f"study ok: 3 runs, 2 warm-ups, {plan.jobs().total()} jobs\n", "")


@pytest.mark.parametrize("command", ["validate", "plan", "status"])
def test_a_bad_study_is_told_whole_on_standard_error(cem, file, command):
    file.write_text(file.read_text() + "noise_std: -1\ntrainig: {}\n")
    code, out, err = cem(command, file)
    assert (code, out) == (2, "")
    assert "noise_std: input should be greater than or equal to 0" in err
    assert "trainig: unknown setting; did you mean 'training'" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("command", ["validate", "plan", "status"])
def test_the_study_is_the_default_one_unless_another_is_named(cem, file, command):
    code, out, err = cem(command)
    assert (code, out) == (2, "")
    assert "config/config.yaml: expected a study in YAML; cannot read it" in err
    Path("config").mkdir()
    file.rename("config/config.yaml")
    assert cem(command)[0] == 0


def test_plan_says_what_a_study_takes(cem, file):
    code, out, err = cem("plan", file, "--images-per-second", "100")
    assert (code, err) == (0, "")
    said = {line.partition(":")[0]: line for line in out.splitlines()}
    assert said["warm-ups"].startswith("warm-ups: 2, shared by 3 runs: 1 epochs saved")
    measured = {line.partition(":")[0]: line for line in cem("plan", file)[1].splitlines()}
    assert measured["disk"] == said["disk"]
    assert measured["time of one GPU"] != said["time of one GPU"]
    settings = yaml.safe_load(file.read_text()) | {"dataset": {"source": "npz", "name": "own", "path": "own.npz"}}
    file.write_text(yaml.safe_dump(settings))
    assert "what it takes is not known: the images of own are not here" in cem("plan", file)[1]
    assert "time of one GPU: " in cem("plan", file, "--images", "1000")[1]


def test_a_file_the_study_needs_is_missed_before_any_job(cem, file):
    settings = yaml.safe_load(file.read_text()) | {"dataset": {"source": "npz", "name": "own", "path": "own.npz"}}
    file.write_text(yaml.safe_dump(settings))
    code, out, err = cem("validate", file)
    assert (code, out) == (2, "")
    assert "own.npz" in err
    assert "Traceback" not in err
    assert cem("plan", file)[0] == 0  # what it would take can be seen without the data


def test_results_that_cannot_be_written_are_missed_before_any_job(cem, file):
    Path("results").touch()
    code, out, err = cem("validate", file)
    assert (code, out) == (2, "")
    assert "results" in err


def test_words_of_the_user_are_no_markup(cem):
    for arguments in (["validate", "[red]no[/red].yaml"], ["[red]no[/red].yaml"]):
        code, _, err = cem(*arguments)
        assert code == 2
        assert "'[red]no[/red].yaml'" in err
        assert "╭" not in err


def test_a_plan_has_a_row_a_run_and_a_row_a_rule(cem, file, plan):
    code, out, err = cem("plan", file)
    assert (code, err) == (0, "")
    first, second, reference = plan.runs
    assert lines_with(out, "added: ") == [
        f"added: {reference} (undefended reference: an attack must invert it for its numbers to count)"
    ]
    assert out.splitlines()[0].split() == ["run", "noise_std", "defenses", "surrogate"]
    assert lines_with(out, reference)[0].split()[1:] == ["0", "-", "none"]
    assert lines_with(out, first)[0].split()[1:] == ["0.025", "dropout0.2+topk0.5", "none"]
    assert lines_with(out, second)[0].split()[1:] == ["0.025", "dropout0.2+topk0.5", "gmm"]
    for rule, count in plan.jobs().items():
        assert f"{rule} {count}" in [" ".join(line.split()) for line in out.splitlines()]
    assert out.splitlines()[-1] == f"3 runs, {plan.jobs().total()} jobs"


def test_a_plan_names_no_rule_without_jobs(cem, file):
    settings = yaml.safe_load(file.read_text()) | {"attacks": [{"kind": "decoder"}]}
    file.write_text(yaml.safe_dump(settings))
    assert lines_with(cem("plan", file)[1], "baseline_attacks") == []


def test_the_columns_of_a_table_are_aligned(cem, file):
    table = cem("plan", file)[1].split("\n\n")[0].splitlines()
    for title in ("noise_std", "defenses", "surrogate"):
        start = table[0].index(title)
        assert all(line[start] != " " and line[start - 1] == " " for line in table)


def test_the_status_of_nothing_is_nothing(cem, file, plan):
    code, out, err = cem("status", file)
    assert (code, err) == (0, "")
    for run in plan.runs:
        assert lines_with(out, run)[0].split()[1:] == ["waiting", *["-"] * 5]
    assert lines_with(out, "all ")[0].split()[1:] == ["0/3"] * 6
    assert out.splitlines()[-1] == "report: not made yet"
    assert lines_with(out, "orphan") + lines_with(out, "unfinished") == []


def test_the_status_follows_the_stages(cem, file, plan):
    first, second, _ = plan.runs.values()
    for run in (first, second):
        make(plan.run(run) / "model.safetensors")
    make(plan.run(first) / "activations.h5")
    make(plan.leakage(first))
    make(plan.attack(first, "decoder") / "metrics.parquet")
    make(plan.attack(second, "decoder") / "reconstructions.h5")  # not the whole of an attack
    make(plan.report)
    out = cem("status", file)[1]
    assert lines_with(out, "run ")[0].split() == [
        "run", "state", "model", "activations", "leakage", "mean_image", "decoder",
    ]  # fmt: skip
    assert lines_with(out, first.id)[0].split()[1:] == ["waiting", "done", "done", "done", "-", "done"]
    assert lines_with(out, second.id)[0].split()[1:] == ["waiting", "done", "-", "-", "-", "-"]
    assert lines_with(out, "all ")[0].split()[1:] == ["0/3", "2/3", "1/3", "1/3", "0/3", "1/3"]
    assert out.splitlines()[-1] == "report: results/test/report.html"
    told = json.loads(cem("status", file, "--json")[1])
    assert told["runs"][0]["stages"] == {"model": True, "activations": True, "leakage": True}
    assert told["runs"][0]["attacks"] == {"mean_image": False, "decoder": True}
    assert told["done"]["runs"] == {"done": 0, "of": 3}
    assert told["done"]["stages"]["model"] == {"done": 2, "of": 3}
    assert told["done"]["attacks"]["decoder"] == {"done": 1, "of": 3}


def write_verdicts(plan: Plan, *rows: tuple[str, str, bool, bool, str]) -> None:
    lines = ["run,attack,scope,attack_ok,attack_bound,attack_weak,attack_verdict"]
    lines += [
        f'{run},{attack},infer,{ok},{bound},{why.startswith("weak")},"{why}"' for run, attack, ok, bound, why in rows
    ]
    make(plan.folder / "results.csv")
    (plan.folder / "results.csv").write_text("\n".join(lines) + "\n")


def test_a_failed_attack_is_told_and_is_the_exit_code(cem, file, plan):
    first, second, _ = plan.runs
    why = "does not invert the undefended reference: its MSE there is 0.99"
    write_verdicts(plan, (first, "decoder", False, False, why), (second, "decoder", True, False, ""))
    code, out, _ = cem("status", file)
    assert code == 1
    assert lines_with(out, "attack failed") == [f"attack failed: decoder on {first}: {why}"]


def test_only_failed_fits_of_this_study_are_an_error(cem, file, plan):
    first, second, _ = plan.runs
    why = "had not converged"
    write_verdicts(
        plan,
        (first, "decoder", False, True, why),  # a limit, not a failure
        (second, "decoder", False, False, "weak: others come closer"),
        (second, "mean_image", False, False, "a baseline has no fit to repair"),
        ("old/run", "decoder", False, False, "no longer planned"),
    )
    code, out, _ = cem("status", file)
    assert code == 0
    assert lines_with(out, "upper limit") == [f"upper limit: decoder on {first}: {why}"]
    assert lines_with(out, "weak attack") == [f"weak attack: decoder on {second}: others come closer"]
    assert len(lines_with(out, "attack failed")) == 1


def test_one_reason_on_several_runs_is_one_line_unless_an_attack_failed(cem, file, plan):
    first, second, _ = plan.runs
    write_verdicts(
        plan,
        *((run, "decoder", False, False, "weak: others come closer") for run in (first, second)),
        *((run, "mean_image", False, False, "broke down") for run in (first, second)),
    )
    _, out, _ = cem("status", file)
    assert lines_with(out, "weak attack") == ["weak attack: decoder on 2 runs: others come closer"]
    assert len(lines_with(out, "attack failed")) == 2


def test_results_without_verdicts_are_named(cem, file, plan):
    make(plan.folder / "results.csv")
    (plan.folder / "results.csv").write_text("run,attack,scope\na,b,infer\n")
    code, _, err = cem("status", file)
    assert code == 2
    assert "results.csv: expected the verdict on each attack, found none. Make it anew: cem report FILE" in err


def test_orphans_and_unfinished_trainings_are_listed(cem, file, plan):
    (first, *_) = plan.runs.values()
    make(plan.run(first) / "model.safetensors")
    make(plan.folder / "runs" / "old" / "none" / "s0-0000" / "model.safetensors")
    name_work(plan.root / ".state" / "0123456789abcdef", plan.run(first))
    name_work(plan.root / ".state" / "fedcba9876543210", plan.root / "other" / "runs" / "a")
    out = cem("status", file)[1]
    (orphan,) = lines_with(out, "orphan")
    assert orphan.startswith("orphan: results/test/runs/old/none/s0-0000 ")
    assert "in no table; may be deleted" in orphan
    (state,) = lines_with(out, "unfinished")
    assert state == f"unfinished: {plan.run(first)} (the next run goes on from: results/.state/0123456789abcdef)"


def test_an_attack_that_is_no_longer_planned_is_an_orphan_and_nothing_goes_on_from_its_state(cem, file, plan):
    (first, *_) = plan.runs.values()
    make(plan.run(first) / "model.safetensors")
    for name in ("decoder", "gan"):
        make(plan.attack(first, name) / "metrics.parquet")
        name_work(plan.root / ".state" / name, plan.attack(first, name))
    out = cem("status", file)[1]
    (orphan,) = lines_with(out, "orphan")
    told = json.loads(cem("status", file, "--json")[1])
    assert told["orphans"] == [{"path": str(plan.attack(first, "gan")), "why": "not in this study"}]
    assert [one["planned"] for one in told["unfinished"]] == [True, False]
    assert orphan.startswith(f"orphan: {plan.attack(first, 'gan')} (not in this study")
    planned, other = lines_with(out, "unfinished")
    assert planned == f"unfinished: {plan.attack(first, 'decoder')} (the next run goes on from: results/.state/decoder)"
    assert "not in this study, so nothing goes on from it; may be deleted: results/.state/gan)" in other


def test_a_failed_run_is_told_with_its_log_and_is_the_exit_code(cem, file, plan):
    first, *_ = plan.runs
    log = Path("logs/test") / first / "train.log"
    make(log)
    log.write_text("TrainingError: epoch 1: [bold]nan[/bold]\n")
    code, out, _ = cem("status", file)
    assert code == 1
    assert f"{first}: failed: train, TrainingError: epoch 1: [bold]nan[/bold]\n  log: {log}\n" in out
    code, out, _ = cem("status", file, "--json")
    told = json.loads(out)
    assert code == 1
    assert told["failed"]
    assert told["runs"][0] == {
        "run": first, "state": "failed", "rule": "train", "cause": "TrainingError: epoch 1: [bold]nan[/bold]",
        "log": str(log), "epoch": None, "epochs": None, "eta_s": None,
        "stages": {"model": False, "activations": False, "leakage": False},
        "attacks": {"mean_image": False, "decoder": False},
    }  # fmt: skip
    assert [one["state"] for one in told["runs"][1:]] == ["waiting", "waiting"]
    assert told["report"] == {"path": None, "older_than": []}


def test_a_report_that_is_older_than_a_result_is_told(cem, file, plan):
    (first, *_) = plan.runs.values()
    make(plan.report)
    make(plan.run(first) / "model.safetensors")
    os.utime(plan.report, (1, 1))
    older = "older than the results of 1 runs: run the workflow, or cem report study.yaml"
    assert cem("status", file)[1].splitlines()[-1] == f"report: results/test/report.html ({older})"
    file, place = file.rename("my study.yaml"), Path("results").rename("other")
    assert "or cem report 'my study.yaml' --results other)" in cem("status", file, "--results", place)[1]


def test_a_report_of_nothing_names_the_runs(cem, file, plan):
    code, out, _ = cem("report", file)
    assert code == 1
    assert [line.split(": ")[1] for line in out.splitlines()[:3]] == ["waiting"] * 3
    assert out.splitlines()[-1] == "report of the 0 finished of 3 runs: results/test/report.html"
    assert "None of 3 runs has a result" in plan.report.read_text()


def test_the_results_may_be_elsewhere(cem, file, tmp_path):
    plan = Plan(load_study(file), tmp_path / "other place")
    make(plan.report)
    assert cem("status", file, "--results", tmp_path / "other place")[1].endswith(f"report: {plan.report}\n")


def test_results_that_lie_beside_the_study_and_not_here_are_told(cem, file, plan, tmp_path, monkeypatch):
    make(plan.run(next(iter(plan.runs.values()))) / "model.safetensors")
    make(Path("config/study.yaml"))
    file = file.rename("config/study.yaml").absolute()
    assert "none here" not in cem("status", file)[1]
    assert json.loads(cem("status", file, "--json")[1])["elsewhere"] is None
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    said = f"results of this study: none here, but there are some in {tmp_path}/results: cd {tmp_path}"
    assert cem("status", file)[1].splitlines()[-1] == said
    assert json.loads(cem("status", file, "--json")[1])["elsewhere"] == str(tmp_path)
    assert "none here" not in cem("status", file, "--results", "elsewhere")[1]


def test_a_command_that_does_not_exist_is_an_error(cem):
    code, _, err = cem("validat")
    assert code == 2
    assert "validate" in err


def test_failed_and_open_cluster_jobs_are_in_the_status(cem, file, plan):
    first, second, _ = plan.runs.values()
    plain = {"key": "k", "rule": "train", "attempt": 2, "cause": "time limit on g1", "node": "g1", "log": "a b/log.out"}
    members = [
        Member(**plain, outputs=[str(plan.run(run) / "model.safetensors")], state=state)
        for run, state in ((first, "failed"), (second, "open"))
    ]
    books = Path(".snakemake/submitit")
    Books(books).open("scope", {}, members)
    make(books / "jobs/smk-2/record.json")
    out = cem("status", file)[1]
    assert f"failed on the cluster: train of {first.id} on g1, attempt 2: time limit on g1\n  log: a b/log.out\n" in out
    assert lines_with(out, "open on the cluster")[0].startswith("open on the cluster: 1 ")
    assert "smk-2/record.json: expected a record of version 1" in lines_with(out, "record not read")[0]
    (unread,) = json.loads(cem("status", file, "--json")[1])["cluster"]["unread"]
    assert "smk-2/record.json: expected a record of version 1" in unread


def test_the_cuts_of_an_architecture_are_shown(cem):
    code, out, _ = cem("models", "vgg11", "--bottleneck", "C8S1")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert rows[4][:4] == ["vgg11", "4", "8×8×8", "85,256"]
    code, out, _ = cem("models", "torchvision:resnet18@layer1", "--side", 64, "--json")
    (row,) = json.loads(out)
    assert (code, row["cut"], row["z"]) == (0, "layer1", [8, 16, 16])
    code, out, err = cem("models", "torchvision:resnet18@layr1")
    assert (code, out) == (2, "")
    assert "none called 'layr1'; near it: layer1" in err


def test_what_a_data_set_needs_is_shown(cem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = cem("data")
    assert code == 0
    assert lines_with(out, "lfw")[0].split()[-1] == "no"
    code, out, _ = cem("data", "celeba", "--json")
    found = json.loads(out)
    assert (code, found["found"]) == (0, "no")
    assert str(tmp_path / "data/celeba/img_align_celeba") in found["looks_in"]
    code, out, err = cem("data", "lfv")
    assert (code, out) == (2, "")
    assert "did you mean lfw?" in err


def test_a_profile_is_installed_and_shown(cem, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "it's [red]config[/red]"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "it's [red]config[/red]/snakemake/slurm/config.yaml"
    code, out, err = cem("profile", "show")
    assert (code, out) == (2, "")
    assert "cem profile install slurm" in err
    assert cem("profile", "install", "slurm", "--account", "lab") == (0, f"{path} installed\n", "")
    assert cem("profile", "show")[1] == f"file: {path}\naccount: lab\nstate: as installed\n"
    told = {"file": str(path), "settings": {"account": "lab"}, "state": "as installed"}
    assert json.loads(cem("profile", "show", "--json")[1]) == told
    path.write_text(path.read_text() + "\n")
    assert cem("profile", "install", "slurm")[0] == 2
    assert cem("profile", "show")[1].endswith("state: edited, or not installed by cem\n")
    assert cem("profile", "install", "slurm", "--force", "--account", "")[0] == 0
    assert cem("profile", "show")[1] == f"file: {path}\nstate: as installed\n"
    Path("slurm").mkdir()
    assert "hides it" in cem("profile", "install", "slurm")[2]


@pytest.mark.parametrize(("level", "expected"), [("ok", 0), ("warning", 0), ("problem", 1)])
def test_the_doctor_ends_with_1_on_a_problem_alone(cem, monkeypatch, level, expected):
    findings = [site.Finding("ok", "a", "b"), site.Finding(level, "[red]", "d", "do this")]
    monkeypatch.setattr(site, "examine", lambda *_: iter(findings))
    code, out, err = cem("doctor", "--no-probe")
    assert (code, err) == (expected, "")
    assert f"{level:<8} [red]: d\n         do this\n" in out


def test_the_doctor_tries_hdf5_where_the_jobs_work(cem, tmp_path, monkeypatch):
    def examine(program, partition, profile, probe, wait, more):
        return more(tmp_path)

    monkeypatch.setattr(site, "examine", examine)
    assert cem("doctor")[1].startswith("ok       hdf5: written and read")
    monkeypatch.setattr("cem.storage.hdf5.write_file", lambda *_: (tmp_path / "none" / "file").open())
    code, out, _ = cem("doctor")
    assert code == 1
    assert "problem  hdf5: expected to write and read an HDF5 file, cannot: [Errno 2]" in out


def test_the_version_is_said(cem):
    assert cem("--version") == (0, f"cem {__version__}\n", "")


@pytest.mark.parametrize("command", [(), ("doctor",), ("profile",), ("profile", "install")])
def test_help_has_a_short_name(cem, command):
    code, out, _ = cem(*command, "-h")
    assert code == 0
    assert out == cem(*command, "--help")[1]
    assert "-h, --help" in out


@pytest.mark.parametrize("command", ["validate", "plan", "status", "--help", "data", "new"])
def test_no_command_needs_torch_or_two_seconds(file, command):
    program = (
        "import json, sys, time\nfrom cem.cli import main\n"
        "try: main()\nexcept SystemExit as done: code = done.code\n"
        "loaded = [name for name in ('torch', 'sklearn', 'pandas') if name in sys.modules]\n"
        "print(json.dumps([code, loaded, time.process_time()]))"
    )
    words = {"--help": [], "data": [], "new": ["mine", "--template", "data"]}.get(command, [str(file)])
    done = subprocess.run([sys.executable, "-c", program, command, *words], capture_output=True, text=True, timeout=60)
    code, loaded, seconds = json.loads(done.stdout.splitlines()[-1])
    assert (code, loaded) == (0, []), done.stderr
    assert seconds < 2
