"""Solve users exactly against frozen item factors: what the trainer's own last half-step would have given them.

Letters: U users, I items, D factors, L entries of a user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from nightrec.als.confidence import item_index, pair_weights, with_item_idx

if TYPE_CHECKING:
    # Every worker imports this module; the config's pydantic costs each 0.3 s.
    from nightrec.config import Als

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Numbers gathered at once per worker: 2**22 doubles are 32 MiB.
_CELLS = 2**22


@dataclass(frozen=True)
class Solver:
    """The implicit-feedback objective of Hu et al. 2008 with the penalty of Zhou et al. 2008, as Spark ML states it.

    x_u = (YtY + sum_i a w_ui y_i y_i' + l n_u 1)^-1 sum_i (1 + a w_ui) y_i, with Y all item factors, w_ui > 0 the
    weight of the pair, a `alpha`, l `regularisation` and n_u the number of the user's items.
    """

    factors: Floats  # I x D
    gram: Floats  # D x D, YtY
    alpha: float
    regularisation: float

    @classmethod
    def of(cls, factors: Floats, settings: Als) -> Solver:
        """A solver for item factors (I x D)."""
        return cls(factors, factors.T @ factors, settings.alpha, settings.regularisation)

    def solve(self, offsets: Ints, items: Ints, weights: Floats) -> npt.NDArray[np.float32]:
        """Factors (U x D) of users whose entries are items[offsets[u]:offsets[u + 1]], at least one each.

        Users are padded to the next power of two of their own length and solved side by side. The padding follows from
        the user alone, so a user's factors do not depend on who else is in the batch.
        """
        lengths = np.diff(offsets)
        padded = 2 ** np.ceil(np.log2(lengths)).astype(np.int64)
        solved = np.empty((len(lengths), self.factors.shape[1]), np.float32)
        for length in np.unique(padded):
            alike = np.flatnonzero(padded == length)
            step = max(1, _CELLS // (int(length) * self.factors.shape[1]))
            for start in range(0, len(alike), step):
                users = alike[start : start + step]
                solved[users] = self._block(offsets[users], lengths[users], int(length), items, weights)
        return solved

    def _block(self, starts: Ints, lengths: Ints, length: int, items: Ints, weights: Floats) -> Floats:
        """Users padded to one length: the normal equations of all, solved at once."""
        entry = np.arange(length)
        real = entry < lengths[:, None]  # U x L
        cell = np.where(real, starts[:, None] + entry, 0)
        factors = self.factors[items[cell]]  # U x L x D
        extra = np.where(real, self.alpha * weights[cell], 0.0)
        left = np.matmul((factors * extra[:, :, None]).transpose(0, 2, 1), factors) + self.gram
        left += (self.regularisation * lengths)[:, None, None] * np.eye(self.factors.shape[1])
        right = np.matmul(np.where(real, 1.0 + extra, 0.0)[:, None, :], factors)  # U x 1 x D
        solution: Floats = np.linalg.solve(left, right.transpose(0, 2, 1))[:, :, 0]
        return solution


def changed_users(events: DataFrame, since: date) -> DataFrame:
    """`user_id` of the users whose factors may have changed after the night `since`: a weight above 0 arrived later."""
    return events.where((F.col("ingest_date") > F.lit(since)) & (F.col("weight") > 0)).select("user_id").distinct()


def user_factors(events: DataFrame, item_factors: DataFrame, settings: Als) -> DataFrame:
    """`user_id`, `factors` of every user of the events with at least one item that has factors.

    `item_factors` are the rows of one model (`item_id`, `factors`); items it does not know are left out of the sums.
    """
    table = item_factors.select("item_id", "factors").toArrow().sort_by("item_id").combine_chunks()
    entries = F.sort_array(F.collect_list(F.struct("item_idx", "weight")))
    known = with_item_idx(pair_weights(events), item_index(table["item_id"]))
    users = known.groupBy("user_id").agg(entries.alias("_entries"))
    users = users.select(
        "user_id", F.col("_entries.item_idx").alias("items"), F.col("_entries.weight").alias("weights")
    )
    rank = len(table["factors"][0]) if table.num_rows else 0
    factors = pa.chunked_array(table["factors"]).combine_chunks().flatten().to_numpy().reshape(-1, max(rank, 1))
    solver = Solver.of(factors.astype(np.float64), settings)
    return users.mapInArrow(_solving(solver), "user_id string, factors array<float>")


def _solving(solver: Solver) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def solve(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if not batch.num_rows:
                continue
            items, weights = batch.column("items"), batch.column("weights")
            offsets = np.concatenate([[0], np.cumsum(items.value_lengths().to_numpy())]).astype(np.int64)
            solved = solver.solve(
                offsets, items.flatten().to_numpy().astype(np.int64), weights.flatten().to_numpy().astype(np.float64)
            )
            starts = pa.array(np.arange(len(solved) + 1) * solved.shape[1], pa.int32())
            rows = pa.ListArray.from_arrays(starts, pa.array(solved.ravel(), pa.float32()))
            yield pa.RecordBatch.from_arrays([batch.column("user_id"), rows], ["user_id", "factors"])

    return solve
