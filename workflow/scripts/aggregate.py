"""Adapter of the rule aggregate."""

from pathlib import Path

from cem.jobs.script import imports, job

with job(snakemake.log[0]):
    with imports():
        from cem.config import parse_study
        from cem.planning.plan import Plan
        from cem.report.results import aggregate

    plan = Plan(parse_study(snakemake.params.study, "the study's configuration"))
    aggregate(plan, Path(snakemake.output.parquet), Path(snakemake.output.csv), Path(snakemake.output.runs))
