"""How fast the jobs get done, and when the rest will be."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterable


class Pace:
    """Counts what is planned and what is done, and estimates the time left from the work done per second so far."""

    def __init__(self, planned: Iterable[str], now: float | None = None) -> None:
        """planned: the rule of each job that is to run."""
        self._left = Counter(planned)
        self._began = time.time() if now is None else now
        self._seconds: dict[str, list[float]] = defaultdict(list)

    @property
    def left(self) -> int:
        """Jobs that are not done."""
        return self._left.total()

    def done(self, rule: str, seconds: float) -> None:
        """A job is done, and took so long."""
        self._seconds[rule].append(seconds)
        self._left[rule] = max(0, self._left[rule] - 1)

    def seconds_left(self, now: float | None = None) -> float | None:
        """None while nothing is done. A rule that was not seen yet is taken to last as long as the others."""
        seen = [one for all_of_rule in self._seconds.values() for one in all_of_rule]
        elapsed = (time.time() if now is None else now) - self._began
        if not sum(seen) or elapsed <= 0:
            return None
        mean = {rule: sum(found) / len(found) for rule, found in self._seconds.items()}
        work = sum(count * mean.get(rule, sum(seen) / len(seen)) for rule, count in self._left.items())
        return work * elapsed / sum(seen)


def spoken(seconds: float) -> str:
    """A duration as people say it: 40 s, 12 min, 3.5 h, 2 days."""
    for size, unit in ((172800, 86400), (5400, 3600), (90, 60)):
        if seconds >= size:
            name = {86400: "days", 3600: "h", 60: "min"}[unit]
            return f"{seconds / unit:.3g} {name}" if unit > 60 else f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"
