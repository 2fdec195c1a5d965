"""Fourteen nights cleaned in order, in reverse, shuffled and some twice: the same clean tables and the same books."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from nightrec_jobs import clean_events
from pyspark.sql import SparkSession

from nightrec.config import Config, Events
from nightrec.night import Night
from nightrec.past.digest import digest
from nightrec.store import Store, arrow
from nightrec.tables import CLEAN_EVENTS, LEDGER, REJECTED_EVENTS

pytestmark = pytest.mark.usefixtures("interpreted")

NIGHTS = [dt.date(2026, 3, 1) + dt.timedelta(days=n) for n in range(14)]
FATES = ("read", "accepted", "late", "duplicate", "rejected")


def event(day: dt.date, **fields: Any) -> str:
    return json.dumps({"user_id": "u", "item_id": "i", "event_type": "view", "event_ts": f"{day}T10:00:00Z"} | fields)


def lines(n: int, day: dt.date) -> list[str]:
    """A night whose lines' fates depend on the nights before: ids of the night and of the week before again."""
    before, week = NIGHTS[max(n - 1, 0)], max(n - 7, 0)
    return [
        *(event(day, event_id=f"{n}-{k}", user_id=f"u{k}", item_id=f"i{n * k % 5}") for k in range(4)),
        event(day, event_id=f"{max(n - 1, 0)}-0", user_id="copies"),
        event(day, event_id=f"{week}-1", user_id="copies a week later"),
        event(before, user_id="no id", text="the same two nights running"),
        event(NIGHTS[0], user_id="slow", item_id=f"i{n}"),
        event(day, user_id="bad", value="?"),
        *(event(day, user_id=f"robot of {n % 3}", item_id=f"r{k}") for k in range(4 if n % 3 == 0 else 2)),
        "broken",
    ]


@pytest.fixture
def strict(config: Config) -> Config:
    for n, day in enumerate(NIGHTS):
        folder = Path(config.paths.raw) / "events" / f"ingest_date={day}"
        folder.mkdir(parents=True)
        (folder / "part-0.jsonl.gz").write_bytes(gzip.compress("\n".join(lines(n, day)).encode()))
    return config.model_copy(update={"events": Events(robot_events_per_hour=3, late_after_days=1)})


def cleaned(spark: SparkSession, config: Config, warehouse: Path, nights: list[dt.date]) -> dict[str, Any]:
    """Digests of both tables, and the books of the lines, after these nights in this order."""
    store = Store(spark, str(warehouse), run_id=warehouse.name)
    paths = config.paths.model_copy(update={"warehouse": str(warehouse)})
    apart = config.model_copy(update={"paths": paths})
    try:
        for night in nights:
            Night(spark, apart, night, store=store).run("clean_events", clean_events.run)
        books = arrow(str(warehouse), LEDGER, {"stage": "clean_events"}).to_pylist()
        found = {table.name: digest(store.read(table)) for table in (CLEAN_EVENTS, REJECTED_EVENTS)}
        told = sorted((r["run_date"], r["fate"], r["reason"], r["row_count"]) for r in books if r["fate"] in FATES)
        return found | {"books": told}
    finally:
        store.close()


@pytest.mark.timeout(600)
def test_the_order_of_nights_does_not_count(spark: SparkSession, strict: Config, tmp_path: Path) -> None:
    shuffled = random.Random(5).sample(NIGHTS, len(NIGHTS))
    twice = [night for night in shuffled for _ in range(2 if night in (NIGHTS[0], NIGHTS[6], NIGHTS[13]) else 1)]
    orders = {"in-order": NIGHTS, "reversed": NIGHTS[::-1], "shuffled-and-three-twice": twice}
    found = {name: cleaned(spark, strict, tmp_path / name, nights) for name, nights in orders.items()}
    first = found["in-order"]
    assert first["clean_events"][0] > 14 * 5 and first["rejected_events"][0] > 14 * 2
    assert {fate for _, fate, _, count in first["books"] if count} == set(FATES)
    for name, other in found.items():
        assert other == first, name
