"""CEM: how much of a private image can be rebuilt from what a split model sends, and what does stopping that cost?"""

__version__ = "0.1.0"

# Raised whenever a change makes the pipeline produce other numbers from the same study: every rule carries it as a
# parameter, so Snakemake reruns what was made by older code. tests/unit/test_numerics.py notices a forgotten raise.
NUMERICS = 5

# The same for what comes after training: raised when attacks give other numbers, it reruns them and retrains nothing.
ATTACK_NUMERICS = 2


class CemError(Exception):
    """Something the user can mend. The message says what was expected, what came and what to do."""
