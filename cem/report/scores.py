"""Scores image by image, of attacks on the runs of a group: what intervals over seeds and images are made of."""

from functools import lru_cache

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from cem.planning.plan import Plan
from cem.report.inputs import SCOPES, read_metrics
from cem.report.statistics import Estimate, crossed, over_seeds

STORED = {"identified": "rank1", "identified_of_1000": "rank1_of_1000"}  # an attack's column of yes and no → its mean
PerImage = Float[np.ndarray, " images"]
Rows = Int[np.ndarray, " images"]
MOST_KEPT = 2000  # attacks: with two scopes of 1,000 images, some 400 MB
_COLUMN = {mean: column for column, mean in STORED.items()}


class Scores:
    """Reads attacks' scores, and keeps the latest `MOST_KEPT`. rows: of results, one per seed, all of one scope."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._table = lru_cache(MOST_KEPT)(self._read)

    def images(self, run: str, attack: str, scope: str, column: str) -> PerImage:
        """A metric, as results name it, of each image that the attack was scored on."""
        table, rows = self._table(run, attack)
        values: PerImage = table[_COLUMN.get(column, column)].to_numpy(float)[rows[scope]]
        return values

    def table(self, rows: pd.DataFrame, column: str) -> Float[np.ndarray, "seeds images"] | None:
        """One line per row, in its order; None where they are scored on different images."""
        named = list(zip(rows["run"], rows["attack"], rows["scope"], strict=True))
        scored = [self._scored(*one) for one in named]
        if any(not np.array_equal(one, scored[0]) for one in scored):
            return None
        return np.stack([self.images(*one, column) for one in named])

    def _scored(self, run: str, attack: str, scope: str) -> Rows:
        """Indices of the images, in the data set's split."""
        table, rows = self._table(run, attack)
        indices: Rows = table["index"].to_numpy()[rows[scope]]
        return indices

    def _read(self, run: str, attack: str) -> tuple[pd.DataFrame, dict[str, Rows]]:
        """An attack's scores, and which of their rows each scope has. As arrays: large studies have thousands."""
        table = read_metrics(self._plan, self._plan.runs[run], attack)
        scopes = table["scope"].to_numpy()
        return table, {name: np.flatnonzero(scopes == name) for name in SCOPES}

    def estimate(self, rows: pd.DataFrame, column: str, scale: float = 1.0) -> Estimate:
        """Mean and interval of a metric; images crossed with the seeds where these share them."""
        if len(rows) < 2 or rows[column].isna().any():
            return over_seeds(scale * rows[column])
        table = self.table(rows, column)
        return over_seeds(scale * rows[column]) if table is None else crossed(scale * table)
