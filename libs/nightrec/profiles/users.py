"""Users as of a night: activity, recent items, affinities, eligibility, and the text that BERT reads."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from nightrec.profiles.text import enumerated, listed, text_hash, tidy

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# In a user's text: so many favourite categories, latest remarks, and characters of each remark. With the attributes
# they fill the encoder's 64 tokens.
TEXT_CATEGORIES = 3
TEXT_REMARKS = 3
REMARK_LENGTH = 120

# The least common multiple of 1 to 16: an event spread over up to 16 categories gives each a whole number of parts, so
# that sums, and the ties between them, do not depend on the order of rows as sums of fractions do.
PARTS = 720_720


def user_profiles(
    snapshot: DataFrame | None,
    events: DataFrame,
    items: DataFrame,
    run_date: date,
    *,
    recent_days: int,
    recent_items: int,
    segment_attribute: str | None,
    eligible_days: int,
) -> DataFrame:
    """One row per user of the snapshot or of the events, in the columns of tables.USER_PROFILES.

    `snapshot` is the users' snapshot of the night, one row per user_id, or None; `events` are those that arrived up to
    the night, and one dated after `run_date` is left out, as for items; `items` are the night's item profiles, for
    their categories. Counts, recent items, affinities and remarks rest on events with weight above 0.
    A user is eligible whose last event of any weight is at most `eligible_days` old (who saw or disliked something
    came by), or who is in the snapshot and has none. `recent_days` end with `run_date`.
    """
    dated = events.where(F.col("event_date") <= F.lit(run_date))
    pairs = per_item(dated, run_date, recent_days)
    active = activity(pairs, recent_items)
    acted = active.join(affinities(pairs, items), "user_id", "left").join(remarks(dated), "user_id", "left")
    everyone = with_snapshot(acted, snapshot)
    ranked = F.coalesce("_ranked", F.array().cast("array<struct<_minus:bigint,category:string>>"))
    named = F.transform(ranked, lambda entry: entry["category"])
    text = user_text(named)
    idle_days = F.date_diff(F.lit(run_date), "_seen_date")
    return everyone.select(
        F.lit(run_date).alias("run_date"),
        "user_id",
        "attributes",
        listed(F.col("blocked_items")).alias("blocked_items"),
        *(F.coalesce(name, F.lit(0)).alias(name) for name in ("event_count", "item_count", "recent_event_count")),
        "last_event_ts",
        F.date_diff(F.lit(run_date), F.to_date("last_event_ts")).alias("days_since_last"),
        F.coalesce("recent_items", F.array().cast("array<string>")).alias("recent_items"),
        _shares(ranked).alias("category_shares"),
        _segment(named, segment_attribute).alias("segment"),
        F.coalesce(idle_days <= eligible_days, F.lit(True)).alias("is_eligible"),
        text.alias("text"),
        text_hash(text).alias("text_hash"),
    )


def per_item(events: DataFrame, run_date: date, recent_days: int) -> DataFrame:
    """One row per user and item: counts and last time of the events with weight above 0, last date of any event."""
    counts = F.col("weight") > 0
    recent = F.date_sub(F.lit(run_date), recent_days)
    return events.groupBy("user_id", "item_id").agg(
        F.count_if(counts).alias("_count"),
        F.count_if(counts & (F.col("event_date") > recent)).alias("_recent"),
        F.max(F.when(counts, F.col("event_ts"))).alias("_last"),
        F.max("event_date").alias("_seen_date"),
    )


def activity(pairs: DataFrame, recent_items: int) -> DataFrame:
    """One row per user: counts, last times, and the latest `recent_items` items, newest first, ties by item id."""
    newest = F.struct(-F.unix_micros("_last"), "item_id")
    return pairs.groupBy("user_id").agg(
        F.sum("_count").alias("event_count"),
        F.count_if(F.col("_count") > 0).alias("item_count"),
        F.sum("_recent").alias("recent_event_count"),
        F.max("_last").alias("last_event_ts"),
        F.max("_seen_date").alias("_seen_date"),
        # Bounded while aggregating: a user with a million items never has them all in one row.
        F.min_by("item_id", F.when(F.col("_count") > 0, newest), recent_items).alias("recent_items"),
    )


def affinities(pairs: DataFrame, items: DataFrame) -> DataFrame:
    """One row per user with categories: _ranked, an array of (minus the parts, category), the favourite first.

    Each event gives its item's categories equal parts; parts are whole numbers, PARTS to an event (see there).
    """
    parts = F.col("_count") * F.floor(F.lit(PARTS) / F.size("categories"))
    by_category = (
        pairs.where(F.col("_count") > 0)
        .join(items.where(F.size("categories") > 0).select("item_id", "categories"), "item_id")
        .select("user_id", parts.alias("_parts"), F.explode("categories").alias("category"))
        .groupBy("user_id", "category")
        .agg(F.sum("_parts").alias("_parts"))
    )
    entry = F.struct((-F.col("_parts")).alias("_minus"), "category")
    return by_category.groupBy("user_id").agg(F.sort_array(F.collect_list(entry)).alias("_ranked"))


def remarks(events: DataFrame) -> DataFrame:
    """One row per user who wrote something: _remarks, the latest TEXT_REMARKS texts, newest first, ties by text."""
    text = tidy(F.left(tidy(F.col("text")), F.lit(REMARK_LENGTH)))
    written = events.where(F.col("text").isNotNull() & (F.col("weight") > 0))
    worded = written.select("user_id", "event_ts", text.alias("text")).where(F.col("text").isNotNull())
    newest = F.struct(-F.unix_micros("event_ts"), "text")
    return worded.groupBy("user_id").agg(F.min_by("text", newest, TEXT_REMARKS).alias("_remarks"))


def with_snapshot(active: DataFrame, snapshot: DataFrame | None) -> DataFrame:
    """`active` with attributes and blocked_items, and the users of the snapshot who have no events."""
    if snapshot is None:
        return active.withColumns(
            {
                "attributes": F.lit(None).cast("map<string,string>"),
                "blocked_items": F.lit(None).cast("array<string>"),
            }
        )
    return snapshot.select("user_id", "attributes", "blocked_items").join(active, "user_id", "full_outer")


def user_text(categories: Column) -> Column:
    """`name value, ... . likes A, B, C. wrote: ...`: attributes by name, favourites, latest remarks; NULL where none.

    No counts and no dates: the text stays, and is not encoded again, while nothing about the user changes.
    """
    said = F.filter(F.array_sort(F.map_entries("attributes")), lambda entry: tidy(entry["value"]).isNotNull())
    attributes = F.transform(said, lambda entry: F.concat_ws(" ", entry["key"], tidy(entry["value"])))
    text = F.concat_ws(
        ". ",
        enumerated(attributes),
        F.concat(F.lit("likes "), enumerated(F.slice(categories, 1, TEXT_CATEGORIES))),
        F.concat(F.lit("wrote: "), F.nullif(F.array_join("_remarks", ". "), F.lit(""))),
    )
    return F.nullif(text, F.lit(""))


def _shares(ranked: Column) -> Column:
    """Share of the user's events in each category; the sum is below 1 where some events have no category."""
    whole = F.col("event_count") * PARTS
    return F.map_from_entries(F.transform(ranked, lambda entry: F.struct(entry["category"], -entry["_minus"] / whole)))


def _segment(categories: Column, attribute: str | None) -> Column:
    """The user's value of `attribute` where it is known, else the favourite category, else NULL."""
    favourite = F.get(categories, F.lit(0))
    if attribute is None:
        return favourite
    return F.coalesce(tidy(F.try_element_at("attributes", F.lit(attribute))), favourite)
