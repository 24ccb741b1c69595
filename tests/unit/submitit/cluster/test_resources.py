"""What a job asks for reaches sbatch as asked, and nothing a user writes can become a command."""

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.cluster.resources import make_request
from snakemake_executor_plugin_submitit.cluster.settings import ExecutorSettings


def request(threads: int = 1, settings: ExecutorSettings | None = None, **resources):
    return make_request("train (results/a)", resources, threads, settings or ExecutorSettings())


def test_resources_of_the_rule_win_over_the_sites_settings() -> None:
    settings = ExecutorSettings(partition="cpu", gpu_partition="gpu", account="lab", qos="long")
    asked = request(2, settings, mem_mb=4000, runtime=90, gpu=2, slurm_account="other")
    assert asked.parameters(overhead_mb=300) == {
        "mem": "4300MB", "time": 90, "cpus_per_task": 2, "gpus_per_node": "2",
        "partition": "gpu", "account": "other", "qos": "long",
    }  # fmt: skip
    assert request(1, settings).parameters(0)["partition"] == "cpu"
    assert request(1, settings, gpu=1, slurm_partition="fast").parameters(0)["partition"] == "fast"


def test_gpus_are_spelt_as_the_site_spells_them() -> None:
    asked = request(settings=ExecutorSettings(gres="gpu:a100:{gpus}"), gpu=4).parameters(0)
    assert asked["gres"] == "gpu:a100:4"
    assert "gpus_per_node" not in asked
    assert "gres" not in request(settings=ExecutorSettings(gres="gpu:a100:{gpus}")).parameters(0)


HOSTILE = ["lab; touch harm", "$(touch harm)", "`touch harm`", "a b", "lab\n#SBATCH --uid=0", "lab'", "ü"]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("name", ["slurm_account", "slurm_partition", "slurm_qos", "slurm_constraint"])
def test_what_a_shell_could_read_otherwise_is_refused(name: str, text: str) -> None:
    with pytest.raises(WorkflowError, match=r"train \(results/a\): expected .* letters, digits.*Nothing was submitted"):
        request(**{name: text})


@pytest.mark.parametrize(("name", "value"), [("mem_mb", "much"), ("runtime", -5), ("gpu", -1), ("cpus_per_task", 1.5)])
def test_numbers_are_numbers(name: str, value: object) -> None:
    with pytest.raises(WorkflowError, match=f"expected {name} to be a whole number of at least [01], found"):
        request(**{name: value})


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({"gpu": 2}, {"gpus_per_node": "2"}),
        ({"gpu": 2, "gpu_model": "a100"}, {"gpus_per_node": "a100:2"}),
        ({"gres": "gpu:a100:2"}, {"gres": "gpu:a100:2", "partition": "gpu"}),
        ({"gres": "gpu"}, {"gres": "gpu", "partition": "gpu"}),
        ({"gres": "lscratch:100"}, {"gres": "lscratch:100", "partition": "cpu"}),
        ({"gres": "lscratch:100", "gpu": 1}, {"gres": "lscratch:100", "gpus_per_node": "1"}),
        ({"mem_mb_per_cpu": 500, "cpus_per_task": 4, "mem_mb": 2000}, {"mem": "2300MB"}),
        ({"qos": "long", "constraint": "a|b"}, {"qos": "long", "constraint": "a|b"}),
        ({"slurm_wckey": "key"}, {"wckey": "key"}),
        ({"tasks": 1, "nodes": "1", "tasks_per_gpu": 0, "mpi": False, "slurm_extra": ""}, {}),
    ],
)
def test_what_slurms_own_plugin_takes_is_taken(resources: dict, expected: dict) -> None:
    asked = request(settings=ExecutorSettings(partition="cpu", gpu_partition="gpu"), **resources).parameters(300)
    assert {name: asked.get(name) for name in expected} == expected


