"""Items as of a night: what the catalogue says, how much they were used, and the text that BERT reads."""

from __future__ import annotations

from datetime import date, timedelta
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from nightrec import weekdays
from nightrec.profiles.text import enumerated, listed, text_hash, tidy
from nightrec.tables import WINDOWS

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# Characters of a description in the text: about 40 of the encoder's 64 tokens, so that title and categories still fit.
DESCRIPTION_LENGTH = 200

_CATALOGUE = {
    "title": "string",
    "description": "string",
    "categories": "array<string>",
    "tags": "array<string>",
    "attributes": "map<string,string>",
    "available_from": "timestamp",
    "available_until": "timestamp",
}


def item_profiles(catalogue: DataFrame | None, events: DataFrame, run_date: date, recent_days: int) -> DataFrame:
    """One row per item of the snapshot or of the events, in the columns of tables.ITEM_PROFILES.

    `catalogue` is the snapshot of the night, one row per item_id; None where the deployment has none: then every item
    of the events counts as in the catalogue. `events` are those that arrived up to the night; one whose own date lies
    after `run_date` (a fast clock, within events.future_tolerance_hours) is left out and counts from its own date on.
    Counts and first and last times are over events with weight above 0. `recent_days` end with `run_date`.
    An item is available when the day after the night, on which the lists are read, is neither before the day of
    available_from nor after that of available_until; an open end does not bind.
    """
    counts = item_counts(events.where(F.col("event_date") <= F.lit(run_date)), run_date, recent_days)
    peak = counts.agg(F.max("recent_user_count").alias("_peak"))
    known = with_catalogue(counts, catalogue).crossJoin(F.broadcast(peak))
    title = item_title()
    text = item_text(title)
    share = F.coalesce(F.col("recent_user_count") / F.nullif("_peak", F.lit(0)), F.lit(0.0))
    nobody, no_day = (F.array_repeat(F.lit(0).cast("bigint"), width) for width in (len(WINDOWS), 7))
    return known.select(
        F.lit(run_date).alias("run_date"),
        "item_id",
        title.alias("title"),
        "description",
        listed(F.col("categories")).alias("categories"),
        listed(F.col("tags")).alias("tags"),
        "attributes",
        "in_catalogue",
        (F.col("in_catalogue") & _available(run_date + timedelta(days=1))).alias("is_available"),
        "event_count",
        "user_count",
        "recent_user_count",
        share.alias("popularity_share"),
        F.coalesce("window_user_counts", nobody).alias("window_user_counts"),
        F.coalesce("weekday_user_days", no_day).alias("weekday_user_days"),
        F.coalesce("repeat_user_count", F.lit(0)).alias("repeat_user_count"),
        "repeat_gap_days",
        "first_event_ts",
        "last_event_ts",
        text.alias("text"),
        text_hash(text).alias("text_hash"),
    )


def item_counts(events: DataFrame, run_date: date, recent_days: int) -> DataFrame:
    """One row per item of `events`, in the columns of tables.ITEM_PROFILES that count them.

    Counted per pair of item and user first: the distinct users then need no second pass over the events.
    """
    counts = F.col("weight") > 0
    recent = F.date_sub(F.lit(run_date), recent_days)
    pairs = events.groupBy("item_id", "user_id").agg(
        F.count_if(counts).alias("_count"),
        F.min(F.when(counts, F.col("event_ts"))).alias("_first"),
        F.max(F.when(counts, F.col("event_ts"))).alias("_last"),
        F.max(F.when(counts, F.col("event_date"))).alias("_last_date"),
        F.min(F.when(counts, F.col("event_date"))).alias("_first_date"),
        F.size(F.collect_set(F.when(counts, F.col("event_date")))).alias("_days"),
        weekdays.days(counts, run_date).alias("_latest_days"),
    )
    age = F.date_diff(F.lit(run_date), F.col("_last_date"))
    windows = F.array(*(F.count_if(age < days) for days in WINDOWS))
    by_weekday = F.array(*(F.sum(weekdays.on(F.col("_latest_days"), run_date, weekday)) for weekday in range(7)))
    span = F.date_diff("_last_date", "_first_date")
    # Whole days over whole gaps: a mean of means would depend on the order of rows.
    gap = F.sum(F.when(F.col("_days") > 1, span)) / F.sum(F.when(F.col("_days") > 1, F.col("_days") - 1))
    return pairs.groupBy("item_id").agg(
        F.sum("_count").alias("event_count"),
        F.count_if(F.col("_count") > 0).alias("user_count"),
        F.count_if(F.col("_last_date") > recent).alias("recent_user_count"),
        windows.alias("window_user_counts"),
        by_weekday.alias("weekday_user_days"),
        F.count_if(F.col("_days") > 1).alias("repeat_user_count"),
        gap.alias("repeat_gap_days"),
        F.min("_first").alias("first_event_ts"),
        F.max("_last").alias("last_event_ts"),
    )


def with_catalogue(counts: DataFrame, catalogue: DataFrame | None) -> DataFrame:
    """`counts` with the catalogue's columns and in_catalogue, and the catalogue's items that have no events."""
    if catalogue is None:
        unknown = {name: F.lit(None).cast(type_) for name, type_ in _CATALOGUE.items()}
        return counts.withColumns({**unknown, "in_catalogue": F.lit(True)})
    both = catalogue.select("item_id", *_CATALOGUE, F.lit(True).alias("_listed")).join(counts, "item_id", "full_outer")
    zero = {name: F.coalesce(name, F.lit(0)).alias(name) for name in ("event_count", "user_count", "recent_user_count")}
    return both.withColumns({**zero, "in_catalogue": F.coalesce("_listed", F.lit(False))})


def item_title() -> Column:
    """The catalogue's title; the item's id where there is none."""
    return F.coalesce(tidy(F.col("title")), F.col("item_id"))


def item_text(title: Column) -> Column:
    """`Title. categories. tags. start of the description`, without the parts that are missing.

    Categories and tags are sorted: a catalogue that lists them in another order is not encoded again.
    """
    return F.concat_ws(
        ". ",
        title,
        enumerated(F.array_sort(listed(F.col("categories")))),
        enumerated(F.array_sort(listed(F.col("tags")))),
        tidy(F.left(tidy(F.col("description")), F.lit(DESCRIPTION_LENGTH))),
    )


def _available(day: date) -> Column:
    """Whether `day` lies between the days of available_from and available_until, both included."""
    starts, ends = F.to_date("available_from"), F.to_date("available_until")
    return F.coalesce(starts <= F.lit(day), F.lit(True)) & F.coalesce(ends >= F.lit(day), F.lit(True))
