"""SLURM's reasons for which a job waits: those that somebody must remove are told, with what to do."""

import pytest

from snakemake_executor_plugin_submitit.cluster.reasons import stuck_for

STUCK = """
    PartitionTimeLimit PartitionNodeLimit PartitionDown PartitionInactive BadConstraints JobHeldAdmin JobHeldUser
    InvalidAccount InvalidQOS AccountNotAllowed DependencyNeverSatisfied QOSMaxWallDurationPerJobLimit
    AssocMaxWallDurationPerJobLimit QOSMaxCpuPerJobLimit AssocMaxCpuMinutesPerJobLimit AssocGrpCPUMinutesLimit
    MaxMemPerLimit (ReqNodeNotAvail,UnavailableNodes:g1) QOSMaxMemoryPerJob QOSMaxGRESPerNode QOSMinCpuNotSatisfied
    AssocMaxCpuPerJobLimit QOSMaxNodePerJobLimit AssocGrpWallLimit QOSNotAllowed JobHoldMaxRequeue ReservationDeleted
    launch_failed_requeued_held job_requeued_in_held_state DeadLine NodeDown SystemFailure
"""
MOVING = """
    None Priority Resources BeginTime Dependency QOSMaxJobsPerUserLimit QOSGrpCpuLimit AssocGrpGRES JobArrayTaskLimit
    AssocGrpCPURunMinutesLimit QOSGrpMemoryRunMinutes AssocMaxJobsLimit MaxGRESPerAccount QOSMaxCpuPerUserLimit Licenses
    Reservation AssocGrpSubmitJobsLimit QOSMaxSubmitJobPerUserLimit Cleaning FedJobLock PartitionConfig
"""


@pytest.mark.parametrize("reason", STUCK.split())
def test_what_needs_somebody_to_act_is_stuck(reason: str) -> None:
    found = stuck_for("PENDING", reason)
    assert found is not None
    assert found.reason in reason
    assert "{" not in found.advice_for("12")


@pytest.mark.parametrize("reason", [*MOVING.split(), "ReqNodeNotAvail, May be reserved for other job",
                                    "ReqNodeNotAvail,_May_be_reserved_for_other_job"])  # fmt: skip
def test_what_starts_when_others_end_is_not_stuck(reason: str) -> None:
    assert stuck_for("PENDING", reason) is None


@pytest.mark.parametrize(
    "reason",
    [
        "launch failed requeued held",
        "job requeued in held state",
        "user env retrieval failed requeued held",
        "launch failure limit exceeded requeued held",
        "Reservation maintenance was deleted",
    ],
)
def test_a_reason_may_have_spaces(reason: str) -> None:
    found = stuck_for("PENDING", reason)
    assert found is not None
    assert "scontrol release 7 9" in found.advice_for("7 9")


@pytest.mark.parametrize("state", ["RESV_DEL_HOLD", "REQUEUE_HOLD", "SPECIAL_EXIT"])
def test_a_state_can_be_the_reason(state: str) -> None:
    found = stuck_for(state, "None")
    assert found is not None
    assert found.reason == state
