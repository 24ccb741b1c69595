"""What was submitted earlier to make the same files in the same way: a job's attempts over all heads."""

from collections import defaultdict
from collections.abc import Iterable

from snakemake_executor_plugin_submitit.records import Member, Submission

Places = list[tuple[Submission, int]]


class Histories:
    """Of all jobs on record when a head starts: their submissions since their files were last made."""

    def __init__(self, submissions: Iterable[Submission]) -> None:
        """submissions: oldest first."""
        self._places: dict[tuple[str, ...], Places] = defaultdict(list)
        for submission in submissions:
            for index, member in enumerate(submission.members):
                self._places[_same(member.key, member.outputs)].append((submission, index))

    def before(self, key: str, outputs: list[str]) -> Places:
        """Of a job that is to be submitted now."""
        return _since_done(self._places[_same(key, outputs)])

    def until(self, submission: Submission, index: int) -> Places:
        """Of a job that is on record, itself the last."""
        member: Member = submission.members[index]
        places = self._places[_same(member.key, member.outputs)]
        return [*_since_done(places[: places.index((submission, index))]), (submission, index)]


def _since_done(places: Places) -> Places:
    done = [position for position, (one, index) in enumerate(places) if one.members[index].state == "done"]
    return [place for place in places[done[-1] + 1 if done else 0 :] if place[0].job_id is not None]


def _same(key: str, outputs: list[str]) -> tuple[str, ...]:
    return key, *sorted(outputs)
