"""What the log decides, and that it decides once."""

from __future__ import annotations

import datetime as dt
import random
from typing import Any

import pytest
from nightrec.events.repeats import repeats, span

from nightrec import adaptive
from nightrec.config import Candidates, Config
from nightrec.tables import CLEAN_EVENTS

DAY = dt.date(2026, 3, 1)


def event(user: str, item: str, day: int, weight: float = 1.0) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "event_date": DAY + dt.timedelta(days=day), "weight": weight}


def test_repeats_are_counted_as_by_hand(rows: Any) -> None:
    draw = random.Random(5)
    events = [event(f"u{draw.randrange(5)}", f"i{draw.randrange(6)}", draw.randrange(40)) for _ in range(120)]
    # The first and the last day; two on one day are no repeat of each other; impressions say nothing, nor when.
    events += [event("one", "x", 0), event("one", "y", 39), event("one", "y", 39), event("one", "x", 60, weight=0.0)]
    frame = rows(CLEAN_EVENTS, events)
    counted = [one for one in events if one["weight"]]
    begun: dict[tuple[str, str], dt.date] = {}
    for one in counted:
        pair = one["user_id"], one["item_id"]
        begun[pair] = min(one["event_date"], begun.get(pair, one["event_date"]))
    later = [one for one in counted if (one["event_date"] - DAY).days > 19.5]
    again = [one for one in later if one["event_date"] > begun[one["user_id"], one["item_id"]]]
    days = span(frame)
    assert days == (DAY, DAY + dt.timedelta(days=39))
    assert repeats(frame, *days) == (len(later), len(again)) and 0 < len(again) < len(later)
    assert span(frame.where("weight = 0")) is None and repeats(frame.where("weight = 0"), *days) == (0, 0)


def books(later: int, repeated: int) -> list[dict[str, Any]]:
    return [
        {"fate": "accepted", "row_count": 9},
        {"fate": adaptive.LATER, "row_count": later}, {"fate": adaptive.REPEATED, "row_count": repeated},
    ]  # fmt: skip


@pytest.mark.parametrize(("repeated", "allowed"), [(30, False), (31, True)])
def test_the_log_decides_what_nobody_set(repeated: int, allowed: bool) -> None:
    assert adaptive.adapted(Config(), books(100, repeated)).candidates.repeats_allowed is allowed
    assert adaptive.adapted(Config(), books(100, repeated)[:1]) == Config()
    for said in (True, False):
        config = Config(candidates=Candidates(repeats_allowed=said))
        assert adaptive.adapted(config, books(100, repeated)) == config
    lines = [(row["fate"], "", row["row_count"]) for row in books(100, repeated)]
    told = adaptive.told(lines)
    assert told and f"for good: {str(allowed).lower()}, as {repeated}% of the events" in told
    assert adaptive.told(lines[:1]) is None
