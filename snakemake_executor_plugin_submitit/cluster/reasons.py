"""Why a pending job will not start by itself, and what to do: one list, for the head and for the doctor.

Reasons that pass when other jobs end are not in it: Priority, Resources, limits on what somebody has running at the
same time (…PerUser, …JobsLimit, …RunMinutes).
"""

import re
from typing import NamedTuple


class Stuck(NamedTuple):
    """reason: as SLURM gives it. advice: a sentence without its point, with {job} for numbers of jobs."""

    reason: str
    advice: str

    def advice_for(self, jobs: str) -> str:
        """With the numbers of jobs, as scontrol and scancel take them."""
        return self.advice.format(job=jobs)


_SMALLER = "Ask for less (mem_mb, runtime, threads, gpu), or for another account or QoS"
# Tried in this order, on the reason as squeue has it; some squeues put spaces between the words, some underscores.
_REASONS = {
    r"(?:launch|user.env).+requeued.held": "Its node could not start it. Try again with: scontrol release {job}",
    r"requeued(?:.in)?.held|JobHoldMaxRequeue|JobHeldUser|Reservation.*[dD]eleted|_HOLD\b|SPECIAL_EXIT": (
        "Let it go with: scontrol release {job}. Or cancel it: scancel {job}"
    ),
    r"JobHeldAdmin": "An administrator holds it: ask why, or cancel it: scancel {job}",
    r"PartitionTimeLimit|QOSTimeLimit|AssociationTimeLimit|MaxWallDuration": (
        "Lower runtime on the rule, or choose a partition or QoS with a longer limit"
    ),
    r"PartitionNodeLimit|PartitionMinNodes|PartitionMaxNodes": (
        "Choose another partition: this one does not take jobs of one node"
    ),
    r"PartitionDown|PartitionInactive|FrontEndDown": "Choose another partition, or wait for the administrators",
    r"NodeDown|ReqNodeNotAvail(?!,[ _]*May[ _]be[ _]reserved)": (
        "The nodes that suit it are down or reserved (see sinfo -R): ask for others, or wait for the administrators"
    ),
    r"BadConstraints|PowerNotAvail": "No node has what it asks for: correct constraint, gres, mem_mb and threads",
    r"QOSMin\w+": "The QoS asks for more than this job does: choose another QoS",
    r"MaxMemPerLimit|\w*PerJob(?:Limit)?|\w*PerNode|\w*MaxCPUsPerNode": _SMALLER,
    r"\w*(?<!Run)Minutes(?:Limit)?|\w*GrpWallLimit|QOSUsageThreshold": (
        "The time that the account or QoS was given is used up: ask for more, or use another account or QoS"
    ),
    r"InvalidAccount|AccountNotAllowed|InvalidQOS|QOSNotAllowed|Invalid\w*|\w*NotAllowed": (
        "Set an account, partition and QoS that go together (`sacctmgr show assoc user=$USER`)"
    ),
    r"DependencyNeverSatisfied|DeadLine": "It can never start: cancel it with scancel {job}",
    r"BurstBufferOperation|SystemFailure": "Ask the administrators, with the number of the job",
}
_COMPILED = [(re.compile(pattern), advice) for pattern, advice in _REASONS.items()]


def stuck_for(state: str, reason: str) -> Stuck | None:
    """What holds a job of this state and reason until somebody acts; None when it may start by itself."""
    for words in (reason, state):
        for pattern, advice in _COMPILED:
            if pattern.search(words):
                return Stuck(words.strip("()"), advice)
    return None
