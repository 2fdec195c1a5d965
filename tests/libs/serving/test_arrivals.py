"""What arrived, against what is usual: cases that a seeded defect or a clean night does not show."""

from __future__ import annotations

import datetime as dt
from typing import Any

from nightrec.config import Audit
from nightrec.serving import arrivals
from nightrec.serving.trailing import Past
from nightrec.tables import EVENT_TYPES

TUESDAY = dt.date(2026, 3, 10)
DAY = dt.timedelta(days=1)


def day(date: dt.date, users: int = 500, **values: Any) -> dict[str, Any]:
    counts = {**dict.fromkeys(EVENT_TYPES, 0), "view": users}
    beside = {"other_day": 0, "unknown_items": 0, "valued": 0, "log_value": None}
    return {"ingest_date": date, "events": users, "users": users, **counts, **beside, **values}


def volume(closed: set[int], tonight: dict[str, int]) -> list[tuple[str, bool]]:
    """Severity and outcome of a night with such books, where the shop was closed so many days before it."""
    books = {
        TUESDAY - DAY * ago: {"files": 0, "read": 0} if ago in closed else {"files": 1, "read": 500}
        for ago in range(1, 29)
    }
    past = Past({**books, TUESDAY: tonight})
    rows = arrivals.volume(past, [day(date) for date, fates in books.items() if fates["read"]], TUESDAY, Audit())
    return [(row["severity"], row["passed"]) for row in rows]


def test_no_files_are_a_stop_where_files_come_every_day() -> None:
    nothing, empty = {"files": 0, "read": 0}, {"files": 1, "read": 0}
    assert volume(set(), nothing)[0] == ("stop", False)
    # Closed on Saturdays: a holiday has no files either. A file without lines is none of its ways.
    saturdays = {3, 10, 17, 24}
    assert volume(saturdays, nothing)[0] == ("warn", False)
    assert volume(saturdays, empty)[0] == ("stop", False)
    assert volume(saturdays, {"files": 1, "read": 480})[0][1]


def test_many_more_lines_are_told() -> None:
    assert volume(set(), {"files": 1, "read": 2400})[1] == ("warn", True)
    assert volume(set(), {"files": 9, "read": 2600})[1] == ("warn", False)
