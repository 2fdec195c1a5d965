"""A night built again is held against what it wrote then, as far as it can know it."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

from nightrec.past.replay import _compared
from nightrec.store import Store
from nightrec.tables import CLEAN_EVENTS

MONDAY, TUESDAY = dt.date(2026, 3, 9), dt.date(2026, 3, 10)


def test_later_dates_that_a_late_one_had_cleaned_again_are_not_the_nights_to_build(
    store: Store, rows: Any, tmp_path: Any
) -> None:
    both = [{"ingest_date": day, "event_key": str(day), "event_type": "view"} for day in (MONDAY, TUESDAY)]
    at = store.replace(CLEAN_EVENTS, rows(CLEAN_EVENTS, both), {"ingest_date": [MONDAY, TUESDAY]}).version
    apart = Store(store.spark, str(tmp_path / "apart"), run_id="apart")
    apart.replace(CLEAN_EVENTS, rows(CLEAN_EVENTS, both[:1]), {"ingest_date": MONDAY})
    apart.close()
    cell = {"name": CLEAN_EVENTS.name, "part": json.dumps({"ingest_date": [f"{MONDAY}..{TUESDAY}"]})}
    found = [_compared(store.spark, store.warehouse, apart.warehouse, cell, at, night) for night in (MONDAY, TUESDAY)]
    assert [(each.rows, each.is_equal) for each in found] == [((1, 1), True), ((2, 1), False)]
