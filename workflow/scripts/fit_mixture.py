"""Adapter of the rule fit_mixture."""

from pathlib import Path

from cem.jobs.script import imports, job

with job(snakemake.log[0]):
    with imports():
        from cem.config import MixtureFit, Run
        from cem.training import measure_mixture

    measure_mixture(
        Run.model_validate(snakemake.params.run),
        MixtureFit.model_validate(snakemake.params.fit),
        activations=Path(snakemake.input.activations),
        out=Path(snakemake.output[0]),
        observations=snakemake.params.observations,
        **{name: Path(path) for name in ("data", "model") if (path := snakemake.input.get(name))},
    )
