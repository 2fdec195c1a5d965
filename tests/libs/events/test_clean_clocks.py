"""Device clocks from ten years back to ten ahead: corrected where the line shows by how much, else set aside."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from nightrec import raw
from nightrec.config import Config, Events
from nightrec.events.clean import classified, clean_events, fate_counts

DAY = dt.date(2026, 3, 10)
HAPPENED = dt.datetime(2026, 3, 10, 10, tzinfo=dt.UTC)
WAY = dt.timedelta(seconds=2)  # from the device to the collector
_YEAR = 365.25
OFF = {
    f"{days} days": dt.timedelta(days=days)
    for days in (-10 * _YEAR, -6 * _YEAR, -5.1 * _YEAR, -4 * _YEAR, -400, -45, -14 / 24, -1.5 / 24)
} | {f"{days} days ahead": dt.timedelta(days=days) for days in (1.5 / 24, 14 / 24, 3, 45, 400, 4 * _YEAR, 10 * _YEAR)}


def event(user: str, **fields: Any) -> dict[str, Any]:
    line = {"user_id": user, "item_id": "i", "event_type": "view"} | fields
    return {name: v.isoformat() if isinstance(v, dt.datetime) else v for name, v in line.items()}


def by_a_wrong_clock(user: str, off: dt.timedelta, waited: dt.timedelta = dt.timedelta(seconds=40)) -> dict[str, Any]:
    """An event of HAPPENED that a device, whose clock is off, sent when it had waited."""
    sent = HAPPENED + waited
    return event(user, event_ts=HAPPENED + off, sent_ts=sent + off, received_ts=sent + WAY)


def cleaned(
    spark: SparkSession, root: Path, lines: list[dict[str, Any]], settings: Events
) -> tuple[dict[str, str], dict[str, dict[str, Any]], int]:
    """Fate and reason by user, clean rows by user, and how many clocks were corrected."""
    folder = root / "events" / f"ingest_date={DAY}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "part-0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with classified(raw.events(spark, str(root), [DAY]), None, settings, Config().event_weights()) as found:
        rows = found.events.select("user_id", "fate", "reason").toArrow().to_pylist()
        clean = {row["user_id"]: row for row in clean_events(found.events).toArrow().to_pylist()}
        corrected = sum(r["corrected"] for r in fate_counts(found).toArrow().to_pylist() if r["fate"] == "read")
    return {r["user_id"]: f"{r['fate']} {r['reason']}".strip() for r in rows}, clean, corrected


def test_clocks_that_the_line_shows_to_be_off(spark: SparkSession, tmp_path: Path) -> None:
    lines = [by_a_wrong_clock(name, off) for name, off in OFF.items()]
    fates, clean, corrected = cleaned(spark, tmp_path, lines, Events())
    assert fates == dict.fromkeys(OFF, "accepted") and corrected == len(OFF)
    for name, off in OFF.items():
        row = clean[name]
        assert row["event_ts"] == HAPPENED + WAY, name
        assert (row["event_date"], row["is_late"]) == (DAY, False)
        # What was logged can be read still.
        assert row["logged_ts"] == HAPPENED + off
        assert row["sent_ts"] - row["logged_ts"] == dt.timedelta(seconds=40)


def test_clocks_of_which_nothing_is_known(spark: SparkSession, tmp_path: Path) -> None:
    lines = [event(f"{name} {how}", event_ts=HAPPENED + off, **{how: HAPPENED + off if how == "sent_ts" else HAPPENED})
             for name, off in OFF.items() for how in ("sent_ts", "received_ts")]  # one of the two says nothing
    fates, clean, corrected = cleaned(spark, tmp_path, lines, Events(late_window_days=30))
    assert corrected == 0 and all(row["logged_ts"] is None for row in clean.values())
    for name, off in OFF.items():
        hours = off / dt.timedelta(hours=1)
        # A day is within the tolerance of what is ahead; thirty days are the window behind.
        expected = "rejected future" if hours > 38 else "rejected too_late" if hours < -30 * 24 else "accepted"
        assert {fates[f"{name} sent_ts"], fates[f"{name} received_ts"]} == {expected}, name
    assert sorted(fates.values()).count("rejected future") == 10 and "rejected too_late" in fates.values()
    # Left at its default the window takes in a history of years, and no clock that fell back by ten.
    fates, _, _ = cleaned(spark, tmp_path, lines, Events())
    late = {name: fates[f"{name} sent_ts"] for name, off in OFF.items() if off < dt.timedelta(days=-1)}
    assert list(late.values()) == ["rejected too_late"] * 3 + ["late"] * 3


def test_what_is_no_wrong_clock(spark: SparkSession, tmp_path: Path) -> None:
    off, minute = dt.timedelta(days=-400), dt.timedelta(minutes=1)
    long_ago = dt.datetime(1970, 1, 21, tzinfo=dt.UTC)
    lines = [
        by_a_wrong_clock("59 minutes slow", -59 * minute),
        by_a_wrong_clock("61 minutes slow", -61 * minute),
        # It waited for ten days on a device without a connection: late, but right.
        event("waited", event_ts=HAPPENED, sent_ts=HAPPENED, received_ts=HAPPENED) | {
            "event_ts": (HAPPENED - dt.timedelta(days=10)).isoformat()},
        # It waited for ten days, and the clock was wrong besides.
        event("both", event_ts=HAPPENED - dt.timedelta(days=10) + off, sent_ts=HAPPENED + off, received_ts=HAPPENED),
        # The collector's own time is impossible: epoch seconds, and a day that has not come.
        event("no collector", event_ts=HAPPENED, sent_ts=HAPPENED, received_ts=long_ago),
        event("tomorrow", event_ts=HAPPENED, sent_ts=HAPPENED, received_ts=HAPPENED + dt.timedelta(days=9)),
        # Sent long before it happened: two clocks, and the difference is that of neither.
        event("two clocks", event_ts=HAPPENED, sent_ts=long_ago, received_ts=HAPPENED),
        event("unreadable", event_ts=HAPPENED, sent_ts="never", received_ts=HAPPENED),
    ]
    fates, clean, corrected = cleaned(spark, tmp_path, lines, Events())
    assert fates == dict.fromkeys([line["user_id"] for line in lines], "accepted") | {"waited": "late", "both": "late"}
    assert {user for user, row in clean.items() if row["logged_ts"]} == {"61 minutes slow", "both"} and corrected == 2
    assert clean["both"]["event_ts"] == HAPPENED - dt.timedelta(days=10) == clean["waited"]["event_ts"]
    assert clean["59 minutes slow"]["event_ts"] == HAPPENED - 59 * minute


def test_two_deliveries_of_an_event_are_one(spark: SparkSession, tmp_path: Path) -> None:
    """Each was another while under way, so that their corrected times differ; their logged ones do not."""
    off = dt.timedelta(days=800)
    first = by_a_wrong_clock("u", off)
    again = first | {"received_ts": (HAPPENED + dt.timedelta(minutes=7)).isoformat()}
    fates = []
    for lines in ([first, again], [again, first]):
        cleaned(spark, tmp_path, lines, Events())
        with classified(raw.events(spark, str(tmp_path), [DAY]), None, Events(), Config().event_weights()) as found:
            fates.append(sorted((r["fate"], str(r["event_ts"])) for r in found.events.toArrow().to_pylist()))
    assert fates[0] == fates[1]
    assert [fate for fate, _ in fates[0]] == ["accepted", "duplicate"]
