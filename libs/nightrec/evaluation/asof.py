"""What the log says as of a cut, for the baselines; and what users did after it."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse

from nightrec.evaluation.baselines import EVER, WINDOWS, Items
from nightrec.serving.cooccurrence import COUNTS, counting


def pairs(events: DataFrame, cut: date) -> DataFrame:
    """One row per user and item of the events with weight above 0 up to the cut: `count`, `age` of the last in days."""
    return (
        events.where((F.col("weight") > 0) & (F.col("event_date") <= F.lit(cut)))
        .groupBy("user_id", "item_id")
        .agg(F.count(F.lit(1)).cast("int").alias("count"), F.date_diff(F.lit(cut), F.max("event_date")).alias("age"))
    )


def numbered(pairs: DataFrame, item_id: pa.Array) -> DataFrame:
    """`pairs` of the items on offer, by number in `item_id` (sorted): user_id, `item`, `count`, `age`."""
    index = pa.table({"item_id": item_id, "item": pa.array(range(len(item_id)), pa.int32())})
    return pairs.join(F.broadcast(pairs.sparkSession.createDataFrame(index)), "item_id").drop("item_id")


def histories(numbered: DataFrame) -> DataFrame:
    """baselines.HISTORY: one row per user, items ascending."""
    entry = F.sort_array(F.collect_list(F.struct("item", "count", "age")))
    return numbered.groupBy("user_id").agg(entry.alias("_all")).select(
        "user_id", F.col("_all.item").alias("items"), F.col("_all.count").alias("counts"),
        F.col("_all.age").alias("ages"),
    )  # fmt: skip


def items(numbered: DataFrame, histories: DataFrame, item_id: pa.Array) -> Items:
    """The item side of the baselines. What is gathered grows with items and with pairs of items, not with users."""
    windows = [F.count_if(F.col("age") < days).alias(f"_{days}") for days in WINDOWS]
    counted = numbered.groupBy("item").agg(*windows, F.count(F.lit(1)).alias("_ever")).toArrow()
    users = np.zeros((len(item_id), EVER + 1))
    users[counted["item"].to_numpy()] = np.column_stack([column.to_numpy() for column in counted.columns[1:]])
    found = histories.select(F.col("items").alias("basket")).mapInArrow(counting(len(item_id)), COUNTS).toArrow()
    rows = np.repeat(found["item_idx"].to_numpy(), _lengths(found["neighbour_idx"]))
    columns, values = (found[name].combine_chunks().flatten().to_numpy() for name in ("neighbour_idx", "users"))
    together = sparse.csr_matrix((values.astype(np.float64), (rows, columns)), (len(item_id), len(item_id)))
    return Items(item_id, users, together)


def _lengths(lists: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(pc.list_value_length(lists).to_numpy(), np.int64)


def acted(events: DataFrame, cut: date, days: int, *, repeats_allowed: bool, before: DataFrame) -> DataFrame:
    """What each user did in the `days` after the cut with weight above 0: user_id, item_id, one row per pair.

    Only what arrived in those days and also happened then. Where repeats are not allowed, pairs of `before` (user_id,
    item_id: everything acted on up to the cut) are left out.
    """
    last = cut + timedelta(days=days)
    arrived = F.col("ingest_date").between(F.lit(cut + timedelta(days=1)), F.lit(last))
    happened = (F.col("event_date") > F.lit(cut)) & (F.col("weight") > 0)
    found = events.where(arrived & happened).select("user_id", "item_id").distinct()
    if repeats_allowed:
        return found
    return found.join(before.select("user_id", "item_id").distinct(), ["user_id", "item_id"], "left_anti")
