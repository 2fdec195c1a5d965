"""How often people come back to the same item: what decides whether lists may hold items of a user's past."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def span(events: DataFrame) -> tuple[date, date] | None:
    """Dates of the first and the last event with weight above 0; None where there is none."""
    found = events.where("weight > 0").agg(F.min("event_date"), F.max("event_date")).first()
    return (found[0], found[1]) if found and found[0] else None


def repeats(events: DataFrame, first: date, last: date) -> tuple[int, int]:
    """Events of the later half of the days from `first` to `last`; and those of an item on a later day than the user's
    first with it. Of events with weight above 0."""
    by_day = events.where("weight > 0").groupBy("user_id", "item_id", "event_date").agg(F.count("*").alias("_count"))
    is_later = F.date_diff("event_date", F.lit(first)) * 2 > (last - first).days
    later = F.coalesce(F.sum(F.when(is_later, F.col("_count"))), F.lit(0))
    begun = F.struct(F.min("event_date").alias("event_date"), F.min_by("_count", "event_date").alias("count"))
    pairs = by_day.groupBy("user_id", "item_id").agg(later.alias("_later"), begun.alias("_first"))
    first_is_later = F.date_diff("_first.event_date", F.lit(first)) * 2 > (last - first).days
    fresh = F.when(first_is_later, F.col("_first.count")).otherwise(0)
    found = pairs.agg(F.sum("_later"), F.sum(F.col("_later") - fresh)).first()
    return (int(found[0] or 0), int(found[1] or 0)) if found else (0, 0)
