"""Raw lines to clean events: every line gets exactly one fate, and the same one whenever it is cleaned.

The rules, in order; the first that applies decides:

0. `duplicate`, with the reason `repaired`: the line was mended, and the mended one is judged in its place;
1. rejected, for what the line alone says: broken_line, missing_user_id, missing_item_id, bad_time,
   unknown_event_type, bad_value, future, too_late;
2. rejected as `robot`: all that is left of a user on an ingest date on which some clock hour (of event time) holds more
   than `robot_events_per_hour` different events of that user;
3. `duplicate`: another copy that is left was kept, in an earlier ingest date or in this one;
4. `late`: accepted, but it happened more than `late_after_days` before its ingest date;
5. `accepted`.

So read = accepted + late + duplicate + rejected, and robots are the rejected ones of that reason. Before all rules a
time is corrected where the line shows that the device's clock was off (`corrected`).

Rules 0 to 2 look at one ingest date only, and only copies that passed them can make others duplicates. So cleaning
many ingest dates in one pass gives the same as cleaning them one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

from pyspark.sql import Window
from pyspark.sql import functions as F
from pyspark.storagelevel import StorageLevel

from nightrec.events.drift import counts, filled
from nightrec.raw_files import is_blank, line_id, timestamp
from nightrec.tables import CLEAN_EVENTS, EVENT_TYPES, LATE_ARRIVALS, REJECTED_EVENTS

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from nightrec.config import Events

# What happened, as opposed to how it was delivered: a second delivery has other sent_ts and received_ts.
_CONTENT = ("user_id", "item_id", "event_type", "event_ts", "value", "text")
# From here on a file per date and task would be too many small ones.
MANY_DATES = 8
# Rows per file of a few dates, some MB: later nights open all files, so a small day should be one of them.
FILE_ROWS = 100_000
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


class Classified(NamedTuple):
    """One row per raw line each: `lines` as parsed and numbered, `events` with its fate.

    `events` has the columns of clean_events and rejected_events and `fate`: accepted, late, duplicate or rejected;
    `reason` is '' for what is not rejected.
    """

    lines: DataFrame
    events: DataFrame


@contextmanager
def classified(
    lines: DataFrame,
    earlier: DataFrame | None,
    settings: Events,
    weights: Mapping[str, float],
    repaired: DataFrame | None = None,
) -> Iterator[Classified]:
    """Raw lines (`raw.events`) and their fates; the text is parsed once and shuffled once, whole lines only then.

    What was parsed is in Spark's cache while the `with` lasts. `earlier` holds event_key and ingest_date of what is
    clean already of other ingest dates; None where there is nothing. `weights` gives each event type's weight.
    `repaired` holds ingest_date and line_id of lines that were mended.
    """
    reasoned = with_reason(with_values(lines, settings, weights), settings)
    if repaired is not None:
        reasoned = with_repaired(reasoned, repaired)
    numbered = with_copy(reasoned, earlier).persist(StorageLevel.MEMORY_AND_DISK)
    found = robots(numbered, settings).persist()
    try:
        # This runs the pass over the text. On most nights nobody is a robot, and all that follows does without joins.
        judged = numbered if found.isEmpty() else with_robots(numbered, found)
        yield Classified(numbered, with_fate(judged))
    finally:
        found.unpersist()
        numbered.unpersist()


def readable(lines: DataFrame, settings: Events, weights: Mapping[str, float]) -> DataFrame:
    """Raw lines that say something (rule 1), with repeats and robots: enough to look at days that are not cleaned."""
    return with_reason(with_values(lines, settings, weights), settings).where(F.col("reason").isNull())


def with_values(lines: DataFrame, settings: Events, weights: Mapping[str, float]) -> DataFrame:
    """Logged strings as values: NULL where unreadable. Ids stay exactly as logged; an event type loses case and blanks.

    Adds event_date, logged_ts, weight, is_late, event_key, _filled (which columns say something); for with_reason
    _number (value as logged).
    """
    kind = F.lower(F.trim("event_type"))
    number = F.when(~is_blank(F.col("value")), F.trim("value"))
    weight = F.create_map(*(F.lit(cell) for pair in weights.items() for cell in pair))[F.col("event_type")]
    disliked = (F.col("event_type") == "rating") & (F.col("value") < settings.min_positive_rating)
    valued = lines.withColumns({
        "event_type": kind,
        "event_ts": timestamp(F.col("event_ts")),
        "sent_ts": timestamp(F.col("sent_ts")),
        "received_ts": timestamp(F.col("received_ts")),
        "_number": number,
        "value": F.when(number.rlike(_NUMBER), number).try_cast("double"),
    })
    return with_clock(valued, settings).withColumns({
        "event_date": F.col("event_ts").cast("date"),
        "weight": F.when(disliked, 0.0).otherwise(weight),
        "is_late": F.col("event_ts").cast("date") < F.date_sub("ingest_date", settings.late_after_days),
        "event_key": _event_key(),
        "_filled": filled(),
    })


def with_clock(valued: DataFrame, settings: Events) -> DataFrame:
    """Corrects event_ts where the device's clock was off, and adds logged_ts: the time as logged there, else NULL.

    A device says when it sent the event by the same clock by which it says when it happened, and the collector when it
    received it: the difference is the clock's error, but for the way. It is believed where it is larger than the
    tolerance, the collector's own time is possible, and the event was sent after it happened: by one clock, then.
    """
    micros = {name: F.unix_micros(name) for name in ("event_ts", "sent_ts", "received_ts")}
    tolerance = settings.clock_tolerance_minutes * 60_000_000
    error = micros["received_ts"] - micros["sent_ts"]
    is_off = (
        (F.abs(error) > tolerance)
        & (micros["event_ts"] <= micros["sent_ts"] + tolerance)
        & F.col("received_ts").between(F.lit(settings.earliest_date), _latest(settings))
    )
    right = F.timestamp_micros(micros["event_ts"] + error)
    return valued.withColumns({
        "event_ts": F.when(is_off, right).otherwise(F.col("event_ts")),
        "logged_ts": F.when(is_off, F.col("event_ts")),
    })


def _latest(settings: Events) -> Column:
    """The last moment that a line of an ingest date can speak of."""
    day_end = F.date_add("ingest_date", 1).cast("timestamp")
    return day_end + F.make_dt_interval(F.lit(0), F.lit(settings.future_tolerance_hours))


def _event_key() -> Column:
    """Half a sha-256 (128 bits, in hex) of event_id, else of the content; of the line where there is no event in it.

    The content's time is the one logged: of two deliveries of an event each is corrected by its own way.
    """
    micros = F.unix_micros(F.coalesce("logged_ts", "event_ts")).alias("event_ts")
    # Spelled out only for lines without an event_id: sorting every context took a tenth of cleaning.
    context = F.array_sort(F.map_entries("context")).alias("_context")
    content = F.struct(*(micros if name == "event_ts" else F.col(name) for name in _CONTENT), context)
    named = (
        F.when(F.col("_corrupt").isNotNull(), F.concat(F.lit("line "), "raw"))
        .when(~is_blank(F.col("event_id")), F.concat(F.lit("id "), "event_id"))
        .otherwise(F.concat(F.lit("content "), F.to_json(content)))
    )
    return F.substring(F.sha2(named, 256), 1, 32)


def with_reason(valued: DataFrame, settings: Events) -> DataFrame:
    """Adds `reason`: why the line is rejected for what it says, NULL where it is not (rule 1 of the module)."""
    value, kind = F.col("value"), F.col("event_type")
    outside = [
        (kind == name) & ~value.between(low, high) for name, (low, high) in settings.value_ranges.items()
    ]
    bad_value = reduce(lambda left, right: left | right, outside, (kind == "rating") & value.isNull())
    unreadable = F.col("_number").isNotNull() & (value.isNull() | (F.abs(value) == float("inf")))
    reason = (
        F.when(F.col("_corrupt").isNotNull(), "broken_line")
        .when(is_blank(F.col("user_id")), "missing_user_id")
        .when(is_blank(F.col("item_id")), "missing_item_id")
        .when(F.col("event_ts").isNull() | (F.col("event_date") < F.lit(settings.earliest_date)), "bad_time")
        .when(kind.isNull() | ~kind.isin(*EVENT_TYPES), "unknown_event_type")
        .when(unreadable | bad_value, "bad_value")
        .when(F.col("event_ts") > _latest(settings), "future")
        .when(F.col("event_date") < F.date_sub("ingest_date", settings.late_window_days), "too_late")
    )
    return valued.withColumn("reason", reason)


def with_repaired(reasoned: DataFrame, repaired: DataFrame) -> DataFrame:
    """Gives the reason `repaired` to lines that were mended (rule 0 of the module)."""
    mended = F.broadcast(repaired.select("ingest_date", F.col("line_id").alias("_mended")).distinct())
    named = reasoned.withColumn("_line", line_id(F.col("file"), F.col("raw")))
    found = (F.col("_line") == F.col("_mended")) & (named["ingest_date"] == mended["ingest_date"])
    joined = named.join(mended, found, "left").drop(mended["ingest_date"])
    reason = F.when(F.col("_mended").isNotNull(), "repaired").otherwise(F.col("reason"))
    return joined.withColumn("reason", reason).drop("_line", "_mended")


def with_copy(reasoned: DataFrame, earlier: DataFrame | None) -> DataFrame:
    """The columns of both tables with _copy and _is_known, copies of an event side by side, sorted by event_key.

    _copy numbers the lines of one event_key from 1: first those not rejected, by ingest date, within a date by content;
    so neither the order of files nor the number of partitions matters. _is_known: an earlier night has the event.
    This is the one shuffle of whole lines, by a key that no busy user and no popular item shares.
    """
    names = dict.fromkeys([*CLEAN_EVENTS.names, *REJECTED_EVENTS.names, "_filled"])
    del names["line_id"]  # made of others when a rejected line is written
    # Said here, for what the order is made of is then made behind the shuffle and not sent through it.
    lines = reasoned.select(*names).repartition("event_key")
    known: Column = F.lit(False)
    if earlier is not None:
        first = earlier.groupBy("event_key").agg(F.min("ingest_date").alias("_first_date"))
        lines = lines.join(first, "event_key", "left")
        known = F.coalesce(F.col("_first_date") < F.col("ingest_date"), F.lit(False))
    context = F.map_keys("context"), F.map_values("context")
    order = [F.col("reason").isNotNull(), *map(F.col, ("ingest_date", *_CONTENT)), *context]
    copy = F.row_number().over(Window.partitionBy("event_key").orderBy(*order, "sent_ts", "received_ts", "logged_ts"))
    numbered = lines.select(*names, copy.alias("_copy"), known.alias("_is_known"))
    # Sorted already for the numbers; said here, the cache knows it and nothing behind it sorts again.
    return numbered.sortWithinPartitions("event_key")


def robots(numbered: DataFrame, settings: Events) -> DataFrame:
    """user_id and ingest_date of robots (rule 2 of the module)."""
    left = numbered.where(F.col("reason").isNull()).withColumn("_hour", F.date_trunc("hour", "event_ts"))
    hour, too_many = ["user_id", "ingest_date", "_hour"], F.col("count") > settings.robot_events_per_hour
    # Copies count here, so it is never too few; a busy user's lines are summed where they lie. Keys then of these few.
    busy = left.groupBy(*hour).count().where(too_many).select(*hour)
    return (
        left.join(F.broadcast(busy), hour, "left_semi")
        .groupBy("event_key", *hour).agg(F.lit(1).alias("_one"))
        .groupBy(*hour).count().where(too_many)
        .select("user_id", "ingest_date").distinct()
    )


def with_robots(numbered: DataFrame, found: DataFrame) -> DataFrame:
    """Gives the reason `robot` to what is left of `robots`, and takes it out of _copy."""
    # A robot by a rate of hundreds per hour is rare: the list is small however many users there are.
    is_robot = F.broadcast(found.withColumn("_is_robot", F.lit(True)))
    reason = F.when(F.col("reason").isNull() & F.col("_is_robot"), "robot").otherwise(F.col("reason"))
    judged = numbered.join(is_robot, ["user_id", "ingest_date"], "left").withColumn("reason", reason)
    first = F.min(F.when(F.col("reason").isNull(), F.col("_copy"))).over(Window.partitionBy("event_key"))
    return judged.withColumn("_copy", F.col("_copy") - first + 1).drop("_is_robot")


def with_fate(judged: DataFrame) -> DataFrame:
    """Adds `fate`, and makes `reason` '' where there is none (rules 3 to 5 of the module).

    Of several copies the one of the earliest ingest date is kept; within a date the smallest by content.
    """
    is_copy = (F.col("_copy") > 1) | F.col("_is_known")
    fate = (
        F.when((F.col("reason") == "repaired") | F.col("reason").isNull() & is_copy, "duplicate")
        .when(F.col("reason").isNotNull(), "rejected")
        .when(F.col("is_late"), "late").otherwise("accepted")
    )
    return judged.withColumns({"fate": fate, "reason": F.coalesce("reason", F.lit(""))}).drop("_copy", "_is_known")


def clean_events(events: DataFrame) -> DataFrame:
    """The accepted and late ones of classified lines: rows of clean_events."""
    return events.where(F.col("fate").isin("accepted", "late")).select(CLEAN_EVENTS.names)


def rejected_events(events: DataFrame) -> DataFrame:
    """The rejected ones of classified lines, with the text as it came: rows of rejected_events."""
    named = events.where(F.col("fate") == "rejected").withColumn("line_id", line_id(F.col("file"), F.col("raw")))
    return named.select(REJECTED_EVENTS.names)


def late_arrivals(events: DataFrame, first: date) -> DataFrame:
    """Whom late ones of classified lines concern, and from which night on: rows of late_arrivals.

    `first` is the first ingest date of all: no night before it knew anything, so that what is late on it, such as a
    history that was delivered at once, concerns none.
    """
    known = F.greatest(F.col("event_date"), F.lit(first))
    late = events.where((F.col("fate") == "late") & (known < F.col("ingest_date")))
    counted = late.groupBy("ingest_date", "user_id").agg(
        F.min(known).alias("first_date"), F.count("*").alias("event_count")
    )
    return counted.select(LATE_ARRIVALS.names)


def fate_counts(night: Classified) -> DataFrame:
    """Rows per ingest_date, fate and reason: row_count; none for an ingest date without lines. Beside it how many of
    them fill each of the columns in nightrec.events.drift.

    `read` is counted before the fates are given, the others after: that they add up is a finding and no tautology.
    """
    read = night.lines.select("ingest_date", F.lit("read").alias("fate"), F.lit("").alias("reason"), "_filled")
    fated = night.events.select("ingest_date", "fate", "reason", "_filled")
    return read.union(fated).groupBy("ingest_date", "fate", "reason").agg(F.count("*").alias("row_count"), *counts())


def in_few_files(rows: DataFrame, count: int, dates: int) -> DataFrame:
    """`count` rows of so many ingest dates, so partitioned that they become few files: later nights open all of them.

    Of many dates the rows of each come side by side: a first load writes one file per date, not one per task too. A few
    dates are written by as many tasks as there are FILE_ROWS, as they lie: a shuffle of whole rows costs more.
    """
    if dates > MANY_DATES:
        return rows.hint("rebalance", "ingest_date")
    return rows.coalesce(max(1, math.ceil(count / FILE_ROWS)))
