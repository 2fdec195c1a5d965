"""What lists do with the catalogue: how much of it they show, how unknown and how unlike each other their items are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def coverage(lists: DataFrame, items: DataFrame, k: int) -> float:
    """Share of `items` (item_id, one row each) that stand within the first k of any list; 0 where there are none."""
    shown = lists.where(F.col("rank") <= k).select("item_id").distinct()
    found = items.select("item_id").join(shown.withColumn("_shown", F.lit(1)), "item_id", "left")
    counted = found.agg(F.count("_shown"), F.count(F.lit(1))).first()
    return counted[0] / counted[1] if counted and counted[1] else 0.0


def per_list(lists: DataFrame, items: pa.Table, k: int) -> DataFrame:
    """novelty and diversity of each user's list, cut at k: one row per user_id.

    `items` has item_id, `share` (of all users who acted on it, above 0) and `vector` (of length 1, or NULL).
    novelty is the mean of -log2(share) over the list's items, in bits (Vargas & Castells 2011, "Rank and Relevance in
    Novelty and Diversity Metrics for Recommender Systems"). diversity is the mean of 1 - cosine over all pairs of the
    list's items that have a vector (intra-list distance; Ziegler et al. 2005); NULL with fewer than two.
    Items that `items` does not have count in neither.
    """
    index = pa.table({"item_id": items["item_id"], "_item": pa.array(range(items.num_rows), pa.int32())})
    numbered = lists.where(F.col("rank") <= k).join(
        F.broadcast(lists.sparkSession.createDataFrame(index)), "item_id"
    )
    grouped = numbered.groupBy("user_id").agg(F.collect_set("_item").alias("_items"))
    surprise = -np.log2(items["share"].to_numpy())
    return grouped.mapInArrow(_judging(surprise, *_vectors(items)), "user_id string, novelty double, diversity double")


def _vectors(items: pa.Table) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Rows of length 1 or zero, and which items have one."""
    column = items["vector"].combine_chunks()
    has = column.is_valid().to_numpy(zero_copy_only=False)
    values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    rows = np.zeros((len(has), len(values) // max(int(has.sum()), 1)), np.float32)
    rows[has] = values.reshape(int(has.sum()), -1)
    return rows, has


def _judging(surprise: npt.NDArray[np.float64], vectors: npt.NDArray[np.float32], has: npt.NDArray[np.bool_]) -> Any:
    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            lengths = batch["_items"].value_lengths().to_numpy()
            items = batch["_items"].flatten().to_numpy()
            starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
            novelty = np.add.reduceat(surprise[items], starts) / lengths
            with_vector = np.add.reduceat(has[items].astype(np.int64), starts)
            # The sum over all pairs follows from the sum of the vectors, of which each has length 1.
            summed = np.add.reduceat(vectors[items], starts, axis=0).astype(np.float64)
            pairs = with_vector * (with_vector - 1)
            alike = ((summed**2).sum(1) - with_vector) / np.maximum(pairs, 1)
            yield pa.RecordBatch.from_pydict(
                {
                    "user_id": batch["user_id"],
                    "novelty": pa.array(novelty),
                    "diversity": pa.array(1 - alike, mask=pairs == 0),
                }
            )

    return work
