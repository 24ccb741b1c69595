"""A profile is installed whole, keeps a site's settings, and names only what the executor knows."""

import dataclasses
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml

from snakemake_executor_plugin_submitit.cluster.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.site import profile as profiles
from snakemake_executor_plugin_submitit.site.profile import ProfileError, find, is_untouched, site_settings, user_folder
from snakemake_executor_plugin_submitit.site.program import Program, SiteError

PROGRAM = Program("cem", setup="make .venv/ready")
install, shipped = partial(profiles.install, program=PROGRAM), partial(profiles.shipped, program=PROGRAM)
EVERY = {
    "account": "lab_1",
    "partition": "cpu,long",
    "gpu-partition": "gpu",
    "qos": "normal",
    "constraint": "a100|h100&ib",
    "wckey": "key_1",
    "gres": "gpu:a100:{gpus}",
    "no-gpu": "true",
    "setup": "module load cuda\nsource '/shared/it's \"mine\"/$(date)'",
    "python": "apptainer exec --nv /shared/cem.sif python",
}


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """Snakemake's configuration folder, in a place whose name is hostile."""
    folder = tmp_path / """it's "my" $(home)"""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "none"))
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return folder / "snakemake"


def test_the_shipped_profile_names_only_settings_of_the_executor() -> None:
    text = shipped("slurm").read_text()
    named = set(re.findall(r"(?m)^(?:# )?submitit-([a-z-]+):", text))
    known = {field.name.replace("_", "-") for field in dataclasses.fields(ExecutorSettings)}
    assert named <= known
    assert set(profiles.SITE) <= named


def test_the_shipped_profile_has_no_cap_and_no_empty_value() -> None:
    content = yaml.safe_load(shipped("slurm").read_text())
    assert content["executor"] == "submitit"
    assert "cores" not in content
    assert all(value not in ("", None) for value in content.values())  # "" would become the profile's own folder
    assert site_settings(shipped("slurm")) == {}


def test_a_choice_of_the_profile_is_one_the_executor_offers() -> None:
    content = yaml.safe_load(shipped("slurm").read_text())
    for field in dataclasses.fields(ExecutorSettings):
        value = content.get(f"submitit-{field.name.replace('_', '-')}")
        if value is not None:
            assert value in field.metadata.get("choices", [value])


def test_the_folder_is_the_one_snakemake_looks_in(home) -> None:
    program = "from snakemake.common import get_appdirs; print(get_appdirs().user_config_dir)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"{user_folder()}\n" == f"{home}\n"


def test_every_setting_comes_back_as_it_was_given(home) -> None:
    path, done = install("slurm", EVERY)
    assert (path, done) == (home / "slurm/config.yaml", "installed")
    assert site_settings(path) == EVERY
    assert is_untouched(path.read_text())
    shipped_content = yaml.safe_load(shipped("slurm").read_text())
    assert yaml.safe_load(path.read_text()).items() >= shipped_content.items()


def test_installed_again_it_keeps_what_is_not_named(home) -> None:
    install("slurm", EVERY)
    assert install("slurm", {})[1] == "is up to date"
    path, done = install("slurm", {"qos": "", "account": "lab_2"})
    assert done == "replaced"
    assert site_settings(path) == {key: value for key, value in EVERY.items() if key != "qos"} | {"account": "lab_2"}


def test_an_edited_one_is_not_replaced_without_force(home) -> None:
    path, _ = install("slurm", {"account": "lab_1"})
    edited = path.read_text().replace("jobs: 500", "jobs: 7")
    path.write_text(edited)
    with pytest.raises(ProfileError, match=r"(?s)-jobs: 7\n.*\+jobs: 500\n.*--force"):
        install("slurm", {"account": "lab_2"})
    assert path.read_text() == edited
    assert install("slurm", {"partition": "cpu"}, force=True)[1] == "replaced"
    assert site_settings(path) == {"account": "lab_1", "partition": "cpu"}


def test_one_that_is_no_yaml_is_replaced_by_force_alone(home) -> None:
    path, _ = install("slurm", {})
    path.write_text("a: [")
    with pytest.raises(ProfileError, match="expected a profile in YAML"):
        install("slurm", {})
    assert install("slurm", {}, force=True)[1] == "replaced"
    assert is_untouched(path.read_text())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("account", "a b"),
        ("partition", "$(reboot)"),
        ("qos", "a\nb"),
        ("constraint", "-p"),
        ("account", "{gpus}"),
        ("gres", "gpu:{type}:{gpus}"),
        ("gpu-partition", "'"),
        ("gres", "gpu:a100:1"),
        ("setup", "a\0b"),
        ("setup", "x" * 251),
    ],
)
def test_a_value_that_cannot_be_is_refused_and_nothing_written(home, setting, value) -> None:
    with pytest.raises(ProfileError, match=f"--{setting}: expected"):
        install("slurm", {setting: value})
    assert not home.exists()


@pytest.mark.parametrize("name", ["slurn", "../slurm", "", ".", "/etc", "a/b"])
def test_only_shipped_profiles_are_installed(home, name) -> None:
    with pytest.raises(ProfileError, match=r"expected the name of a profile \(local, slurm\)"):
        install(name, {})
    assert not home.exists()


def test_a_file_that_snakemake_prefers_is_noticed(home) -> None:
    (home / "slurm").mkdir(parents=True)
    (home / "slurm/config.v8+.yaml").write_text("executor: slurm\n")
    with pytest.raises(ProfileError, match="Snakemake would read this file"):
        install("slurm", {})


def test_a_profile_that_cannot_be_written_is_absent(home, tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SiteError, match="cannot write it"):
        install("slurm", {}, to=tmp_path / "file")


def test_it_is_found_as_snakemake_finds_it(home, tmp_path) -> None:
    assert find("slurm") is None
    path, _ = install("slurm", {})
    assert find("slurm") == path
    other, _ = install("slurm", {}, to=tmp_path / "other")
    assert find(str(other.parent)) == find(str(other)) == other
    Path("slurm").mkdir()  # hides the user's
    assert find("slurm") is None


def test_an_installed_package_brings_its_profiles(monkeypatch, tmp_path) -> None:
    folder = tmp_path / "prefix"
    install("slurm", {}, to=folder / "share/cem/profiles")
    monkeypatch.setattr(profiles, "__file__", str(tmp_path / "lib/plugin/site/profile.py"))
    monkeypatch.setattr(profiles.sysconfig, "get_path", lambda name: str(folder))
    assert shipped("slurm") == folder / "share/cem/profiles/slurm/config.yaml"
