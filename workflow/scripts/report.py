"""Adapter of the rule report."""

from pathlib import Path

from cem.jobs.script import imports, job

with job(snakemake.log[0]):
    with imports():
        from cem.config import parse_study
        from cem.planning.plan import Plan
        from cem.report.page import write_report

    write_report(
        Plan(parse_study(snakemake.params.study, "the study's configuration")),
        Path(snakemake.input.results),
        Path(snakemake.output.html),
        figures_dir=Path(snakemake.output.figures),
        tables_dir=Path(snakemake.output.tables),
    )
