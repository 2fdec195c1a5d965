"""How good ranked lists are, user by user."""

from __future__ import annotations

import itertools
import math

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def per_user(lists: DataFrame, truth: DataFrame, k: int) -> DataFrame:
    """NDCG@k and Recall@k of each user's list against what the user then did.

    `lists` has user_id, item_id and the 1-based rank; `truth` user_id and item_id, duplicates counting once.
    Returns one row per user of `truth`: user_id, ndcg, recall (both in 0..1), hit_count, truth_count (bigint).

    Relevance is binary. DCG sums 1/log2(rank + 1) over the hits within k and is divided by the best that
    min(k, truth_count) hits could give (Järvelin & Kekäläinen 2002, "Cumulated gain-based evaluation of IR
    techniques"). Recall is hit_count over truth_count, also where truth_count is above k. A user with truth and
    without a list scores 0; a user without truth has no row; an item listed twice counts once, at its better rank.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, found {k}")
    shown = lists.where(F.col("rank") <= k).groupBy("user_id", "item_id").agg(F.min("rank").alias("rank"))
    hits = truth.select("user_id", "item_id").distinct().join(shown, ["user_id", "item_id"], "left")
    gain = F.coalesce(1 / F.log2(F.col("rank") + 1), F.lit(0.0))
    summed = hits.groupBy("user_id").agg(
        F.sum(gain).alias("_dcg"), F.count("rank").alias("hit_count"), F.count(F.lit(1)).alias("truth_count")
    )
    best = itertools.accumulate(1 / math.log2(rank + 1) for rank in range(1, k + 1))
    most = F.least(F.col("truth_count"), F.lit(k)).cast("int")
    ideal = F.element_at(F.array(*(F.lit(value) for value in best)), most)
    return summed.select(
        "user_id",
        (F.col("_dcg") / ideal).alias("ndcg"),
        (F.col("hit_count") / F.col("truth_count")).alias("recall"),
        "hit_count",
        "truth_count",
    )
