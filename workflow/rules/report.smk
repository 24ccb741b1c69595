"""Aggregate and report.

REQUIRED INPUTS: every planned run's training, leakage and attacks; results of runs no longer planned are not looked at.
OUTPUTS: results.parquet, results.csv, runs.csv; report.html with figures/ and tables/.
After a failure, and by `cem report` at any time, results.csv, runs.csv and the report are made of what is finished.
results.parquet is then absent, so that these rules run again once everything is there.
"""


rule aggregate:
    """Put the results of all runs and attacks into one table."""
    input:
        lambda wildcards: of_every_run("train.json", "history.csv"),
        lambda wildcards: [str(PLAN.leakage(run)) for run in PLAN.runs.values()],
        lambda wildcards: of_every_attack("metrics.parquet", "attack.json"),
        data=[str(PLAN.data(dataset)) for dataset in PLAN.datasets.values()],
    output:
        parquet="results/{study}/results.parquet",
        csv=report(
            "results/{study}/results.csv",
            caption="../report/results.rst",
            category="Results",
            labels={"rows": "runs, attacks and scopes"},
        ),
        runs=report(
            "results/{study}/runs.csv",
            caption="../report/runs.rst",
            category="Results",
            labels={"rows": "runs and threat models"},
        ),
    log:
        "logs/{study}/aggregate.log",
    benchmark:
        "logs/{study}/aggregate.tsv"
    conda:
        "../envs/cem.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        study=config,
        numerics=cem.NUMERICS,
    script:
        "../scripts/aggregate.py"


rule report:
    """Write the report: tables, figures and pictures, in one file that opens anywhere."""
    input:
        lambda wildcards: of_every_run("activations.h5", "history.csv", "train.json"),
        lambda wildcards: of_every_attack(
            "reconstructions.h5", "attack.json", "metrics.parquet", "manifest.json"
        ),
        results="results/{study}/results.parquet",
        data=[str(PLAN.data(dataset)) for dataset in PLAN.datasets.values()],
    output:
        html=report(
            "results/{study}/report.html",
            caption="../report/report.rst",
            category="Report",
            labels={"study": "{study}"},
        ),
        figures=report(
            directory("results/{study}/figures"),
            patterns=["{figure}.svg", "{figure}.png"],
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
        tables=report(
            directory("results/{study}/tables"),
            patterns=["{table}.tex", "{table}.csv"],
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
    log:
        "logs/{study}/report.log",
    benchmark:
        "logs/{study}/report.tsv"
    conda:
        "../envs/cem.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        study=config,
        numerics=cem.NUMERICS,
    script:
        "../scripts/report.py"
