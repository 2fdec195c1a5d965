"""Every raw line gets one fate: the rules one by one, then the copies and the robots."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from nightrec import raw
from nightrec.config import Config, Events
from nightrec.events.clean import FILE_ROWS, classified, clean_events, fate_counts, in_few_files, rejected_events

DAY = dt.date(2026, 3, 10)
WEIGHTS = Config().event_weights()
SETTINGS = Events(
    future_tolerance_hours=2, late_after_days=1, late_window_days=90, robot_events_per_hour=3, min_positive_rating=3
)


def event(**fields: Any) -> str:
    """A raw line that every rule accepts, but for the fields given; None leaves a field out."""
    line = {"user_id": "u", "item_id": "i", "event_type": "view", "event_ts": "2026-03-10T10:00:00Z"} | fields
    return json.dumps({name: value for name, value in line.items() if value is not None}, ensure_ascii=False)


def write(root: Path, day: dt.date, *lines: str, name: str = "part-0.jsonl") -> None:
    folder = root / "events" / f"ingest_date={day}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def fates(frame: DataFrame) -> dict[str, str]:
    """Fate and reason of every line, by its text: no two lines of a test have the same."""
    return {row["raw"]: f"{row['fate']} {row['reason']}".strip() for row in frame.toArrow().to_pylist()}


# One line per rule and boundary. Every line has a user of its own: none is a robot, and none another's copy.
LINES = {
    # broken_line: whatever is not exactly one JSON object of strings, numbers and one map
    '{"user_id": "b0", "item_id": "i", "event_type": "vi': "rejected broken_line",  # cut off
    "not json": "rejected broken_line",
    "null": "rejected broken_line",
    '["u", "i"]': "rejected broken_line",
    event(user_id="b1") + " rubbish": "rejected broken_line",  # Spark alone would take the object and drop the rest
    event(user_id="b2") + event(user_id="b3"): "rejected broken_line",  # and here the second event
    event(user_id="b4", context="no map"): "rejected broken_line",
    event(user_id="b5") + "," + event(user_id="b6"): "rejected broken_line",
    event(user_id="b7") + "]}": "rejected broken_line",  # what stands behind the object must not end the wrapping
    event(user_id="b8").replace('"', "'"): "rejected broken_line",  # Spark takes single quotes by default
    event(user_id="b9").replace('"i"', "NaN"): "rejected broken_line",  # and NaN, as the id "NaN" with its quotes
    event(user_id="b10", value="2").replace('"2"', "NaN"): "rejected broken_line",
    # lists and objects are no ids and no texts, and text that only looks like one is
    event(user_id={"$oid": "b11"}): "rejected broken_line",
    event(user_id="b12", item_id=["i"]): "rejected broken_line",
    event(user_id="b13", event_id={"a": 1}): "rejected broken_line",
    event(user_id="b14", event_type="comment", text=["a", "b"]): "rejected broken_line",
    event(user_id="b15", sent_ts={"$date": 1}): "rejected broken_line",
    event(user_id="b16", event_id="[", context=[]): "rejected broken_line",
    event(user_id='{"b17": 1}'): "accepted",
    event(user_id="b18", event_type="comment", text="[spoiler] {all} die"): "accepted",
    # half of a character would become a "?", and so would every other
    event(user_id="b19 ?").replace("?", r"\ud83d"): "rejected broken_line",
    event(user_id="b20 ?").replace("?", r"\udE42x"): "rejected broken_line",
    event(user_id="b21 ?").replace("?", r"\ud83d\ud83d\ude42"): "rejected broken_line",
    event(user_id="b22 ?").replace("?", r"\ud83d\uDE42"): "accepted",
    event(user_id="b23 ?").replace("?", r"\\ud83d"): "accepted",  # a backslash, and then letters
    # ids
    event(user_id=None): "rejected missing_user_id",
    event(user_id=" \u00a0\t"): "rejected missing_user_id",  # white space of any script
    event(user_id="", item_id=None): "rejected missing_user_id",  # the first rule that applies decides
    event(user_id="m0", item_id=""): "rejected missing_item_id",
    "{}": "rejected missing_user_id",
    event(user_id="Ж字é🙂"): "accepted",
    event(user_id=" u "): "accepted",  # ids are not trimmed
    event(user_id=9223372036854775807): "accepted",
    # time
    event(user_id="t0", event_ts=None): "rejected bad_time",
    event(user_id="t1", event_ts="yesterday"): "rejected bad_time",
    event(user_id="t2", event_ts="2026-02-30T10:00:00Z"): "rejected bad_time",
    event(user_id="t3", event_ts="10:00"): "rejected bad_time",  # Spark's cast would date it today
    event(user_id="t4", event_ts="1989-12-31T23:59:59Z"): "rejected bad_time",  # before earliest_date
    event(user_id="t5", event_ts=1773136800): "rejected bad_time",  # epoch seconds: January 1970
    event(user_id="t6", event_ts=10**30): "rejected bad_time",
    event(user_id="t7", event_ts=1773136800000): "accepted",
    event(user_id="t8", event_ts="2026-03-10T10:00:00"): "accepted",  # no zone: UTC
    event(user_id="t9", event_ts="2026-03-11T06:59:59+05:00"): "accepted",  # 01:59:59 UTC, within the tolerance
    # end of the ingest date plus two hours, to the second
    event(user_id="f0", event_ts="2026-03-11T02:00:00Z"): "accepted",
    event(user_id="f1", event_ts="2026-03-11T02:00:01Z"): "rejected future",
    event(user_id="f2", event_ts="2026-03-10T22:00:01-04:00"): "rejected future",
    # late: happened more than one day before the ingest date
    event(user_id="l0", event_ts="2026-03-09T00:00:00Z"): "accepted",
    event(user_id="l1", event_ts="2026-03-08T23:59:59Z"): "late",
    event(user_id="l2", event_ts="2025-12-10T00:00:00Z"): "late",
    # too late: more than 90 days before it
    event(user_id="l3", event_ts="2025-12-09T23:59:59Z"): "rejected too_late",
    event(user_id="l4", event_ts="1990-01-01T00:00:00Z"): "rejected too_late",
    # event type
    event(user_id="e0", event_type=None): "rejected unknown_event_type",
    event(user_id="e1", event_type="hover"): "rejected unknown_event_type",
    event(user_id="e2", event_type=" View "): "accepted",
    # value
    event(user_id="v0", event_type="rating"): "rejected bad_value",  # a rating without its value
    event(user_id="v1", event_type="rating", value="five"): "rejected bad_value",
    event(user_id="v2", value="NaN"): "rejected bad_value",
    event(user_id="v3", value="1e999"): "rejected bad_value",  # not finite
    event(user_id="v4", event_type="purchase", value=-2): "rejected bad_value",  # a return
    event(user_id="v5", event_type="purchase", value=1e10): "rejected bad_value",
    event(user_id="v6", event_type="purchase"): "accepted",  # a purchase need not say how many
    event(user_id="v7", event_type="rating", value=" "): "rejected bad_value",
    event(user_id="v8", event_type="rating", value="4.5"): "accepted",
    event(user_id="v9", event_type="rating", value=2): "accepted",  # below min_positive_rating: kept, weighs nothing
    event(user_id="o0", sent_ts="never", context={"rank": 3, "list_id": "x"}): "accepted",
}


def test_every_line_has_the_fate_its_rule_says(spark: SparkSession, tmp_path: Path) -> None:
    write(tmp_path, DAY, *LINES, "", "  \t")  # blank lines are no lines
    with classified(raw.events(spark, str(tmp_path), [DAY]), None, SETTINGS, WEIGHTS) as found:
        assert fates(found.events) == LINES
        counts = {(row["fate"], row["reason"]): row["row_count"] for row in fate_counts(found).toArrow().to_pylist()}
        clean = {row["user_id"]: row for row in clean_events(found.events).toArrow().to_pylist()}
        rejected = rejected_events(found.events).toArrow().to_pylist()
    assert counts["read", ""] == len(LINES) == sum(rows for (fate, _), rows in counts.items() if fate != "read")
    # No broken line became an event: what is not accepted is in rejected_events, with its text and file.
    assert {row["raw"] for row in rejected} == {line for line, fate in LINES.items() if fate.startswith("rejected")}
    assert {row["file"] for row in rejected} == {"part-0.jsonl"}
    # Ids come through exactly.
    assert {"Ж字é🙂", " u ", "9223372036854775807"} <= set(clean)
    assert clean["t9"]["event_ts"] == dt.datetime(2026, 3, 11, 1, 59, 59, tzinfo=dt.UTC)
    assert clean["t9"]["event_date"] == dt.date(2026, 3, 11)
    assert clean["t7"]["event_ts"] == clean["t8"]["event_ts"] == dt.datetime(2026, 3, 10, 10, tzinfo=dt.UTC)
    assert [clean[user]["is_late"] for user in ("l0", "l1")] == [False, True]
    assert clean["e2"]["event_type"] == "view"
    assert (clean["v8"]["value"], clean["v8"]["weight"]) == (4.5, 3.0)
    assert (clean["v9"]["value"], clean["v9"]["weight"]) == (2.0, 0.0)
    assert (clean["v6"]["value"], clean["v6"]["weight"]) == (None, 5.0)
    assert clean["o0"]["sent_ts"] is None
    assert dict(clean["o0"]["context"]) == {"rank": "3", "list_id": "x"}


def copies() -> list[tuple[dt.date, str, str]]:
    """Ingest date, line, fate: copies of events, and robots among them (more than three events in a clock hour)."""
    before = DAY - dt.timedelta(days=1)
    hour = [event(user_id="robot", event_ts=f"2026-03-10T10:0{n}:00Z", item_id=f"r{n}") for n in range(4)]
    busy = [event(user_id="busy", event_ts=f"2026-03-10T{10 + n // 3}:59:5{n}Z", item_id=f"s{n}") for n in range(6)]
    return [
        # one event_id, two contents: the smaller one (by user) is kept, wherever it lies
        (DAY, event(event_id="a", user_id="c2"), "duplicate"),
        (DAY, event(event_id="a", user_id="c1"), "accepted"),
        # the same content under two ids: two events; without an id, one
        (DAY, event(event_id="b", user_id="c3"), "accepted"),
        (DAY, event(event_id="c", user_id="c3"), "accepted"),
        (DAY, event(user_id="c4"), "accepted"),
        (DAY, event(user_id="c4", event_id="", received_ts="2026-03-10T11:00:00Z"), "duplicate"),  # a second delivery
        (DAY, event(user_id="c4", context={"rank": "2"}), "accepted"),  # another place on the page: another event
        # the earlier ingest date wins, although its content is the larger
        (before, event(event_id="d", user_id="z", event_ts="2026-03-09T10:00:00Z"), "accepted"),
        (DAY, event(event_id="d", user_id="a", event_ts="2026-03-09T10:00:00Z"), "duplicate"),
        # of earlier nights: `earlier` below says that key e came on the 8th and key f only on the 11th
        (DAY, event(event_id="e", user_id="c5"), "duplicate"),
        (DAY, event(event_id="f", user_id="c5"), "accepted"),
        # a rejected copy takes nothing from the good one
        (before, event(event_id="g", user_id="c6", event_ts="2026-03-09T10:00:00Z", value="?"), "rejected bad_value"),
        (DAY, event(event_id="g", user_id="c6"), "accepted"),
        # four different events in one hour: all that user's lines of the date, those of another hour and copies too
        *((DAY, line, "rejected robot") for line in hour),
        (DAY, event(user_id="robot", event_ts="2026-03-10T20:00:00Z"), "rejected robot"),
        (DAY, event(user_id="robot", event_ts="2026-03-10T20:00:00Z", event_id="", sent_ts="x"), "rejected robot"),
        (before, event(user_id="robot", event_ts="2026-03-09T10:00:00Z"), "accepted"),  # but not those of another date
        # what is wrong by itself keeps its own reason
        (DAY, event(user_id="robot", event_type="hover"), "rejected unknown_event_type"),
        # a robot's copy takes nothing from another user's
        (DAY, event(event_id="h", user_id="robot"), "rejected robot"),
        (DAY, event(event_id="h", user_id="v"), "accepted"),
        # three events on each side of the full hour are no robot, and copies are not counted
        *((DAY, line, "accepted") for line in busy),
        *((DAY, line.replace("}", ', "sent_ts": "2026-03-10T11:00:00Z"}'), "duplicate") for line in busy),
    ]


def test_copies_and_robots_in_any_order_of_files_and_partitions(spark: SparkSession, tmp_path: Path) -> None:
    planted = copies()
    seen = {"e": dt.date(2026, 3, 8), "f": dt.date(2026, 3, 11)}
    keys = [(hashlib.sha256(f"id {name}".encode()).hexdigest()[:32], day) for name, day in seen.items()]
    earlier = spark.createDataFrame(keys, "event_key string, ingest_date date")
    dates = sorted({day for day, _, _ in planted})
    tables = []
    for layout in ("as planted", "backwards in two files"):
        root = tmp_path / layout
        for day in dates:
            lines = [line for when, line, _ in planted if when == day]
            if layout == "as planted":
                write(root, day, *lines)
            else:
                write(root, day, *lines[::-2], name="part-9.jsonl")
                write(root, day, *lines[-2::-2], name="part-1.json")
        with classified(raw.events(spark, str(root), dates), earlier, SETTINGS, WEIGHTS) as found:
            assert fates(found.events) == {line: fate for _, line, fate in planted}
            tables.append(sorted(map(str, clean_events(found.events).toArrow().to_pylist())))
    assert tables[0] == tables[1]


def test_no_lines_are_no_rows(spark: SparkSession, tmp_path: Path) -> None:
    write(tmp_path, DAY)
    with classified(raw.events(spark, str(tmp_path), [DAY]), None, SETTINGS, WEIGHTS) as found:
        assert clean_events(found.events).toArrow().num_rows == 0
        assert fate_counts(found).toArrow().num_rows == 0


def test_few_rows_make_few_files(spark: SparkSession) -> None:
    rows = spark.range(0, 50, 1, 5)
    for count, files in ((0, 1), (50, 1), (FILE_ROWS + 1, 2), (9 * FILE_ROWS, 5)):
        assert in_few_files(rows, count, dates=1).rdd.getNumPartitions() == files
