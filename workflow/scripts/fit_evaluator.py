"""Adapter of the rule fit_evaluator."""

from pathlib import Path

from cem.jobs.script import imports, job

with job(snakemake.log[0]):
    with imports():
        from pydantic import TypeAdapter

        from cem.config import Dataset
        from cem.evaluation import fit_evaluator

    fit_evaluator(
        TypeAdapter(Dataset).validate_python(snakemake.params.dataset),
        Path(snakemake.input.data),
        Path(snakemake.output.model),
        Path(snakemake.output.record),
    )
