"""Rows of the queue that other sites have: of a newer SLURM, of several clusters, of a reservation that has ended."""

import pytest
from harness import models

# As squeue prints with clusters named, and as a SLURM would whose words for these states are not known here.
NEWER = """\
echo 'CLUSTER: elsewhere'
$REAL "$@" | sed 's/|RUNNING|/|RUNNING_NEWLY|/; s/|COMPLETING|/|ENDS_NEWLY|/; s/|PENDING|/|WAITS_NEWLY|/'
"""


@pytest.fixture
def reservation(cluster):
    """Of node c2, an hour from now: whoever names it waits. Called, it begins, and is over at once."""
    words = ("reservation", "reservationname=cem_short")
    cluster.run("scontrol", "create", *words, "starttime=now+60minutes", "duration=1", "nodes=c2", "users=root")

    def end() -> None:
        for change in ("starttime=now+1seconds", "endtime=now+3seconds"):
            cluster.run("scontrol", "update", *words[1:], change)
        over = "No reservations in the system"
        cluster.wait_until(lambda: over in cluster.run("scontrol", "show", "reservation"), 90, "the reservation's end")

    yield end
    cluster.run("scontrol", "delete", *words[1:], check=False)  # of a test that failed before


def test_unknown_states_are_alive_and_a_reservation_that_ended_is_said_once(
    workflow, cluster, shims, reservation
) -> None:
    """The first head is killed: the second one must see both jobs in such rows, else it sends them again."""
    shims("squeue", NEWER)
    workflow.runs = {"a": {"epochs": 100, "partition": "cpu", "gpu": 0}}
    workflow.profile["set-resources"] = {"greet": {"slurm_extra": "--reservation=cem_short"}}
    targets = [*models("a"), "hosts/1.txt"]
    first = workflow.head(*targets)
    start = workflow.wait_for_training("a")
    [waiting] = [row["id"] for row in cluster.squeue() if row["state"] == "PENDING"]
    cluster.run("scontrol", "uhold", waiting)  # or it would start as the reservation begins
    first.kill()
    reservation()
    cluster.wait_for_state(waiting, "RESV_DEL_HOLD")

    again = workflow.head(*targets)
    told = f"job {waiting} (greet number=1) will not start by itself: Reservation cem_short was deleted. Let it go with"
    again.wait_for(f"{told}: scontrol release {waiting}.", 60)
    cluster.run("scontrol", "release", waiting)
    assert again.wait(60) == 0
    output = again.output()
    assert f"adopted job {start['job']}" in output
    assert f"adopted job {waiting}" in output
    assert output.count("will not start") == 1
    assert "does not answer" not in output
    assert (workflow.folder / "hosts/1.txt").exists()
    workflow.check_trained_once("a")
    assert len(workflow.starts()) == 1
