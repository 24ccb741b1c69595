"""Cleaning: runs that no study plans and states that nothing goes on from, and nothing else."""

import io
import json
import os
from pathlib import Path

import pytest
import yaml

from cem.cli import main
from cem.config import load_study
from cem.jobs.attempts import HEARTBEAT
from cem.jobs.work import name_work
from cem.planning.leftover import CleanError, Folder, Leftover, remove, study_files
from cem.planning.plan import Plan

OLD = "mnist5k-vgg11-c4/noise0/old/s0-000000000000"


@pytest.fixture
def plan(settings, tmp_path, monkeypatch) -> Plan:
    """A study with the results of one planned run, and of one that is planned no more."""
    monkeypatch.chdir(tmp_path)
    path = Path("config/config.yaml")
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(settings()))
    plan = Plan(load_study(path))
    make(plan.run(next(iter(plan.runs.values()))) / "model.safetensors")
    make(plan.folder / "runs" / OLD / "model.safetensors", 2000)
    make(plan.folder / "runs" / OLD / "attacks" / "decoder" / "weights.safetensors")
    return plan


@pytest.fixture
def clean(capsys):
    def run(*words: str) -> tuple[int, str, str]:
        try:
            main(["clean", *words])
        except SystemExit as done:
            code = done.code
        return code, *capsys.readouterr()

    return run


