"""What a finished attack fitted, copied out of the results: what `cem attack export` does. No torch in here."""

from pathlib import Path

from cem.planning.workflow import run_command
from cem.storage.files import StoreError, sha256, whole_or_absent
from cem.storage.job_records import AttackRecord
from cem.storage.records import read_record
from cem.storage.weights import NAME, WeightsHeader, read_header

FEW = 10  # names that an error lists


class ExportError(StoreError):
    """A run, an attack or a file of weights that is not there."""


def find_run(run: str, results: Path) -> Path:
    """The folder of a run: `run` is that folder, the run's id, as `cem plan` shows it, or a part of one run's id only.

    Raises ExportError where there is none, or several have it.
    """
    if run and Path(run).is_dir():
        return Path(run)
    part = "/".join(name for name in run.split("/") if name not in ("", ".", ".."))
    there = run_folders(results)
    found = [folder for folder, name in there.items() if name == part]
    found = found or [folder for folder, name in there.items() if part and part in name]
    if len(found) == 1:
        return found[0]
    if found:
        raise ExportError(
            f"expected the id of one run, or a part that only one has; found {run!r} in {len(found)}. "
            f"{_listed('Give one of these folders, or more of its id', list(map(str, found)))}"
        )
    raise ExportError(
        f"expected the folder or id of a run, or a part of its id; found none for {run!r} in {results}. "
        f"{_listed('Runs there', list(map(str, there)))}"
    )


def run_folders(results: Path) -> dict[Path, str]:
    """Folder → id of every run in the results, of all studies."""
    folders = sorted(path for path in results.glob("*/runs/*/*/*/*") if path.is_dir())
    return {folder: "/".join(folder.parts[-4:]) for folder in folders}


def export(run: Path, attack: str, target: Path) -> tuple[WeightsHeader, str]:
    """Copy the weights that an attack on a run fitted to `target`; their header, and the file's SHA-256.

    Raises ExportError where the attack is not there, not finished or has fitted no network, and where another file is
    already at `target`.
    """
    folder = run / "attacks" / attack
    if not attack or "/" in attack or not (folder / "attack.json").is_file():
        there = sorted(path.parent.name for path in run.glob("attacks/*/attack.json"))
        raise ExportError(
            f"{folder}: expected a finished attack, found no attack.json. {_listed('Finished on this run', there)} One "
            f"that the study has is made by: {run_command(Path('FILE'), folder / 'attack.json')}"
        )
    found, source = read_record(folder / "attack.json", AttackRecord, "attack"), folder / NAME
    again = f"delete {folder / 'attack.json'} and run the study again"
    if found.failure:
        raise ExportError(f"{folder}: expected fitted networks, but the fit failed: {found.failure}.")
    if found.version < 3:
        raise ExportError(f"{folder}: an older cem made this result and kept no weights: {again}.")
    if found.weights_sha256 is None:
        raise ExportError(
            f"{folder}: expected an attack that fits networks (decoder, gan, flow, prior_search), found {found.kind}, "
            "of which nothing is kept."
        )
    if not source.is_file() or (digest := sha256(source)) != found.weights_sha256:
        raise ExportError(f"{source}: expected the weights that attack.json speaks of, found none or others: {again}.")
    header = read_header(source)
    if target.exists() and (target.is_dir() or sha256(target) != digest):
        raise ExportError(f"{target}: there is another file or folder already. Delete it, or choose another with -o.")
    with whole_or_absent(target) as temporary:
        temporary.write_bytes(source.read_bytes())
    return header, digest


def _listed(what: str, names: list[str]) -> str:
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return f"{what}: {', '.join(names[:FEW]) or 'none'}{more}."
