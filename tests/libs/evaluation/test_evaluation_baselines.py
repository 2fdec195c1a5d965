"""Baselines against their definitions, pair by pair, from events to lists."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from nightrec.evaluation import asof, baselines
from nightrec.evaluation.baselines import EVER, WINDOWS, Histories
from nightrec.tables import CLEAN_EVENTS

CUT = dt.date(2026, 3, 10)
ITEMS = [f"i{n}" for n in range(8)]  # i7 is not on offer


def log() -> list[tuple[str, str, int]]:
    """User, item and age in days; some pairs several times, one user with one item, one item of one user."""
    rng = np.random.default_rng(8)
    events = [(f"u{rng.integers(12)}", ITEMS[rng.integers(7)], int(rng.integers(0, 60))) for _ in range(90)]
    return [*events, ("one", "i0", 3), ("one", "i7", 1), ("u0", "i6", 0)]


@pytest.fixture
def known(rows: Any, spark: SparkSession) -> tuple[baselines.Items, Any]:
    events = [
        {"user_id": user, "item_id": item, "event_date": CUT - dt.timedelta(days=age), "weight": 1.0}
        for user, item, age in log()
    ]
    later = {"user_id": "u0", "item_id": "i1", "event_date": CUT + dt.timedelta(days=1), "weight": 1.0}
    disliked = {"user_id": "u0", "item_id": "i2", "event_date": CUT, "weight": 0.0}
    pairs = asof.pairs(rows(CLEAN_EVENTS, [*events, later, disliked]), CUT)
    numbered = asof.numbered(pairs, pa.array(ITEMS[:7]))
    histories = asof.histories(numbered)
    return asof.items(numbered, histories, pa.array(ITEMS[:7])), histories


def test_items_and_histories_are_those_of_the_events(known: tuple[baselines.Items, Any]) -> None:
    items, histories = known
    users = {item: {user for user, one, _ in log() if one == item} for item in ITEMS[:7]}
    for n, item in enumerate(ITEMS[:7]):
        ages: dict[str, int] = {}
        for user, one, age in log():
            if one == item:
                ages[user] = min(age, ages.get(user, age))
        expected = [sum(age < days for age in ages.values()) for days in WINDOWS]
        assert items.users[n].tolist() == [*expected, len(users[item])]
        for m, other in enumerate(ITEMS[:7]):
            assert items.together[n, m] == len(users[item] & users[other])
    rows = {row["user_id"]: row for row in histories.toArrow().to_pylist()}
    assert set(rows) == {user for user, _, _ in log()}
    assert rows["one"] == {"user_id": "one", "items": [0], "counts": [1], "ages": [3]}


def test_scores_are_the_definitions(known: tuple[baselines.Items, Any]) -> None:
    items, histories = known
    batch = histories.toArrow().combine_chunks().to_batches()[0]
    block = Histories.of(batch, 7)
    rows = batch.to_pylist()
    trend = [(recent + 1) / math.sqrt(ever + 1) for recent, ever in items.users[:, [EVER - 1, EVER]]]
    together = np.asarray(items.together.todense())
    inverse = np.linalg.inv(together + 30 * np.eye(7))
    linear = np.where(np.eye(7) > 0, 0, -inverse / np.diag(inverse))
    methods = {
        "popularity": baselines.popularity(1), "habit": baselines.habit(20.0), "cosine": baselines.cosine(2.0),
        "ease": baselines.ease(30.0), "trending": baselines.trending(baselines.popularity(EVER)),
    }
    found = {name: method(items)(block) for name, method in methods.items()}
    for u, row in enumerate(rows):
        own = dict(zip(row["items"], zip(row["counts"], row["ages"], strict=True), strict=True))
        for i in range(7):
            assert found["popularity"][u, i] == items.users[i, 1]
            assert found["trending"][u, i] == pytest.approx(items.users[i, EVER] * trend[i], rel=1e-6)
            count, age = own.get(i, (0, 0))
            assert found["habit"][u, i] == pytest.approx(count * 0.5 ** (age / 20), rel=1e-5, abs=1e-11)
            near = sum(
                together[j, i] / (math.sqrt(together[j, j] * together[i, i]) + 2) for j in own if j != i
            )
            assert found["cosine"][u, i] == pytest.approx(near, rel=1e-5)
            assert found["ease"][u, i] == pytest.approx(sum(linear[j, i] for j in own), abs=1e-5)


def test_lists_leave_out_what_was_seen_and_break_ties_by_number(known: tuple[baselines.Items, Any]) -> None:
    items, histories = known
    alike = {"alike": lambda of: lambda block: np.zeros(block.counts.shape, np.float32)}
    for allowed in (False, True):
        found = baselines.lists(histories, items, alike, k=5, repeats_allowed=allowed).toArrow().to_pylist()
        own = {row["user_id"]: set(row["items"]) for row in histories.toArrow().to_pylist()}
        assert {row["user_id"] for row in found} == set(own)
        for row in found:
            seen = set() if allowed else own[row["user_id"]]
            assert row["items"] == [n for n in range(7) if n not in seen][:5]


def test_the_best_are_those_of_a_full_sort() -> None:
    rng = np.random.default_rng(9)
    scores = rng.integers(0, 6, (300, 40)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.3] = -np.inf
    scores[0, 3:] = -np.inf
    for row, columns, count in zip(scores, *baselines.best(scores, 7), strict=True):
        order = [n for n in np.argsort(-row, kind="stable") if row[n] > -np.inf]
        assert columns[:count].tolist() == order[:7]


def test_what_counts_afterwards(rows: Any) -> None:
    def event(item: str, happened: int, arrived: int, weight: float = 1.0) -> dict[str, Any]:
        return {
            "user_id": "u", "item_id": item, "weight": weight,
            "event_date": CUT + dt.timedelta(days=happened), "ingest_date": CUT + dt.timedelta(days=arrived),
        }  # fmt: skip

    events = rows(CLEAN_EVENTS, [
        event("before", -3, -3), event("before", 2, 2),  # a repeat
        event("new", 1, 1), event("new", 5, 5),
        event("late", 0, 1),  # arrived after the cut, happened before it
        event("seen", 1, 1, weight=0.0), event("last day", 14, 14), event("beyond", 15, 15),
    ])  # fmt: skip
    before = events.where(f"ingest_date <= DATE '{CUT}'")
    for allowed, expected in ((False, {"new", "last day"}), (True, {"new", "last day", "before"})):
        found = asof.acted(events, CUT, 14, repeats_allowed=allowed, before=before).toArrow().to_pylist()
        assert [row["user_id"] for row in found] == ["u"] * len(expected)
        assert {row["item_id"] for row in found} == expected
