"""Solve users exactly against frozen item factors: the trainer's own half-step, in double and to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from nightrec.als.confidence import item_index, pairs, with_item_idx
from nightrec.als.objective import EXACT_STEPS, Doubles, Objective, Rows

if TYPE_CHECKING:
    # Every worker imports this module; the config's pydantic costs each 0.3 s.
    from nightrec.config import Als


def changed_users(events: DataFrame, since: date) -> DataFrame:
    """`user_id` of the users whose factors may have changed after the night `since`: a weight above 0 arrived later."""
    return events.where((F.col("ingest_date") > F.lit(since)) & (F.col("weight") > 0)).select("user_id").distinct()


def user_factors(events: DataFrame, item_factors: DataFrame, settings: Als) -> DataFrame:
    """`user_id`, `factors` of every user of the events with at least one item that has factors.

    `item_factors` are the rows of one model (`item_id`, `factors`); items it does not know are left out of the sums.
    """
    table = item_factors.select("item_id", "factors").toArrow().sort_by("item_id").combine_chunks()
    entries = F.sort_array(F.collect_list(F.struct("item_idx", "weight")))
    known = with_item_idx(pairs(events, settings.feedback), item_index(table["item_id"]))
    users = known.groupBy("user_id").agg(entries.alias("_entries"))
    users = users.select(
        "user_id", F.col("_entries.item_idx").alias("items"), F.col("_entries.weight").alias("weights")
    )
    rank = len(table["factors"][0]) if table.num_rows else 0
    factors = pa.chunked_array(table["factors"]).combine_chunks().flatten().to_numpy().reshape(-1, max(rank, 1))
    solving = _solving(Objective.of(settings), factors.astype(np.float64))
    return users.mapInArrow(solving, "user_id string, factors array<float>")


def _solving(
    objective: Objective, items: Doubles
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    gram = items.T @ items

    def solve(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if not batch.num_rows:
                continue
            columns, weights = batch.column("items"), batch.column("weights")
            starts = np.concatenate([[0], np.cumsum(columns.value_lengths().to_numpy())]).astype(np.int64)
            rows = Rows(starts, columns.flatten().to_numpy(), weights.flatten().to_numpy())
            solved = np.zeros((batch.num_rows, items.shape[1]))
            objective.solve(rows, solved, items, gram, EXACT_STEPS)
            bounds = pa.array(np.arange(len(solved) + 1) * solved.shape[1], pa.int32())
            lists = pa.ListArray.from_arrays(bounds, pa.array(solved.ravel(), pa.float32()))
            yield pa.RecordBatch.from_arrays([batch.column("user_id"), lists], ["user_id", "factors"])

    return solve
