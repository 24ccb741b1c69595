"""The command line, a file for each kind of command. Nothing in here needs torch or pandas until a command does."""

from cem.cli import known, runs, site, study
from cem.cli.app import EXITS, app, main
from cem.planning.audit import audit

__all__ = ["EXITS", "app", "main"]

# In the order of the help: what is done first stands first.
for _command in (
    known.new,
    study.validate,
    study.plan,
    study.status,
    study.report,
    runs.show,
    runs.compare,
    runs.clean,
    audit,
    known.models,
    known.data,
    site.doctor,
):
    app.command()(_command)
app.add_typer(runs.attack, name="attack")
app.add_typer(site.profile, name="profile")
