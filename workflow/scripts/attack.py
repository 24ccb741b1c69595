"""Adapter of the rules attack and baseline_attacks."""

from pathlib import Path

from cem.jobs.script import imports, job

with job(snakemake.log[0]):
    with imports():
        from pydantic import TypeAdapter

        from cem.config import Attack, Metric, Run
        from cem.evaluation import attack_run

    # What stands for the contents of files only decides when the job runs again.
    attacks = [{k: v for k, v in one.items() if k != "weights files"} for one in snakemake.params.attacks]
    attack_run(
        Run.model_validate(snakemake.params.run),
        TypeAdapter(list[Attack]).validate_python(attacks),
        activations=Path(snakemake.input.activations),
        data=Path(snakemake.input.data),
        model=Path(snakemake.input.model),
        evaluator=Path(snakemake.input.evaluator),
        tuned=next(map(Path, snakemake.input.get("tuned", [])), None),
        folder=Path(snakemake.output[0]).parents[1],
        num_images=snakemake.params.images,
        metrics=TypeAdapter(list[Metric]).validate_python(snakemake.params.metrics),
    )
