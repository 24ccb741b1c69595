"""Mixtures.

REQUIRED INPUTS: activations of a warm-up or of a run; of a run its model and data set, too.
OUTPUTS: mixture-{mixture}.h5 beside them. On a warm-up it starts a gmm surrogate; on a run it measures the leakage,
and holds what is expected of the encoder without an attacker.
"""


rule fit_mixture:
    """Fit a Gaussian mixture to each class of the private smashed data, and score test with it."""
    input:
        unpack(what_was_trained),
        activations="results/{study}/{trained}/activations.h5",
    output:
        "results/{study}/{trained}/mixture-{mixture}.h5",
    log:
        "logs/{study}/{trained}/fit_mixture-{mixture}.log",
    benchmark:
        "logs/{study}/{trained}/fit_mixture-{mixture}.tsv"
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
        fit=lambda wildcards: PLAN.mixtures[wildcards.mixture].sparse(),
        observations=observations_of,
        numerics=cem.NUMERICS,
    script:
        "../scripts/fit_mixture.py"
