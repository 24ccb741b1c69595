"""What a finished attack fitted, copied out of the results: what `cem attack export` does. No torch in here."""

from pathlib import Path

from cem.storage.files import StoreError, sha256, whole_or_absent
from cem.storage.job_records import AttackRecord
from cem.storage.records import read_record
from cem.storage.weights import NAME, WeightsHeader, read_header

FEW = 10  # names that an error lists


class ExportError(StoreError):
    """A run, an attack or a file of weights that is not there."""


def find_run(run: str, results: Path) -> Path:
    """The folder of a run: `run` is that folder, or the run's id, as `cem plan` shows it.

    Raises ExportError where there is none, or several studies have it.
    """
    if run and Path(run).is_dir():
        return Path(run)
    names = [part for part in run.split("/") if part not in ("", ".", "..")]
    found = [
        folder for study in sorted(results.glob("*/runs")) if (folder := study.joinpath(*names)).is_dir() and names
    ]
    if len(found) == 1:
        return found[0]
    if found:
        places = ", ".join(map(str, found))
        raise ExportError(
            f"expected the run of one study, found {run} in several: {places}. Give one of these folders."
        )
    there = sorted(str(path.parent) for path in results.glob("*/runs/*/*/*/*/attacks"))
    raise ExportError(
        f"expected the folder or id of a run, found none for {run!r}. {_listed('Runs with attacks', there)}"
    )


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
            f"that the study has is made by: snakemake --cores all [--configfile FILE] {folder / 'attack.json'}"
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
