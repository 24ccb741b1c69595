"""Adapter of the rule extract_activations."""

from pathlib import Path

from cem.jobs.script import imports, job

with job(snakemake.log[0]):
    with imports():
        from cem.config import Run
        from cem.training import extract_activations, import_activations

    run, dtype, out = Run.model_validate(snakemake.params.run), snakemake.params.dtype, Path(snakemake.output[0])
    data, model = Path(snakemake.input.data), Path(snakemake.input.model)
    if run.model.has_network:
        kind = "warm_up" if snakemake.wildcards.trained.startswith("warmup/") else "model"
        extract_activations(run, data, model, kind, dtype, out)
    else:
        import_activations(run, data, model, dtype, out)
