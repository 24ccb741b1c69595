"""Adapter of the rule train."""

from pathlib import Path

from cem.jobs.script import job

with job(snakemake.log[0]):
    from cem.config import Run
    from cem.training import ranks_for, train

    train(
        Run.model_validate(snakemake.params.run),
        data=Path(snakemake.input.data),
        warm_model=Path(snakemake.input.model),
        warm_history=Path(snakemake.input.history),
        mixture=next(map(Path, snakemake.input.get("mixture", [])), None),
        out=Path(snakemake.output.model).parent,
        results=Path("results"),
        ranks=ranks_for(snakemake.resources.gpu),
    )
