"""What is expected of an encoder in closed form, without an attacker: the linear least error, Fisher information."""

from cem.expected.fisher import Fisher, fisher_leakage
from cem.expected.linear import LinearError, Moments, linear_error

__all__ = ["Fisher", "LinearError", "Moments", "fisher_leakage", "linear_error"]
