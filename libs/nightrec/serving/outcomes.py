"""What users did with the lists they were served."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def joined(events: DataFrame, ranked: DataFrame) -> DataFrame:
    """Events that name a list in their context, each with that list's kind and key and the item's place in it.

    events: clean_events of one night. ranked: ranked_topk of the nights that count for it (lists.attribution_days).
    A list_id is made of its content, so any night's rows agree on kind, key, items and ranks; source and probability
    are those of the first of these nights with the list. A list of none of them leaves list_kind NULL; an item the list
    did not hold leaves rank, source and probability NULL.
    The rank that the event's context claims is not used.
    """
    named = events.withColumn("list_id", F.try_element_at("context", F.lit("list_id"))).where("list_id IS NOT NULL")
    # Nights named by tonight's events are few: all other lists ever ranked are dropped before the grouping.
    wanted = F.broadcast(named.select("list_id").distinct())
    served = (
        ranked.join(wanted, "list_id", "left_semi")
        .groupBy("list_id", "list_kind", "list_key", "item_id")
        .agg(F.min(F.struct("run_date", "rank", "source", "probability")).alias("_first"))
        .groupBy("list_id", "list_kind", "list_key")
        .agg(F.map_from_entries(F.collect_list(F.struct("item_id", "_first"))).alias("_items"))
    )
    place = F.try_element_at("_items", F.col("item_id"))
    return named.join(served, "list_id", "left").select(
        "list_id",
        "list_kind",
        "list_key",
        "item_id",
        place["rank"].alias("rank"),
        place["source"].alias("source"),
        place["probability"].alias("probability"),
        "event_type",
        "weight",
    )


def outcomes(events: DataFrame, run_date: date) -> DataFrame:
    """One row per served list and item, as in tables.OUTCOMES, from `joined` events but those of unknown lists.

    Views and clicks are clicks; any other type but impression with weight above 0 is a conversion. An item with none of
    the three (a dislike only) has no row.
    """
    kind = F.col("event_type")
    counts = {
        "impression_count": kind == "impression",
        "click_count": kind.isin("view", "click"),
        "conversion_count": ~kind.isin("impression", "view", "click") & (F.col("weight") > 0),
    }
    return (
        events.where("list_kind IS NOT NULL")
        .groupBy("list_id", "list_kind", "list_key", "item_id", "rank", "source", "probability")
        .agg(*(F.count_if(condition).alias(name) for name, condition in counts.items()))
        .where(" + ".join(counts) + " > 0")
        .withColumn("run_date", F.lit(run_date))
    )
