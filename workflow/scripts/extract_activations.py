"""Adapter of the rule extract_activations."""

from pathlib import Path

from cem.jobs.script import job

with job(snakemake.log[0]):
    from cem.config import Run
    from cem.training import extract_activations

    extract_activations(
        Run.model_validate(snakemake.params.run),
        data=Path(snakemake.input.data),
        model=Path(snakemake.input.model),
        kind="warm_up" if snakemake.wildcards.trained.startswith("warmup/") else "model",
        dtype=snakemake.params.dtype,
        out=Path(snakemake.output[0]),
    )
