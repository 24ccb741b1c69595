"""Adapter of the rule warm_up."""

from pathlib import Path

from cem.jobs.script import imports, job

with job(snakemake.log[0]):
    with imports():
        from cem.config import Run
        from cem.training import ranks_for, warm_up

    # What stands for the contents of files only decides when the job runs again.
    run = Run.model_validate({k: v for k, v in snakemake.params.run.items() if k != "network files"})
    warm_up(
        run,
        data=Path(snakemake.input.data),
        model=Path(snakemake.output.model),
        history=Path(snakemake.output.history),
        results=Path("results"),
        ranks=ranks_for(snakemake.resources.gpu),
    )
