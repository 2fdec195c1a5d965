"""What every user did, as the candidates stage reads it: latest items, what is hidden from them, and counts of both."""

from __future__ import annotations

from datetime import date, timedelta

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from nightrec import weekdays
from nightrec.config import Candidates
from nightrec.seen import hides

_COUNTS = ("basket", "recent", "first", "days")


def histories(
    events: DataFrame, item_id: pa.ChunkedArray, run_date: date, recent_days: int, settings: Candidates
) -> DataFrame:
    """One row per user of the events, items by number in `item_id`:

    `masked`: acted on before (any event but an impression, weight 0 included), or only disliked ones where repeats are
    allowed; `basket`: latest distinct items with weight above 0, newest first; `recent`: those with such
    an event in the `recent_days` that end with `run_date`, as the profiles count them; `first`: those of them on the
    user's first day with any, where it lies in these days. Beside `basket`, item by item,
    `own_days` with such events, `own_age`, days since the last of them, `own_span`, days from the first to it, and
    `own_moment`, the time of the last, a number that grows into the past. `weekday_share`: of the user's days with such
    events in the last tables.WEEKDAY_DAYS, the share on the day of the week on which lists are read; 0 without any.
    """
    index = pa.table({"item_id": item_id, "item_idx": pa.array(range(len(item_id)), pa.int32())})
    numbered = events.join(F.broadcast(events.sparkSession.createDataFrame(index)), "item_id")
    first = run_date - timedelta(days=recent_days - 1)
    counts = F.col("weight") > 0
    pairs = (
        numbered.repartition("user_id")
        .groupBy("user_id", "item_idx")
        .agg(
            F.max(F.when(counts, F.col("event_ts"))).alias("_last"),
            F.max(hides(repeats_allowed=settings.repeats_allowed)).alias("_hides"),
            F.max(counts & F.col("event_date").between(F.lit(first), F.lit(run_date))).alias("_recent"),
            F.size(F.collect_set(F.when(counts, F.col("event_date")))).alias("_days"),
            F.min(F.when(counts, F.col("event_date"))).alias("_first_date"),
            F.max(F.when(counts, F.col("event_date"))).alias("_last_date"),
            weekdays.days(counts, run_date).alias("_latest_days"),
        )
    )
    # collect_list passes over nulls; a struct sorts by its first field, then its second.
    entry = F.struct(
        (-F.unix_micros("_last")).alias("moment"),
        "item_idx",
        F.col("_days").alias("days"),
        F.greatest(F.date_diff(F.lit(run_date), "_last_date"), F.lit(0)).alias("age"),
        F.date_diff("_last_date", "_first_date").alias("span"),
    )
    latest = F.collect_list(F.when(F.col("_last").isNotNull(), entry))
    users = pairs.groupBy("user_id").agg(
        F.sort_array(F.collect_list(F.when(F.col("_hides"), F.col("item_idx")))).alias("masked"),
        F.slice(F.sort_array(latest), 1, settings.basket).alias("_latest"),
        F.collect_list(F.when(F.col("_recent"), F.struct("item_idx", "_first_date"))).alias("_recent"),
        F.min("_first_date").alias("_began"),
        F.bit_or("_latest_days").alias("_latest_days"),
    )
    on_weekday = weekdays.on(F.col("_latest_days"), run_date, weekdays.reading(run_date))
    all_days = F.nullif(F.bit_count("_latest_days"), F.lit(0))
    began = F.when(F.col("_began") >= F.lit(first), F.col("_began"))
    on_first_day = F.filter("_recent", lambda entry: F.coalesce(entry["_first_date"] == began, F.lit(False)))
    return users.select(
        "user_id",
        "masked",
        F.col("_latest.item_idx").alias("basket"),
        F.col("_recent.item_idx").alias("recent"),
        on_first_day["item_idx"].alias("first"),
        F.coalesce(on_weekday / all_days, F.lit(0.0)).alias("weekday_share"),
        *(F.col(f"_latest.{name}").alias(f"own_{name}") for name in ("days", "age", "span", "moment")),
    )


def user_counts(histories: DataFrame, user_profiles: DataFrame) -> pa.Table:
    """Per `segment` (null: none) and `item_idx`: users who have the item in their `basket`, in their `recent` and in
    their `first`, and the `days` on which those of the first of these acted on it.
    """
    one = F.lit(1)
    in_basket = F.zip_with("basket", "own_days", lambda item, days: _counted(item, basket=one, days=days))
    in_recent = F.transform("recent", lambda item: _counted(item, recent=one))
    in_first = F.transform("first", lambda item: _counted(item, first=one))
    users = histories.join(user_profiles.select("user_id", "segment"), "user_id", "left")
    entries = users.select("segment", F.explode(F.concat(in_basket, in_recent, in_first)).alias("_entry"))
    return (
        entries.select("segment", "_entry.*")
        .groupBy("segment", "item_idx")
        .agg(*(F.sum(name).alias(name) for name in _COUNTS))
        .toArrow()
    )


def _counted(item: Column, **counts: Column) -> Column:
    """A user's item and what it adds to each of _COUNTS."""
    return F.struct(item.alias("item_idx"), *(counts.get(name, F.lit(0)).alias(name) for name in _COUNTS))
