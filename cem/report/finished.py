"""The report of what is finished: made at any time, from the runs and attacks that are whole, with the others named."""

from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from cem.config import AttackSettings, Run
from cem.planning.plan import ATTACK_FILES, Plan
from cem.planning.status import RunStatus, State, study_status
from cem.report.page import write_missing, write_page
from cem.report.results import gather, write_tables

FOLDERS = ("figures", "tables")  # that lie beside the page
NUMBERS = ("results.csv", "runs.csv")


class Finished(Plan):
    """The part of a plan whose files are all there: runs that are trained and measured, and the attacks on them."""

    def __init__(self, whole: Plan) -> None:
        super().__init__(whole.study, whole.root)
        self.whole = whole

    @cached_property
    def asked(self) -> dict[str, Run]:
        return {name: run for name, run in self.whole.asked.items() if name in self.runs}

    @cached_property
    def runs(self) -> dict[str, Run]:
        return {name: run for name, run in self.whole.runs.items() if self._measured(run) and self.attacks(run)}

    @cached_property
    def references(self) -> dict[str, Run]:
        return {name: run for name, run in self.whole.references.items() if name in self.runs}

    def undefended(self, run: Run) -> list[Run]:
        """All that are planned: an attack that has no result on one of them yet is not known to work."""
        return self.whole.undefended(run)

    def attacks(self, run: Run) -> list[AttackSettings]:
        """The finished ones."""
        return [
            attack
            for attack in self.whole.attacks(run)
            if all((self.attack(run, attack.id) / name).is_file() for name in ATTACK_FILES)
        ]

    def _measured(self, run: Run) -> bool:
        names = ("history.csv", "train.json", "activations.h5")
        return self.leakage(run).is_file() and all((self.run(run) / name).is_file() for name in names)


def report_finished(plan: Plan, *, at_work: bool | None = None, file: Path | None = None) -> list[RunStatus]:
    """Write results.csv, runs.csv and the report from what is finished; give the runs that are not.

    results.parquet, which only the whole study has, is taken away where runs are missing, so that the workflow makes
    everything again when it can. Where the workflow has done so meanwhile, its report stays. Where nothing is finished
    the report says so, and which commands make it. Results, tables and figures that an earlier report had and this one
    has not are taken away. at_work: see `study_status`. file: the study's, which the page's commands name.
    Raises ReportError or StoreError when a file that is there is damaged.
    """
    missing = [one for one in study_status(plan, at_work=at_work) if one.state not in (State.DONE, State.CHANGED)]
    finished, whole = Finished(plan), plan.folder / "results.parquet"
    if not finished.asked:
        for path in (whole, *(plan.folder / name for name in NUMBERS)):
            path.unlink(missing_ok=True)
        _take_away(plan, set())
        write_missing(plan, missing, plan.report, file)
        return missing
    if missing:
        whole.unlink(missing_ok=True)
    results, runs = gather(finished, plan)
    # Beside what is there: the page takes a while, in which a workflow at work may make that of the whole study.
    with TemporaryDirectory(dir=plan.folder, prefix=".report-") as name:
        folder = Path(name)
        write_tables(results, runs, *(folder / name for name in NUMBERS))
        figures, tables = (folder / name for name in FOLDERS)
        page = folder / plan.report.name
        write_page(finished, results, page, figures, tables, whole=plan, missing=missing, file=file)
        if not (missing and whole.exists()):
            new = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
            for path in sorted(new):
                (plan.folder / path).parent.mkdir(exist_ok=True)
                (folder / path).replace(plan.folder / path)
            _take_away(plan, new)
    return missing


def _take_away(plan: Plan, new: set[Path]) -> None:
    """Tables and figures of an earlier report. new: paths of this one's, below the study's folder."""
    for path in [path for name in FOLDERS for path in (plan.folder / name).glob("*") if path.is_file()]:
        if path.relative_to(plan.folder) not in new:
            path.unlink()


def describe(plan: Plan, missing: list[RunStatus]) -> str:
    """What became of the report, and each run that is not in it, with its cause and log, in lines of text."""
    lines = [f"{one.run}: {one.text}" + (f"\n  log: {one.log}" if one.log else "") for one in missing]
    finished = len(plan.runs) - len(missing)
    lines.append(f"report of the {finished} finished of {len(plan.runs)} runs: {plan.report}")
    return "\n".join(lines)
