"""Training.

REQUIRED INPUTS: a prepared data set; for a gmm surrogate, the mixture fitted to its warm-up's activations; for a network
of the user's own its files, which are no `input:` for the reasons that raw files are none (data.smk): the parameter
stands for their contents.
OUTPUTS: model, history and activations of each warm-up and each run.
Unfinished trainings keep their state in results/.state, where Snakemake does not delete it; the same rule goes on.
"""


rule warm_up:
    """Train the first epochs, without a surrogate: once for all runs that differ only in surrogate and weight."""
    input:
        data=data_of(of_base),
    output:
        model="results/{study}/warmup/{base}/model.safetensors",
        history="results/{study}/warmup/{base}/history.csv",
    log:
        "logs/{study}/warmup/{base}/warm_up.log",
    benchmark:
        "logs/{study}/warmup/{base}/warm_up.tsv"
    conda:
        "../envs/cem.yaml"
    threads: threads_of(of_base)
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=120,
    params:
        run=trained_from(of_base),
        numerics=cem.NUMERICS,
    script:
        "../scripts/warm_up.py"


rule train:
    """Train one split model from its warm-up to the last epoch; or take the network as it is given."""
    input:
        data=data_of(of_run),
        model=warmed_up("model.safetensors"),
        history=warmed_up("history.csv"),
        mixture=lambda wildcards: [
            str(path)
            for path in [PLAN.start_mixture(planned(of_run(wildcards)))]
            if path
        ],
    output:
        model="results/{study}/runs/{run}/model.safetensors",
        history="results/{study}/runs/{run}/history.csv",
        summary="results/{study}/runs/{run}/train.json",
    log:
        "logs/{study}/{run}/train.log",
    benchmark:
        "logs/{study}/{run}/train.tsv"
    conda:
        "../envs/cem.yaml"
    threads: threads_of(of_run)
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=720,
    params:
        run=trained_from(of_run),
        numerics=cem.NUMERICS,
    script:
        "../scripts/train.py"


rule extract_activations:
    """Store what the encoder makes of every image, of a warm-up or of a run."""
    input:
        data=data_of(of_trained),
        model="results/{study}/{trained}/model.safetensors",
    output:
        "results/{study}/{trained}/activations.h5",
    log:
        "logs/{study}/{trained}/extract_activations.log",
    benchmark:
        "logs/{study}/{trained}/extract_activations.tsv"
    group:
        "measure"
    conda:
        "../envs/cem.yaml"
    threads: threads_of(of_trained)
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=60,
    params:
        run=settings_of(of_trained),
        dtype=STUDY.smashed_dtype,
        numerics=cem.NUMERICS,
    script:
        "../scripts/extract_activations.py"
