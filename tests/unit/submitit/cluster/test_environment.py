"""What is in the environment of a head changes neither what is asked of SLURM nor what jobs get, unless it is said."""

from snakemake_executor_plugin_submitit.cluster.environment import for_slurm, from_environment

SITE = {"SLURM_CONF": "/etc/slurm.conf", "SLURM_CONF_SERVER": "here", "SLURM_JWT": "token", "PATH": "/bin", "LANG": "C"}
WISHES = [
    *(
        "SBATCH_ACCOUNT",
        "SBATCH_PARTITION",
        "SBATCH_TIMELIMIT",
        "SBATCH_EXPORT",
        "SBATCH_NO_REQUEUE",
        "SBATCH_CLUSTERS",
    ),
    *("SLURM_EXPORT_ENV", "SLURM_MEM_PER_CPU", "SLURM_GPUS_PER_TASK", "SLURM_NTASKS", "SLURM_ARRAY_TASK_ID"),
    *("SLURM_JOB_ID", "SLURM_CLUSTERS", "SLURMD_NODENAME", "SRUN_DEBUG", "SUBMITIT_EXECUTOR", "SALLOC_ACCOUNT"),
    *("SQUEUE_PARTITION", "SQUEUE_FORMAT", "SACCT_FORMAT", "SINFO_FORMAT", "SCANCEL_NAME", "SCONTROL_ALL"),
]


def test_only_what_finds_the_controller_is_left() -> None:
    assert for_slurm({**SITE, **dict.fromkeys(WISHES, "x")}) == SITE


def test_the_gpu_and_the_folder_of_a_head_that_is_a_job_are_its_own() -> None:
    own = {"CUDA_VISIBLE_DEVICES": "0", "HIP_VISIBLE_DEVICES": "0", "TMPDIR": "/scratch/job.7"}
    assert for_slurm({**SITE, **own, "SLURM_JOB_ID": "7"}) == SITE
    assert for_slurm({**SITE, **own}) == {**SITE, **own}, "of a user who set them himself"


def test_account_and_partition_serve_where_nothing_else_names_them() -> None:
    environ = {"SBATCH_ACCOUNT": "lab", "SBATCH_PARTITION": "cpu"}
    found, said = from_environment({"account": "", "partition": "gpu"}, environ)
    assert found == {"account": "lab"}
    assert said == [
        "jobs that name no account get 'lab', from SBATCH_ACCOUNT: submitit-account is not set",
        "SBATCH_PARTITION=cpu is not used: submitit-partition is 'gpu'",
    ]


def test_what_is_not_used_is_said_in_one_line() -> None:
    environ = {**SITE, "SBATCH_TIMELIMIT": "5", "SLURM_CLUSTERS": "other", "SLURM_NTASKS": "4", "SBATCH_QOS": ""}
    assert from_environment({}, environ) == (
        {},
        ["not used: SBATCH_TIMELIMIT, SLURM_CLUSTERS. What jobs are to have is said in the profile"],
    )


def test_nothing_there_is_nothing_said() -> None:
    assert from_environment({"account": "lab"}, {**SITE, "SBATCH_ACCOUNT": "lab"}) == ({}, [])
