"""What the candidates stage knows of users: only what the job's test leaves open, first days and days of the week."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa

from nightrec.config import Candidates
from nightrec.serving.histories import histories, user_counts
from nightrec.tables import CLEAN_EVENTS, USER_PROFILES

NIGHT = dt.date(2026, 3, 10)


def event(user: str, item: str, days_ago: int, weight: float = 1.0, hour: int = 0) -> dict[str, Any]:
    day = NIGHT - dt.timedelta(days=days_ago)
    return {
        "event_key": f"{user}{item}{days_ago}{hour}",
        "user_id": user,
        "item_id": item,
        "event_type": "view",
        "weight": weight,
        "event_ts": dt.datetime(day.year, day.month, day.day, hour, tzinfo=dt.UTC),
        "event_date": day,
        "ingest_date": day,
    }


def test_first_days_are_those_of_users_who_came_within_the_window(rows: Any) -> None:
    events = [
        # Came on the first day of five, with a, and b twice; c followed a day later, and a came back.
        *(event("ann", item, 4, hour=hour) for item, hour in (("a", 0), ("b", 1), ("b", 2))),
        *(event("ann", item, 3) for item in "ca"),
        # A day too early: the items of that day count for nobody, though a came back within the window.
        *(event("bob", "a", days) for days in (5, 0)),
        # Came tonight; what has no weight is no beginning.
        event("cat", "b", 0),
        event("cat", "c", 2, weight=0.0),
        event("dan", "a", 0, weight=0.0),
    ]
    found = histories(rows(CLEAN_EVENTS, events), pa.chunked_array([["a", "b", "c"]]), NIGHT, 5, Candidates())
    users = {row.user_id: row for row in found.collect()}
    assert {user: sorted(row["first"]) for user, row in users.items()} == {
        "ann": [0, 1], "bob": [], "cat": [1], "dan": [],
    }  # fmt: skip
    assert {user: sorted(row.recent) for user, row in users.items()} == {
        "ann": [0, 1, 2], "bob": [0], "cat": [1], "dan": [],
    }  # fmt: skip
    counted = user_counts(found, rows(USER_PROFILES, [{"user_id": "ann", "segment": "s"}])).to_pylist()
    assert {(row["segment"], row["item_idx"]): [row[n] for n in ("basket", "recent", "first", "days")]
            for row in counted} == {
        ("s", 0): [1, 1, 1, 2], ("s", 1): [1, 1, 1, 1], ("s", 2): [1, 1, 0, 1],
        (None, 0): [1, 1, 0, 2], (None, 1): [1, 1, 1, 1],
    }  # fmt: skip


def test_the_share_of_days_on_the_weekday_of_reading(rows: Any) -> None:
    # The night is a Tuesday; its lists are read on a Wednesday, as was the day six days before.
    events = [
        # Two Wednesdays of four days, of which one with two items and one of another weekday twice.
        *(event("ann", item, days) for item, days in (("a", 6), ("b", 6), ("b", 55), ("a", 0), ("c", 1), ("c", 1))),
        event("ann", "a", 62),  # a Wednesday longer than eight weeks ago
        event("ann", "a", 56),  # the last day that is too long ago
        event("ann", "a", -1),  # the day after the night, by a fast clock
        event("ann", "a", 13, weight=0.0),
        event("bob", "a", 6),
        event("cat", "a", 5),
        event("dan", "a", 90),
        event("eve", "b", 6, weight=0.0),
    ]
    events[5] |= {"event_key": "again"}
    found = histories(rows(CLEAN_EVENTS, events), pa.chunked_array([["a", "b", "c"]]), NIGHT, 5, Candidates())
    shares = {row.user_id: row.weekday_share for row in found.collect()}
    assert shares == {"ann": 0.5, "bob": 1.0, "cat": 0.0, "dan": 0.0, "eve": 0.0}
