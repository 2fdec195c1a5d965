"""What users did, one weight per (user, item), and the integer indices the solvers work with.

The weight of a pair is log(1 + sum of its events' weights): the compressed form that Hu, Koren and Volinsky give beside
the plain one in "Collaborative Filtering for Implicit Feedback Datasets" (2008), section 4. With plain sums one
standing order, bought week after week, would outweigh everything else that customer and that item ever did.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, Window
from pyspark.sql import functions as F

# Weights are added as whole millionths: a sum of doubles depends on the order of the rows, one of integers does not.
_UNIT = 1_000_000
# Users are numbered inside this many buckets, in parallel; a cluster has fewer cores than that per stage of this size.
_BUCKETS = 1024


def pair_weights(events: DataFrame) -> DataFrame:
    """One row per (`user_id`, `item_id`) with an event of weight above 0: `weight` float, above 0.

    Partitioned by user, so that whatever groups by user next needs no further shuffle.
    """
    summed = (
        events.where(F.col("weight") > 0)
        .select("user_id", "item_id", "weight")
        .repartition("user_id")
        .groupBy("user_id", "item_id")
        .agg(F.sum(F.round(F.col("weight") * _UNIT).cast("bigint")).alias("_units"))
    )
    # A weight below half a millionth rounds to nothing.
    return summed.where(F.col("_units") > 0).select(
        "user_id", "item_id", F.log1p(F.col("_units") / _UNIT).cast("float").alias("weight")
    )


def pair_ratings(events: DataFrame) -> DataFrame:
    """One row per (`user_id`, `item_id`) with a rating: its value as `weight`, float; of several the latest one.

    Of ratings of one instant the highest. Partitioned by user, as `pair_weights`.
    """
    rated = events.where((F.col("event_type") == "rating") & F.col("value").isNotNull())
    latest = F.max_by("value", F.struct("event_ts", "value")).cast("float").alias("weight")
    narrow = rated.select("user_id", "item_id", "event_ts", "value").repartition("user_id")
    return narrow.groupBy("user_id", "item_id").agg(latest)


def pairs(events: DataFrame, feedback: str) -> DataFrame:
    """What is factorized: `pair_ratings` of explicit feedback, `pair_weights` of implicit."""
    return pair_ratings(events) if feedback == "explicit" else pair_weights(events)


def item_index(item_ids: pa.ChunkedArray) -> pa.Table:
    """Distinct item ids in byte order with `item_idx` 0 .. I-1."""
    ordered = pc.unique(item_ids).cast(pa.string()).sort()
    return pa.table({"item_id": ordered, "item_idx": pa.array(range(len(ordered)), pa.int32())})


def with_item_idx(frame: DataFrame, index: pa.Table) -> DataFrame:
    """`frame` with `item_idx`; rows whose item is not in the index are left out. The index is sent to every worker."""
    return frame.join(F.broadcast(frame.sparkSession.createDataFrame(index)), "item_id")


def with_user_idx(frame: DataFrame) -> DataFrame:
    """`frame` with `user_idx`: an integer that follows from the set of user ids alone, whatever the rows' order.

    Users are ranked by id inside buckets of their hash, and bucket b holds the numbers b, b + 1024, b + 2048 ...: no
    user ever passes through the driver, and nothing has to be counted first. The numbers have gaps.
    """
    bucket = F.pmod(F.xxhash64("user_id"), F.lit(_BUCKETS)).cast("int")
    place = F.dense_rank().over(Window.partitionBy("_bucket").orderBy("user_id")) - 1
    return (
        frame.withColumn("_bucket", bucket).withColumn("user_idx", place * _BUCKETS + F.col("_bucket")).drop("_bucket")
    )
