"""Profiles of Snakemake: where they lie, what a site has set in one, and how one is installed for a user."""

import difflib
import hashlib
import json
import re
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs
import yaml

from snakemake_executor_plugin_submitit.books.records import write_whole
from snakemake_executor_plugin_submitit.cluster.slurm import NAME_RULE, is_name
from snakemake_executor_plugin_submitit.site.program import Program, SiteError

SITE = (
    *("account", "partition", "gpu-partition", "qos", "constraint"),
    *("wckey", "gres", "no-gpu", "setup", "python"),
)
_SWITCHES = ("no-gpu",)  # true, or left out
_FREE = ("setup", "python")  # shell text; the others are SLURM's names and expressions
_PART = 250
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SEAL = re.compile(r"\A# Installed by [^\n;]+; sha256 of what follows: ([0-9a-f]{64})\n")
_CONFIG = re.compile(r"config(\.v(\d+)\+)?\.(yaml|yml)")


class ProfileError(SiteError):
    """A profile that is absent, unreadable or not to be overwritten."""


def shipped(name: str, program: Program) -> Path:
    """The file of a profile that comes with the program: in the checkout, or where the package was installed."""
    installed = Path(sysconfig.get_path("data")) / "share" / program.name / "profiles"
    folders = [Path(__file__).parents[2] / "profiles", installed]
    found = {path.parent.name: path for folder in reversed(folders) for path in folder.glob("*/config.yaml")}
    if name not in found:
        raise ProfileError(
            f"expected the name of a profile ({', '.join(sorted(found)) or 'none found'}), got {name!r}."
        )
    return found[name]


def user_folder() -> Path:
    """Where Snakemake looks for a user's profiles."""
    return Path(platformdirs.user_config_path("snakemake", "snakemake"))


def find(name: str) -> Path | None:
    """The file that `snakemake --profile NAME` would read, as Snakemake looks for it; None when it would find none."""
    given = Path(name)
    if given.is_file():
        return given
    if given.exists():
        return _config_in(given)
    folders = [user_folder(), Path(platformdirs.site_config_path("snakemake", "snakemake"))]
    return next((path for folder in folders if (path := _config_in(folder / name))), None)


def _config_in(folder: Path) -> Path | None:
    """Of several configuration files in a folder, the one for the newest Snakemake."""
    names = [match for path in folder.glob("config.*") if (match := _CONFIG.fullmatch(path.name))]
    best = max(names, key=lambda match: int(match[2] or 0), default=None)
    return folder / best[0] if best else None


def site_settings(path: Path) -> dict[str, str]:
    """What a profile sets of a site: name → value. Raises ProfileError when it cannot be read."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ProfileError(
            f"{path}: expected a profile in YAML, cannot read it: {error}. Correct or remove it."
        ) from None
    values: Mapping[str, Any] = content if isinstance(content, dict) else {}
    found = {name: values.get(f"submitit-{name}") for name in SITE}
    return {
        name: str(value).lower() if name in _SWITCHES else str(value)
        for name, value in found.items()
        if value is not None and value is not False
    }


def fill(text: str, settings: Mapping[str, str]) -> str:
    """A shipped profile with site settings in their places; empty ones are left out."""
    for name, value in settings.items():
        if value:
            _check(name, value)
            said = value if name in _SWITCHES else json.dumps(value, ensure_ascii=False)
            line = f"submitit-{name}: {said}"
            text, count = re.subn(rf"(?m)^# submitit-{name}:.*$", line.replace("\\", r"\\"), text)
            if count != 1:
                raise ProfileError(f"expected one line '# submitit-{name}: …' in the shipped profile, found {count}.")
    return text


def install(
    name: str, settings: Mapping[str, str], program: Program, to: Path | None = None, force: bool = False
) -> tuple[Path, str]:
    """Put a shipped profile into Snakemake's configuration folder, or into `to`; its path, and what was done.

    Site settings that are not given are kept from the profile that is there; an empty one is removed. Raises
    ProfileError, with the differences, when that profile was edited by hand and `force` is not set.
    """
    source = shipped(name, program)
    path = (user_folder() if to is None else to) / name / "config.yaml"
    _check_neighbours(path)
    old = _read(path)
    kept = {} if old is None else _kept(path, force)
    body = fill(source.read_text(encoding="utf-8"), {**kept, **settings})
    new = f"# Installed by {program.name}; sha256 of what follows: {_digest(body)}\n{body}"
    if old == new:
        return path, "is up to date"
    if old is not None and not force and not is_untouched(old):
        raise ProfileError(
            f"{path}: expected a profile as {program.name} installed it, found one that was edited (- there, + new):\n"
            f"{_difference(old, new)}Say --force to replace it (its site settings are kept), or move it away."
        )
    _write(path, new)
    return path, "installed" if old is None else "replaced"


def describe(name: str, path: Path, program: Program) -> str:
    """How a profile that is in use relates to the shipped one."""
    text = _read(path) or ""
    try:
        source = shipped(name, program)
    except ProfileError:
        return "state: not one of this project's"
    if path.exists() and path.samefile(source):
        return "state: the shipped one itself"
    if not is_untouched(text):
        return f"state: edited, or not installed by {program.name}"
    current = _SEAL.sub("", text) == fill(source.read_text(encoding="utf-8"), site_settings(path))
    if current:
        return "state: as installed"
    return f"state: of another version; renew it with: {program.name} profile install {name}"


def is_untouched(text: str) -> bool:
    """Whether a profile is as `install` wrote it."""
    seal = _SEAL.match(text)
    return seal is not None and _digest(text[seal.end() :]) == seal[1]


def _kept(path: Path, force: bool) -> dict[str, str]:
    try:
        return site_settings(path)
    except ProfileError:
        if force:
            return {}
        raise


def _check(name: str, value: str) -> None:
    if name in _SWITCHES:
        good, allowed = value == "true", "true, or nothing"
    elif name in _FREE:
        good, allowed = all(letter.isprintable() or letter in "\n\t" for letter in value), "text that can be printed"
    else:
        good, allowed = is_name(value.replace("{gpus}", "1") if name == "gres" else value), NAME_RULE
    if good and any(len(part.encode()) > _PART for part in value.split("/")):
        # Snakemake looks whether a value is a file, and cannot ask for a name that long.
        good, allowed = False, f"at most {_PART} bytes without a /; put the lines into a file, and source it"
    if good and name == "gres":
        good, allowed = "{gpus}" in value, "{gpus} where the number of GPUs goes, as in gpu:a100:{gpus}"
    if not good:
        raise ProfileError(f"--{name}: expected {allowed}, got {value!r}. Nothing was written.")


def _check_neighbours(path: Path) -> None:
    if not _NAME.fullmatch(path.parent.name):
        raise ProfileError(f"expected a profile's name of letters, digits, . _ and -, got {path.parent.name!r}.")
    chosen = _config_in(path.parent)
    if chosen is not None and chosen.name != path.name:
        raise ProfileError(
            f"{chosen}: Snakemake would read this file and not {path.name} beside it. Move it away first."
        )


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ProfileError(f"{path}: expected a profile in UTF-8, cannot read it: {error}. Move it away.") from None


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        raise ProfileError(f"{path}: cannot write it: {error}. Free or choose another disk, and run again.") from error


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _difference(old: str, new: str) -> str:
    lines = difflib.unified_diff(_SEAL.sub("", old).splitlines(), _SEAL.sub("", new).splitlines(), lineterm="", n=0)
    return "".join(f"    {line}\n" for line in list(lines)[2:] if not line.startswith("@@"))