def make(path: Path, size: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return path


def files(folder: Path | str = "results") -> set[Path]:
    return {path for path in Path(folder).rglob("*") if path.is_file()}


def test_what_no_study_plans_is_shown_with_its_size_and_deleted_alone(plan, clean):
    kept = {path for path in files() if "old" not in path.parts}
    code, out, _ = clean("--yes")
    assert code == 0
    assert f"results/test/runs/{OLD}: no study plans it, 2.0 kB\n" in out
    assert out.endswith("deleted 1 folders, 2.0 kB\n")
    assert files() == kept
    assert not (plan.folder / "runs/mnist5k-vgg11-c4/noise0").exists()  # empty folders go, too
    assert clean("--yes")[1] == "0 folders to delete, 0 bytes\n"


def test_a_dry_run_and_json_alone_delete_nothing(plan, clean):
    before = files()
    assert "1 folders to delete" in clean("--dry-run")[1]
    found = json.loads(clean("--json")[1])
    assert found["folders"] == [{"path": f"results/test/runs/{OLD}", "why": "no study plans it", "bytes": 2000}]
    assert clean("--dry-run", "--yes")[0] == 0
    assert files() == before


@pytest.mark.parametrize(("answer", "code"), [("n\n", 1), ("y\n", 0), ("", 1)])
def test_it_asks_first(plan, clean, monkeypatch, tmp_path, answer, code):
    (tmp_path / "answer").write_text(answer)
    before = files()
    with (tmp_path / "answer").open() as typed:
        monkeypatch.setattr("sys.stdin", typed)
        assert clean()[0] == code
    assert (files() == before) == (code == 1)


def test_ctrl_c_at_the_question_is_told_from_a_no(plan, clean, monkeypatch):
    class Interrupted(io.StringIO):
        def readline(self, *_) -> str:
            raise KeyboardInterrupt

    before = files()
    monkeypatch.setattr("sys.stdin", Interrupted())
    code, out, _ = clean()
    assert (code, out.splitlines()[-1]) == (130, "nothing was deleted")
    assert files() == before


@pytest.mark.parametrize("name", ["config/other.yaml", "config/other.yml"])
def test_what_another_study_of_the_same_name_plans_is_kept(plan, clean, settings, name):
    other = settings(noise_std=0.5)
    Path(name).write_text(yaml.safe_dump(other))
    theirs = next(iter(Plan(load_study(name)).runs.values()))
    make(plan.run(theirs) / "model.safetensors")
    assert theirs.id not in clean("--dry-run")[1]
    Path(name).unlink()
    assert theirs.id in clean("--dry-run")[1]


def test_a_hidden_folder_above_hides_no_study(tmp_path):
    place = tmp_path / ".cache" / "config"
    for name in ("a.yaml", "deeper/b.yml", ".hidden/c.yaml"):
        make(place / name)
    assert study_files([place]) == [place / "a.yaml", place / "deeper/b.yml"]


def test_weights_that_a_study_starts_from_are_kept(plan, clean, settings):
    weights = f"results/test/runs/{OLD}/attacks/decoder/weights.safetensors"
    attacks = [{"kind": "mean_image"}, {"kind": "decoder", "weights": weights}]
    Path("config/other.yaml").write_text(yaml.safe_dump(settings(name="starts", attacks=attacks)))
    code, out, _ = clean("--yes")
    assert code == 0
    assert f"kept: results/test/runs/{OLD}: no study plans it, but one names" in out
    assert Path(weights).is_file()


@pytest.mark.parametrize("name", ["name: test", 'name: "test"', "name:  test", '"name": test'])
def test_nothing_is_deleted_beside_a_study_of_that_name_that_cannot_be_read(plan, clean, name):
    Path("config/broken.yaml").write_text(f"{name}\nnoise_std: -1\n")
    before = files()
    code, _, err = clean("--yes")
    assert code == 2
    assert "config/broken.yaml" in err
    assert files() == before


def test_nothing_is_deleted_while_a_workflow_is_at_work(plan, clean):
    make(Path(".snakemake/locks/0.input.lock"))
    code, _, err = clean("--yes")
    assert code == 2
    assert "expected no workflow at work" in err
    assert "Snakefile --cores all --configfile config/config.yaml --unlock" in err
    assert Path(f"results/test/runs/{OLD}").is_dir()


def test_what_a_link_leads_out_of_the_results_to_is_kept(plan, clean, tmp_path):
    place, outside = Path("results/test"), tmp_path / "scratch"
    place.rename(outside)
    place.symlink_to(outside)
    code, out, _ = clean("--yes")
    assert code == 0
    assert "it lies outside of results" in out
    assert files(outside)


def test_a_link_inside_is_deleted_and_not_what_it_leads_to(plan, clean, tmp_path):
    precious = make(tmp_path / "precious" / "file")
    (plan.folder / "runs" / OLD / "link").symlink_to(precious.parent)
    assert clean("--yes")[0] == 0
    assert precious.is_file()
    assert not (plan.folder / "runs" / OLD).exists()


def test_only_folders_below_the_results_are_deleted(tmp_path):
    outside = make(tmp_path / "outside" / "file")
    (tmp_path / "results").mkdir()
    for path in (outside.parent, tmp_path / "results", tmp_path / "results" / ".." / "outside"):
        with pytest.raises(CleanError, match="expected a folder below"):
            remove(Leftover(tmp_path / "results", [Folder(path, "", 0)], []))
    assert outside.is_file()


def test_of_states_those_that_nothing_goes_on_from_are_deleted(plan, clean):
    planned = plan.run(next(iter(plan.runs.values())))

    def state(name: str, makes: Path, modified: float) -> Path:
        folder = Path("results/.state") / name
        make(folder / "state.safetensors")
        name_work(folder, makes)
        os.utime(folder, (modified, modified))
        return folder

    older, newer = state("aa", planned, 1), state("bb", planned, 2)
    gone, foreign = state("cc", plan.folder / "runs" / OLD, 1), state("dd", Path("results/another/runs/x"), 1)
    running = state("ee", plan.folder / "runs" / OLD / "attacks" / "gan", 1)
    (running / "attempts.json").write_text('[{"ended": ""}]')
    make(running / HEARTBEAT)
    code, out, _ = clean("--yes")
    assert code == 0
    assert f"{older}: an older state of {planned}" in out
    assert [path.exists() for path in (older, gone, newer, foreign, running)] == [False, False, True, True, True]


def test_an_attack_that_no_study_plans_is_deleted_with_its_state(plan, clean, settings):
    """The run that it was on stays; an attack that another study of the same name plans stays, too."""
    run = next(iter(plan.runs.values()))
    names = [*(attack.id for attack in plan.attacks(run)), "gan", "flow"]
    for name in names:
        make(plan.attack(run, name) / "metrics.parquet")
        name_work(Path("results/.state") / name, plan.attack(run, name))
    Path("config/other.yaml").write_text(yaml.safe_dump(settings(attacks=[{"kind": "mean_image"}, {"kind": "flow"}])))
    assert clean("--yes")[0] == 0
    for place in (plan.attack(run, "x").parent, Path("results/.state")):
        assert {path.name for path in place.iterdir()} == {*names} - {"gan"}
    assert (plan.run(run) / "model.safetensors").is_file()
