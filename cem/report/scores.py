"""Scores image by image, of attacks on the runs of a group: what intervals over seeds and images are made of."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from cem.planning.plan import Plan
from cem.report.inputs import SCOPES, read_metrics
from cem.report.statistics import Estimate, crossed, over_seeds

STORED = {"recognised": "victim_accuracy", "identified": "rank1"}  # an attack's column of yes and no → its mean
_COLUMN = {mean: column for column, mean in STORED.items()}


class Scores:
    """Reads each attack's scores once. rows: of results, one per seed, all of one scope."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._read: dict[tuple[str, str], dict[str, pd.DataFrame]] = {}

    def images(self, run: str, attack: str, scope: str, column: str) -> "pd.Series[Any]":
        """A metric, as results name it, by index of the image."""
        if (run, attack) not in self._read:
            table = read_metrics(self._plan, self._plan.runs[run], attack)
            scopes, table = table["scope"].to_numpy(), table.set_index("index")
            self._read[run, attack] = {name: table[scopes == name] for name in SCOPES}
        return self._read[run, attack][scope][_COLUMN.get(column, column)].astype(float)

    def table(self, rows: pd.DataFrame, column: str) -> Float[np.ndarray, "seeds images"] | None:
        """One line per row, in its order; None where they are scored on different images."""
        named = zip(rows["run"], rows["attack"], rows["scope"], strict=True)
        lines = [self.images(run, attack, scope, column) for run, attack, scope in named]
        if any(not line.index.equals(lines[0].index) for line in lines):
            return None
        return np.stack([line.to_numpy() for line in lines])

    def estimate(self, rows: pd.DataFrame, column: str, scale: float = 1.0) -> Estimate:
        """Mean and interval of a metric; images crossed with the seeds where these share them."""
        if len(rows) < 2 or rows[column].isna().any():
            return over_seeds(scale * rows[column])
        table = self.table(rows, column)
        return over_seeds(scale * rows[column]) if table is None else crossed(scale * table)
