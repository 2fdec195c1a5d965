"""What comes after a night cannot be felt in it: poison all of it, train and run the night, and nothing has moved.

The reference is the undisturbed first night, which trains. In the poisoned shop, four later ingest dates bring absurd
events of every user and item, catalogues and users turned over, and events that claim to be old; all of it is cleaned
into the tables before the night runs.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checker
import pytest
from deployments import Base
from warm_drivers import WarmDrivers

from nightrec.report import books
from nightrec.store import arrow
from nightrec.tables import CLEAN_EVENTS, TABLES

DAYS = 4


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmDrivers]:
    with WarmDrivers(tmp_path_factory.mktemp("drivers"), mark="future") as running:
        yield running


def poison(raw: Path, cut: dt.date) -> None:
    """Everything after the cut is absurd: who did what, what things are, who people are, and when it happened."""
    for folder in sorted(raw.glob("*/ingest_date=*")):
        if dt.date.fromisoformat(folder.name.split("=")[1]) > cut:
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
    users = [f"u{n:03d}" for n in range(13)] + ["u-of-the-future"]
    items = [f"i{n:03d}" for n in range(20)] + ["i-of-the-future"]
    for n in range(1, DAYS + 1):
        day = cut + dt.timedelta(days=n)
        events = [
            {
                "event_id": f"poison-{day}-{user}-{item}", "user_id": user, "item_id": item, "value": 9.0,
                "event_type": "purchase", "text": "poison", "event_ts": f"{day - dt.timedelta(days=past)}T12:00:00Z",
            }
            for user in users for item in items for past in (0, n) if not past or item == user.replace("u", "i")
        ]  # fmt: skip
        # the first of the shop's own events once more, with another content
        events.append({**events[0], "event_id": "2026-01-30-0-0"})
        write(raw / "events", day, events)
        write(raw / "items", day, [
            {"item_id": item, "title": f"Poison {item}", "categories": ["poison"], "tags": ["poison"],
             "available_until": str(cut - dt.timedelta(days=30))} for item in items
        ])  # fmt: skip
        write(raw / "users", day, [
            {"user_id": user, "attributes": {"region": "poison"}, "blocked_items": items[:15]} for user in users
        ])  # fmt: skip


def write(kind: Path, day: dt.date, lines: list[dict[str, Any]]) -> None:
    folder = kind / f"ingest_date={day}"
    folder.mkdir(parents=True)
    (folder / "part-0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def until(warehouse: str, cut: dt.date) -> dict[str, list[str]]:
    """The rows of every table but the books that belong to dates up to the cut, sorted, as JSON."""
    found = {}
    for table in TABLES:
        if table.name in checker.BOOKS:
            continue
        names = [name for name in table.names if name not in checker.NOT_COMPARED]
        rows = arrow(warehouse, table, columns=names).to_pylist()
        day = table.partition[0] if table.partition and table.partition[0].endswith("_date") else ""
        kept = [row for row in rows if not day or row[day] <= cut]
        found[table.name] = sorted(json.dumps(row, sort_keys=True, default=str) for row in kept)
    return found


def ledger(warehouse: str, cut: dt.date) -> list[tuple[Any, ...]]:
    """The books of the dates up to the cut, but for which run read and wrote clean events: here a later one did."""
    lines = [
        line for line in books.lines(warehouse)
        if line.run_date <= cut and (line.stage != CLEAN_EVENTS.stage or line.fate not in ("input", "written"))
    ]  # fmt: skip
    return sorted((line.run_date, line.stage, line.fate, line.reason, line.row_count) for line in lines)


@pytest.mark.timeout(900)
def test_nothing_after_the_night_is_felt_in_it(base: Base, drivers: WarmDrivers, tmp_path: Path) -> None:
    cut, clean = dt.date.fromisoformat(base.nights[0]), str(base.folder / "after-1/warehouse")
    shop = base.copy(0, tmp_path / "shop")
    poison(shop / "raw", cut)
    warehouse, toml = str(shop / "warehouse"), shop / "nightrec.toml"
    cleaned = drivers.run("clean_events", "--config", toml, "--date", str(cut + dt.timedelta(days=DAYS)))
    assert cleaned.code == 0, cleaned.said[-3000:]
    poisoned = [row for row in arrow(warehouse, CLEAN_EVENTS).to_pylist() if row["text"]]
    assert len(poisoned) > 1000
    assert min(row["event_date"] for row in poisoned) <= cut < min(row["ingest_date"] for row in poisoned)

    ended = drivers.run("run", "--config", toml, "--date", str(cut))
    assert ended.code == 0, ended.said[-3000:]
    found, wanted = until(warehouse, cut), until(clean, cut)
    assert {name: len(rows) for name, rows in found.items()} == {name: len(rows) for name, rows in wanted.items()}
    assert [name for name in wanted if found[name] != wanted[name]] == []
    assert ledger(warehouse, cut) == ledger(clean, cut)
    assert sum(map(len, wanted.values())) > 1000

    # A stage that reads on beyond the night is caught: here all that has arrived, whenever.
    code = (
        "from nightrec.night import Night\nevents = Night.events\n"
        "Night.events = lambda self, until=None, after=None: events(self, self.date.replace(year=2100), after)\n"
    )
    for stage in ("item_profiles", "user_profiles", "candidates"):
        ended = drivers.run(stage, "--config", toml, "--date", str(cut), code=code)
        assert ended.code == 0, ended.said[-3000:]
    found = until(warehouse, cut)
    assert {name for name in wanted if found[name] != wanted[name]} >= {"item_profiles", "user_profiles", "candidates"}
