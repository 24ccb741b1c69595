"""Adapter of the rule train."""

from pathlib import Path

from cem.jobs.script import imports, job

with job(snakemake.log[0]):
    with imports():
        from cem.config import Run
        from cem.training import ranks_for, take_as_given, train

    # What stands for the contents of files only decides when the job runs again.
    run = Run.model_validate({k: v for k, v in snakemake.params.run.items() if k != "network files"})
    data, out, results = Path(snakemake.input.data), Path(snakemake.output.model).parent, Path("results")
    if run.trained:
        warm_model, warm_history = Path(snakemake.input.model), Path(snakemake.input.history)
        mixture = next(map(Path, snakemake.input.get("mixture", [])), None)
        train(run, data, warm_model, warm_history, mixture, out, results, ranks_for(snakemake.resources.gpu))
    else:
        take_as_given(run, data, out, results)
