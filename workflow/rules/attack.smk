"""Attacks.

REQUIRED INPUTS: a run's model, its activations and its prepared data set; for an attack whose learning rate is to be
found, its result on the undefended reference; files of weights that an attack starts from, which are no `input:` of the
rule for the reasons that raw files are none (data.smk): the parameter stands for their contents.
OUTPUTS: of each data set the evaluator that judges reconstructions of its images, shared by all studies; of each attack
metrics.parquet (one row per image), reconstructions.h5, attack.json and manifest.json; of one that fits networks
weights.safetensors, too, which is no `output:` since not every attack has it: attack.json knows its SHA-256.
"""

OUT = "results/{study}/runs/{run}/attacks/{attack}"


rule fit_evaluator:
    """Fit the classifier that judges reconstructions to the shadow images of a data set."""
    input:
        data="results/data/{dataset}.h5",
    output:
        model="results/data/{dataset}.evaluator.safetensors",
        record="results/data/{dataset}.evaluator.json",
    log:
        "logs/data/{dataset}.evaluator.log",
    benchmark:
        "logs/data/{dataset}.evaluator.tsv"
    conda:
        "../envs/cem.yaml"
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=60,
    params:
        dataset=lambda wildcards: PLAN.datasets[wildcards.dataset].sparse(),
        numerics=(cem.NUMERICS, cem.ATTACK_NUMERICS),
    script:
        "../scripts/fit_evaluator.py"


rule baseline_attacks:
    """Run the attacks that need no training, in one job: each is shorter than a program's start."""
    input:
        activations="results/{study}/runs/{run}/activations.h5",
        data=data_of(of_run),
        model="results/{study}/runs/{run}/model.safetensors",
        evaluator=evaluator_of(of_run),
    output:
        expand(
            f"{OUT}/{{file}}",
            attack=PLAN.baselines,
            file=ATTACK_FILES,
            allow_missing=True,
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
        metrics=metric_settings(),
        numerics=(cem.NUMERICS, cem.ATTACK_NUMERICS),
    script:
        "../scripts/attack.py"


rule attack:
    """Fit one attack to one run and score it."""
    input:
        activations="results/{study}/runs/{run}/activations.h5",
        data=data_of(of_run),
        model="results/{study}/runs/{run}/model.safetensors",
        evaluator=evaluator_of(of_run),
        tuned=tuned_on_reference,
    output:
        expand(f"{OUT}/{{file}}", file=ATTACK_FILES, allow_missing=True),
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
        metrics=metric_settings(),
        numerics=(cem.NUMERICS, cem.ATTACK_NUMERICS),
    script:
        "../scripts/attack.py"
