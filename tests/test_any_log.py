"""Logs of every kind, one night each: it runs to its end, every list is full, every line has a fate.

In process, in the tests' session, with settings left at their defaults but for the size of the models.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from nightrec import runner
from nightrec.config import Config, Paths, Spark
from nightrec.models import ranker_model_id
from nightrec.night import Books, Night
from nightrec.pipeline import stage
from nightrec.store import arrow
from nightrec.tables import ITEM_PROFILES, PUBLISHED_TOPK, RANKER_MODELS, USER_PROFILES

pytestmark = pytest.mark.usefixtures("interpreted")

FIRST, DAYS, K = date(2026, 1, 30), 30, 10
LAST = FIRST + timedelta(days=DAYS - 1)
LOCAL = Spark(master="local[2]", partitions=2)
Event = dict[str, Any]


@dataclass(frozen=True)
class Finished:
    """A night that is over: its deployment, how many events were written, and the books of its stages."""

    folder: Path
    written: int
    books: list[Books]


def event(user: int, item: int, day: int, kind: str = "view", second: int = 0) -> Event:
    moment = datetime(FIRST.year, FIRST.month, FIRST.day, 8, tzinfo=UTC) + timedelta(days=day, seconds=second)
    return {"user_id": f"u{user:04d}", "item_id": f"i{item:05d}", "event_type": kind, "event_ts": moment.isoformat()}


def shop(draw: random.Random, users: int = 50, items: int = 60) -> Iterator[Event]:
    """A user in two acts on a day, on items of the own taste, popular ones first."""
    for day in range(DAYS):
        for user in range(users):
            if draw.random() < 0.5:
                item = 2 * int(items // 2 * draw.random() ** 2) + user % 2
                kind = draw.choice(("view", "click", "purchase"))
                yield event(user, item, day, kind, draw.randrange(40_000))


def one_kind(draw: random.Random) -> Iterator[Event]:
    return ({**each, "event_type": "purchase"} for each in shop(draw))


def dates_without_times(draw: random.Random) -> Iterator[Event]:
    return ({**each, "event_ts": each["event_ts"][:10] + "T00:00:00Z"} for each in shop(draw))


def one_event_per_user(draw: random.Random) -> Iterator[Event]:
    return (event(user, int(60 * draw.random() ** 2), user % DAYS) for user in range(300))


def repeats_only(draw: random.Random) -> Iterator[Event]:
    """Everybody comes back to one item, the same all the time."""
    return (event(user, user % 40, day) for day in range(DAYS) for user in range(50) if draw.random() < 0.5)


def half_on_one_item(draw: random.Random) -> Iterator[Event]:
    for each in shop(draw):
        yield each
        yield {**each, "item_id": "i00000", "event_type": "click"}


def mostly_new_items(draw: random.Random) -> Iterator[Event]:
    """2,000 items have been acted on, of the 20,000 of the catalogue."""
    return shop(draw, users=100, items=2_000)


def robots(draw: random.Random) -> Iterator[Event]:
    """A robot in three users: 1,100 events in an hour."""
    yield from shop(draw, users=40)
    for robot in range(20):
        for n in range(1_100):
            yield event(9_000 + robot, n % 60, DAYS - 2, "view", 2 * n)


def half_on_one_day(draw: random.Random) -> Iterator[Event]:
    for each in shop(draw):
        yield each
        yield {**each, "event_ts": event(0, 0, DAYS - 5, second=draw.randrange(40_000))["event_ts"]}


# Name of the log, its events, items of the catalogue (0: no catalogue, no texts), whether a ranker can learn from it.
LOGS: dict[str, tuple[Callable[[random.Random], Iterator[Event]], int, bool]] = {
    "only one event kind": (one_kind, 60, True),
    "no text": (shop, 0, True),
    "dates without times": (dates_without_times, 60, True),
    "one event per user": (one_event_per_user, 60, False),
    "repeats only": (repeats_only, 60, True),
    "an item in half of all events": (half_on_one_item, 60, True),
    "20,000 items, 90 % new": (mostly_new_items, 20_000, True),
    "30 % robots": (robots, 60, True),
    "half of all events on one day": (half_on_one_day, 60, True),
}


@pytest.fixture(scope="module")
def finished(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Finished]:
    """One night of a log of LOGS, run when it is first asked for."""

    @cache
    def night_of(name: str) -> Finished:
        events, items, _ = LOGS[name]
        folder = tmp_path_factory.mktemp("night")
        written = write(folder / "raw", list(events(random.Random(5))), items)
        with Night(spark, small(folder), LAST, warm=True) as night:
            books = list(runner.run(night, lambda label: nullcontext()))
        return Finished(folder, written, books)

    return night_of


@pytest.mark.parametrize("name", LOGS)
def test_a_night_of(name: str, finished: Callable[[str], Finished]) -> None:
    *_, items, is_learnable = LOGS[name]
    night = finished(name)
    warehouse = small(night.folder).paths.warehouse
    assert fates(night.books) == night.written
    everybody = arrow(warehouse, USER_PROFILES, {"run_date": LAST}).to_pylist()
    offered = arrow(warehouse, ITEM_PROFILES, {"run_date": LAST}).to_pylist()
    published = arrow(warehouse, PUBLISHED_TOPK, {"list_kind": "user"}).to_pylist()
    lists = {row["list_key"]: row["items"] for row in published}
    assert lists.keys() == {user["user_id"] for user in everybody if user["is_eligible"]}
    assert len(offered) >= (items or 50)
    assert {len({item["item_id"] for item in own}) for own in lists.values()} == {K}
    (ranker,) = arrow(warehouse, RANKER_MODELS).to_pylist()
    assert bool(ranker["weights"]) == is_learnable


def test_a_night_by_text_vectors_and_values(
    finished: Callable[[str], Finished], spark: SparkSession, tmp_path: Path
) -> None:
    """A network that reads vectors goes through the same stages, and lists are ordered by what an item is worth.

    Those from its training on, upon a night that is there: the stages before know nothing of the ranker.
    """
    folder = tmp_path / "night"
    shutil.copytree(finished("half of all events on one day").folder, folder)
    given = small(folder)
    values = {"purchase": 100.0, "click": 1.0}
    more = {"attention": 5, "loss": "pairwise", "kind_values": values}
    given = given.model_copy(update={"ranker": given.ranker.model_copy(update=more)})
    trained = LAST - timedelta(days=1)
    model = ranker_model_id(trained, given)
    with Night(spark, given, LAST, ranker_model=model) as night:
        runner.run_stage(night.at(trained), stage("ranker_model"))
        for name in ("ranked_topk", "audit", "published_topk"):
            runner.run_stage(night, stage(name))
        warehouse = night.store.warehouse
    (ranker,) = arrow(warehouse, RANKER_MODELS, {"model_id": model}).to_pylist()
    assert dict(ranker["settings"])["encoder"] == given.encoder.id
    assert {"item_profiles", "user_profiles", "item_embeddings", "user_embeddings"} < set(dict(ranker["data_versions"]))
    assert {line["kind"] for line in ranker["calibration"]} == {"any", "view", "click", "purchase"}
    published = arrow(warehouse, PUBLISHED_TOPK, {"list_kind": "user"}).to_pylist()
    assert published and {len({item["item_id"] for item in row["items"]}) for row in published} == {K}
    scores = [[item["score"] for item in row["items"]] for row in published]
    assert all(row == sorted(row, reverse=True) for row in scores)
    # Worth, not probability: a purchase is a third of all actions, and counts a hundred.
    assert max(row[0] for row in scores) > 1


def small(folder: Path) -> Config:
    """A deployment with small models; a week is the horizon of a month."""
    config = Config(paths=Paths(**{name: str(folder / name) for name in Paths.model_fields}), spark=LOCAL)
    parts = {
        "als": {"rank": 8, "iterations": 2},
        "ranker": {"horizon_days": 7, "past_cuts": 1, "epochs": 1, "hidden": (8,), "trees": 0},
    }
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update=given) for name, given in parts.items()}
    )


def fates(books: list[Books]) -> int:
    """Raw lines of all fates."""
    return sum(each.rows(fate) for each in books for fate in ("accepted", "late", "duplicate", "rejected"))


def write(root: Path, events: list[Event], items: int) -> int:
    """Raw files by the events' own dates, and a catalogue; returns how many events."""
    by_day: dict[str, list[str]] = {}
    for each in events:
        by_day.setdefault(each["event_ts"][:10], []).append(json.dumps(each))
    for day, lines in by_day.items():
        put(root / "events", day, lines)
    if items:
        kinds = ("lamp", "chair", "table", "shelf", "clock")
        put(root / "items", str(FIRST), [
            json.dumps({"item_id": f"i{n:05d}", "title": f"{kinds[n % 5]} {n % 7}", "categories": [kinds[n % 2]]})
            for n in range(items)
        ])  # fmt: skip
    return len(events)


def put(folder: Path, day: str, lines: list[str]) -> None:
    (folder / f"ingest_date={day}").mkdir(parents=True)
    (folder / f"ingest_date={day}" / "part-0.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
