"""Attacks.

REQUIRED INPUTS: a run's activations and its prepared data set.
OUTPUTS: metrics.parquet (one row an image), reconstructions.h5 and attack.json of each attack.
"""

OUT = "results/{study}/runs/{run}/attacks"


rule baseline_attacks:
    """Run the attacks that need no training, in one job: each is shorter than a program's start."""
    input:
        activations="results/{study}/runs/{run}/activations.h5",
        data=data_of(of_run),
    output:
        metrics=expand(
            f"{OUT}/{{attack}}/metrics.parquet",
            attack=PLAN.baselines,
            allow_missing=True,
        ),
        reconstructions=expand(
            f"{OUT}/{{attack}}/reconstructions.h5",
            attack=PLAN.baselines,
            allow_missing=True,
        ),
        about=expand(
            f"{OUT}/{{attack}}/attack.json", attack=PLAN.baselines, allow_missing=True
        ),
    log:
        "logs/{study}/{run}/baseline_attacks.log",
    benchmark:
        "logs/{study}/{run}/baseline_attacks.tsv"
    group:
        "measure"
    conda:
        "../envs/cem.yaml"
    threads: threads_of(of_run)
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=60,
    params:
        run=settings_of(of_run),
        attacks=attack_settings(lambda wildcards: PLAN.baselines),
        images=STUDY.report.images,
        numerics=cem.NUMERICS,
    script:
        "../scripts/attack.py"


rule attack:
    """Fit one attack to one run and score it."""
    input:
        activations="results/{study}/runs/{run}/activations.h5",
        data=data_of(of_run),
    output:
        metrics=f"{OUT}/{{attack}}/metrics.parquet",
        reconstructions=f"{OUT}/{{attack}}/reconstructions.h5",
        about=f"{OUT}/{{attack}}/attack.json",
    log:
        "logs/{study}/{run}/attack-{attack}.log",
    benchmark:
        "logs/{study}/{run}/attack-{attack}.tsv"
    conda:
        "../envs/cem.yaml"
    threads: threads_of(of_run)
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=720,
    params:
        run=settings_of(of_run),
        attacks=attack_settings(lambda wildcards: [wildcards.attack]),
        images=STUDY.report.images,
        numerics=cem.NUMERICS,
    script:
        "../scripts/attack.py"
