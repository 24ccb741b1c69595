"""Data.

REQUIRED INPUTS: the raw files that the data set's settings name; none for packaged, downloaded and synthetic sets. They
are no `input:` of the rule, which would take braces in their names for wildcards, and look at nothing but a folder's time:
the parameter stands for their names, sizes, times and contents. That they are there is checked before any job starts.
OUTPUTS: results/data/{dataset}.h5, shared by all studies with the same source, size and split.
"""


rule prepare_data:
    """Bring the images to one size and divide them into private, val, shadow and test."""
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
        dataset=lambda wildcards: dataset_of(wildcards.dataset),
        numerics=cem.NUMERICS,
    script:
        "../scripts/prepare_data.py"
