"""CEM: how much of a private image can be rebuilt from what a split model sends, and what does stopping that cost?"""

__version__ = "0.1.0"

# Raised whenever a change makes the pipeline produce other numbers from the same study: every rule carries it as a
# parameter, so Snakemake reruns what older code made. tests/unit/test_numerics.py fails where a raise was forgotten.
NUMERICS = 6

# The same for attacks: raised when they give other numbers. Snakemake then reruns attacks and retrains nothing.
ATTACK_NUMERICS = 6


class CemError(Exception):
    """An error that the user can correct. The message says what was expected, what came and what to do."""
