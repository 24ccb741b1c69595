"""What a job asks for reaches sbatch as asked, and nothing a user writes can become a command."""

import subprocess

import pytest
from snakemake_interface_common.exceptions import WorkflowError
from submitit.slurm.slurm import _make_sbatch_string

from snakemake_executor_plugin_submitit.cluster.resources import make_request
from snakemake_executor_plugin_submitit.cluster.settings import ExecutorSettings


def request(threads: int = 1, settings: ExecutorSettings | None = None, **resources):
    return make_request("train (results/a)", resources, threads, settings or ExecutorSettings())


def test_resources_of_the_rule_win_over_the_sites_settings() -> None:
    settings = ExecutorSettings(partition="cpu", gpu_partition="gpu", account="lab", qos="long")
    asked = request(2, settings, mem_mb=4000, runtime=90, gpu=2, slurm_account="other")
    assert asked.parameters(overhead_mb=300) == {
        "mem": "4300MB", "time": 90, "cpus_per_task": 2, "gpus_per_node": 2,
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


def test_the_batch_file_of_a_hostile_folder_is_what_it_should_be(tmp_path) -> None:
    folder = tmp_path / "it's $(touch harm) & `more`"
    folder.mkdir()
    text = _make_sbatch_string(
        command="true", folder=folder, job_name="smk-1", **request(gpu=1, slurm_account="lab").parameters(300),
        signal_delay_s=90, stderr_to_stdout=True, map_count=3, array_parallelism=2,
        additional_parameters={"requeue": True},
    )  # fmt: skip
    header = [line for line in text.splitlines() if line.startswith("#SBATCH") and "output" not in line]
    assert header == [
        "#SBATCH --account=lab",
        "#SBATCH --array=0-2%2",
        "#SBATCH --cpus-per-task=1",
        "#SBATCH --gpus-per-node=1",
        "#SBATCH --job-name=smk-1",
        "#SBATCH --mem=1300MB",
        "#SBATCH --nodes=1",
        "#SBATCH --open-mode=append",
        "#SBATCH --requeue",
        "#SBATCH --signal=USR2@90",
        "#SBATCH --time=60",
        "#SBATCH --wckey=submitit",
    ]
    script = tmp_path / "batch.sh"
    script.write_text(text.replace("srun", "echo"))
    subprocess.run(["bash", str(script)], cwd=tmp_path, check=True, capture_output=True)
    assert not (tmp_path / "harm").exists()
