"""Data.

REQUIRED INPUTS: the raw files that the data set's settings name; none for packaged, downloaded and synthetic sets.
OUTPUTS: results/data/{dataset}.h5, shared by all studies with the same source, size and split.
"""


rule prepare_data:
    """Bring the images to one size and divide them into private, val, shadow and test."""
    input:
        lambda wildcards: PLAN.datasets[wildcards.dataset].files(),
    output:
        "results/data/{dataset}.h5",
    log:
        "logs/data/{dataset}.log",
    benchmark:
        "logs/data/{dataset}.tsv"
    conda:
        "../envs/cem.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        dataset=lambda wildcards: PLAN.datasets[wildcards.dataset].sparse(),
        numerics=cem.NUMERICS,
    script:
        "../scripts/prepare_data.py"
