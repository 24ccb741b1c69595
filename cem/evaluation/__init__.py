"""One attack on one run: fitted on what the attacker owns, scored once on private and on test images."""

from cem.evaluation.evaluator import Evaluator, fit_evaluator, load_evaluator
from cem.evaluation.run import attack_run, run_attacks
from cem.evaluation.victim import EvaluationError, Network, Victim, load_network

__all__ = [
    "EvaluationError",
    "Evaluator",
    "Network",
    "Victim",
    "attack_run",
    "fit_evaluator",
    "load_evaluator",
    "load_network",
    "run_attacks",
]
