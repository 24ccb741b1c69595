"""As many rules, jobs and files as a study of `--config runs=N` has, with nothing of this program in it: what
Snakemake alone needs to plan them. No parameters, logs, threads, resources or groups. See planning.py.
"""

N = int(config["runs"])
RUNS = [
    f"mnist5k-vgg11-c4/noise{n / 200:.3f}/{'gmm-w1' if n % 2 else 'none'}/s0-{n:012x}"
    for n in range(N)
]
BASES = [f"mnist5k-vgg11-c4/noise{n / 200:.3f}/s0-{n:012x}" for n in range(0, N, 2)]
ATTACKS = ("mean_image", "linear", "decoder")
FILES = ("metrics.parquet", "reconstructions.h5", "attack.json", "manifest.json")
NUMBER = {run: number for number, run in enumerate(RUNS)}
BASE, RUN = "[^/]+/[^/]+/s[0-9]+-[0-9a-f]+", "[^/]+/[^/]+/[^/]+/s[0-9]+-[0-9a-f]+"
OF_RUN, DATA = "results/large/runs/{run}", "results/data/mnist5k.h5"
EVALUATOR = "results/data/mnist5k.evaluator.safetensors"


def warm(name):
    """A file of the warm-up of a run."""
    return (
        lambda wildcards: f"results/large/warmup/{BASES[NUMBER[wildcards.run] // 2]}/{name}"
    )


def start(wildcards):
    """The mixture that every second run starts from."""
    return warm("mixture-1.h5")(wildcards) if NUMBER[wildcards.run] % 2 else []


def every(*names):
    """These files of every run."""
    return lambda wildcards: [
        f"results/large/runs/{run}/{name}" for run in RUNS for name in names
    ]


def of_attacks(*names):
    """Names of these files of every attack."""
    return [f"attacks/{attack}/{name}" for attack in ATTACKS for name in names]


wildcard_constraints:
    base=BASE,
    run=RUN,
    trained=f"warmup/{BASE}|runs/{RUN}",
    attack="decoder",


rule all:
    input:
        "results/large/report.html",
        lambda wildcards: [
            f"results/large/warmup/{base}/{name}"
            for base in BASES
            for name in (
                "model.safetensors",
                "history.csv",
                "activations.h5",
                "mixture-1.h5",
            )
        ],
        every(
            "model.safetensors",
            "history.csv",
            "train.json",
            "activations.h5",
            "mixture-1.h5",
        ),
        every(*of_attacks(*FILES)),


rule prepare_data:
    output:
        DATA,
    shell:
        "false"


rule fit_evaluator:
    input:
        DATA,
    output:
        EVALUATOR,
        "results/data/mnist5k.evaluator.json",
    shell:
        "false"


rule warm_up:
    input:
        DATA,
    output:
        "results/large/warmup/{base}/model.safetensors",
        "results/large/warmup/{base}/history.csv",
    shell:
        "false"


rule extract_activations:
    input:
        DATA,
        "results/large/{trained}/model.safetensors",
    output:
        "results/large/{trained}/activations.h5",
    shell:
        "false"


rule fit_mixture:
    input:
        "results/large/{trained}/activations.h5",
    output:
        "results/large/{trained}/mixture-1.h5",
    shell:
        "false"


rule train:
    input:
        DATA,
        warm("model.safetensors"),
        warm("history.csv"),
        start,
    output:
        f"{OF_RUN}/model.safetensors",
        f"{OF_RUN}/history.csv",
        f"{OF_RUN}/train.json",
    shell:
        "false"


rule baseline_attacks:
    input:
        DATA,
        EVALUATOR,
        f"{OF_RUN}/activations.h5",
        f"{OF_RUN}/model.safetensors",
    output:
        expand(
            f"{OF_RUN}/attacks/{{attack}}/{{file}}",
            attack=ATTACKS[:2],
            file=FILES,
            allow_missing=True,
        ),
    shell:
        "false"


rule attack:
    input:
        DATA,
        EVALUATOR,
        f"{OF_RUN}/activations.h5",
        f"{OF_RUN}/model.safetensors",
    output:
        expand(f"{OF_RUN}/attacks/{{attack}}/{{file}}", file=FILES, allow_missing=True),
    shell:
        "false"


rule aggregate:
    input:
        DATA,
        every("train.json", "history.csv", "mixture-1.h5"),
        every(*of_attacks("metrics.parquet", "attack.json")),
    output:
        "results/large/results.parquet",
    shell:
        "false"


rule report:
    input:
        DATA,
        "results/large/results.parquet",
        every("activations.h5", "history.csv", "train.json", *of_attacks(*FILES)),
    output:
        "results/large/report.html",
    shell:
        "false"
