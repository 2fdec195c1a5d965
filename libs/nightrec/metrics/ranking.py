"""How good ranked lists are, user by user."""

from __future__ import annotations

import itertools
import math

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F


def per_user(lists: DataFrame, truth: DataFrame, k: int) -> DataFrame:
    """The figures of each user's list, cut at k, against what the user then did.

    `lists` has user_id, item_id and the 1-based rank; `truth` user_id and item_id, duplicates counting once. With a
    column `weight` (above 0) in `truth`, debiased_ndcg weighs each item by it; without, every item alike.
    Returns one row per user of `truth`: user_id; ndcg, recall, precision, f1, hit, average_precision, debiased_ndcg
    (all in 0..1); hit_count, truth_count (bigint).

    Relevance is binary. DCG sums 1/log2(rank + 1) over the hits within k and is divided by the best that
    min(k, truth_count) hits could give (Järvelin & Kekäläinen 2002, "Cumulated gain-based evaluation of IR
    techniques"); debiased_ndcg does so with the weights as gains. Recall is hit_count over truth_count, also where
    truth_count is above k; precision is hit_count over k, also where the list is shorter; f1 is their harmonic mean.
    average_precision sums the precision at each hit and is divided by min(k, truth_count); its mean is MAP@k. hit is 1
    where anything was. A user with truth and without a list scores 0; a user without truth has no row; an item listed
    twice counts once, at its better rank.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, found {k}")
    shown = lists.where(F.col("rank") <= k).groupBy("user_id", "item_id").agg(F.min("rank").alias("rank"))
    weight = F.max("weight") if "weight" in truth.columns else F.lit(1.0)
    wanted = truth.groupBy("user_id", "item_id").agg(weight.alias("_weight"))
    gain = F.coalesce(1 / F.log2(F.col("rank") + 1), F.lit(0.0))
    users = (
        wanted.join(shown, ["user_id", "item_id"], "left")
        .groupBy("user_id")
        .agg(
            F.sum(gain).alias("_dcg"),
            F.sum(gain * F.col("_weight")).alias("_weighted"),
            F.sort_array(F.collect_list("_weight"), asc=False).alias("_weights"),
            F.sort_array(F.collect_list("rank")).alias("_ranks"),
            F.count("rank").alias("hit_count"),
            F.count(F.lit(1)).alias("truth_count"),
        )
    )
    most = F.least(F.col("truth_count"), F.lit(k)).cast("int")
    precision, recall = F.col("hit_count") / k, F.col("hit_count") / F.col("truth_count")
    return users.select(
        "user_id",
        (F.col("_dcg") / _ideal(most, k)).alias("ndcg"),
        recall.alias("recall"),
        precision.alias("precision"),
        F.when(F.col("hit_count") > 0, 2 * precision * recall / (precision + recall)).otherwise(0.0).alias("f1"),
        (F.col("hit_count") > 0).cast("double").alias("hit"),
        (_summed(F.transform("_ranks", lambda rank, place: (place + 1) / rank)) / most).alias("average_precision"),
        (F.col("_weighted") / _summed(F.zip_with(F.slice("_weights", 1, k), _discounts(k), _product))).alias(
            "debiased_ndcg"
        ),
        "hit_count",
        "truth_count",
    )


def _ideal(hits: Column, k: int) -> Column:
    """The DCG of so many hits at the top."""
    best = itertools.accumulate(1 / math.log2(rank + 1) for rank in range(1, k + 1))
    return F.element_at(F.array(*(F.lit(value) for value in best)), hits)


def _discounts(k: int) -> Column:
    return F.array(*(F.lit(1 / math.log2(rank + 1)) for rank in range(1, k + 1)))


def _product(weight: Column, discount: Column) -> Column:
    """Of two arrays the longer one is filled up with nulls: nothing is gained beyond the end of either."""
    return F.coalesce(weight * discount, F.lit(0.0))


def _summed(values: Column) -> Column:
    return F.aggregate(values, F.lit(0.0), lambda total, value: total + value)