@pytest.mark.parametrize(
    "resources", [{"gpu": 2}, {"gpu": 1, "gpu_model": "a100"}, {"gres": "gpu:a100:2"}, {"gpu": 0, "gres": "shard:1"}]
)
def test_a_site_without_gpus_is_asked_for_none(resources: dict) -> None:
    settings = ExecutorSettings(no_gpu=True, gres="gpu:{gpus}", gpu_partition="gpu", partition="cpu")
    asked = request(1, settings, **resources)
    assert (asked.gpus, asked.partition, asked.gres, asked.gpus_per_node) == (0, "cpu", "", "")
    assert request(1, settings, gres="gpu:1,tmp:5").gres == "tmp:5"


@pytest.mark.parametrize("extra", ["--exclude=n[1-3]", "--exclude n[1-3]", "-x n[1-3]"])
def test_nodes_that_failed_a_job_join_those_that_its_rule_excludes(extra: str) -> None:
    asked = request(slurm_extra=f"--nice=7 {extra}")
    assert (asked.extra, asked.parameters(0)["exclude"]) == (("--nice=7",), "n[1-3]")
    assert asked.without_node("g1").without_node("g1").parameters(0)["exclude"] == "g1,n[1-3]"


def test_the_number_of_gpus_is_known_however_they_are_asked_for() -> None:
    texts = ["gpu:2", "gpu:a100:2", "gpu:a:1,gpu:b:1", "lscratch:9,gpu:2"]
    assert [request(gres=text).gpus for text in texts] == [2] * 4
    assert [request(gres=text).gpus for text in ("gpu", "lscratch:9", "gpumem:80")] == [1, 0, 0]
    site = ExecutorSettings(gres="gpu:a100:{gpus}")
    assert request(settings=site, gpu=2, gpu_model="h100", gres="x:1").gres == "x:1,gpu:h100:2"


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ({"mem_mb": 0}, "expected mem_mb to be a whole number of at least 1, found 0"),
        ({"runtime": 0}, "expected runtime to be a whole number of at least 1, found 0"),
        ({"tasks": 2}, "no resource tasks, found 2: a job is one process"),
        ({"nodes": 2}, "no resource nodes"),
        ({"mpi": "mpirun"}, "no resource mpi"),
        ({"clusters": "other"}, "no resource clusters, found 'other': the head follows"),
        ({"slurm_reservation": "r"}, "no resource slurm_reservation.*slurm_extra"),
        ({"gpu": 1, "gres": "gpu:1"}, "Say one"),
        ({"gpu_model": "a100"}, "beside gpu_model"),
    ],
)
def test_what_nobody_would_read_is_refused_by_name(resources: dict, words: str) -> None:
    with pytest.raises(WorkflowError, match=words):
        request(**resources)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("--nodelist=g1 --exclusive", ("--nodelist=g1", "--exclusive")),
        ("'--mail-type=END,FAIL --nice=10'", ("--mail-type=END,FAIL", "--nice=10")),
        ("--mail-type END -w g1", ("--mail-type=END", "-w g1")),
        ("--comm-x='a b; $(touch harm)'", ("--comm-x='a b; $(touch harm)'",)),
        ("", ()),
    ],
)
def test_further_options_of_sbatch_are_handed_on(text: str, options: tuple[str, ...]) -> None:
    assert request(slurm_extra=text).extra == options


@pytest.mark.parametrize(
    "text",
    [
        *("--mem=4G", "--part=gpu", "--time 5", "-p gpu", "--array=0-3", "--wrap=x", "--export=NONE", "--clusters=b"),
        *("nodelist", "--nice=1 extra", "--nodelist='g1", "-wg1", "--nodelist 'g1\n#SBATCH --uid=0'", "--UPPER"),
    ],
)
def test_further_options_that_would_mislead_are_refused(text: str) -> None:
    with pytest.raises(WorkflowError, match=r"slurm_extra.*Nothing was submitted"):
        request(slurm_extra=text)
