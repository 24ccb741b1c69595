"""A job's state in a file, and a request to stop after so many batches."""

from cem.jobs.interruption import Interrupted, Progress
from cem.storage.tensors import load_checkpoint, save_checkpoint


class Stopping(Progress):
    """Keeps the state in `path`; asks to stop after `batches` batches of an attempt."""

    def __init__(self, path, batches):
        self.path, self.left = path, batches

    def load(self):
        return load_checkpoint(self.path, "state") if self.path.exists() else None

    def save(self, tensors, header):
        save_checkpoint(self.path, "state", tensors, header)

    def asked_to_stop(self):
        self.left -= 1
        return self.left < 0


def fit_in_pieces(make, knowledge, path, batches):
    """The attack and its record, fitted by as many attempts as it takes; and how many those were."""
    attempts = 0
    while True:
        attempts += 1
        attack = make(Stopping(path, batches))
        try:
            return attack, attack.fit(knowledge), attempts
        except Interrupted:
            pass


def without_seconds(curve):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in curve]
