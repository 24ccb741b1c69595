"""A fit that is asked to stop after so many batches, again and again."""

from cem.jobs.interruption import Interrupted


def fit_in_pieces(make, knowledge, store, batches):
    """The attack and its record, fitted by as many attempts as it takes; and how many those were."""
    attempts = 0
    while True:
        attempts, store.looks = attempts + 1, batches
        attack = make(store)
        try:
            return attack, attack.fit(knowledge), attempts
        except Interrupted:
            pass


def without_seconds(curve):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in curve]
