"""What is known as of a cut, from events; and every method's lists and figures, user by user."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from nightrec.evaluation import asof
from nightrec.evaluation.baselines import WINDOWS, popularity
from nightrec.evaluation.lists import (
    DEEP,
    ITEM_SLICES,
    OURS,
    PER_METHOD,
    Judging,
    Method,
    Shelf,
)
from nightrec.tables import CLEAN_EVENTS

CUT = dt.date(2026, 3, 10)
ITEMS = [f"i{n}" for n in range(7)]  # i7 is not on offer


def event(
    user: str, item: str, happened: int, arrived: int | None = None, weight: float = 1.0, kind: str = "view"
) -> dict[str, Any]:
    """Days after the cut; it arrives on the day it happens unless told."""
    day = dt.timedelta(days=1)
    dates = {"event_date": CUT + day * happened, "ingest_date": CUT + day * (happened if arrived is None else arrived)}
    return {"user_id": user, "item_id": item, "weight": weight, "event_type": kind, **dates}


def log() -> list[tuple[str, str, int]]:
    """User, item and age in days; some pairs several times, one user with one item, one item not on offer."""
    rng = np.random.default_rng(8)
    events = [(f"u{rng.integers(12)}", ITEMS[rng.integers(7)], int(rng.integers(0, 60))) for _ in range(90)]
    edges = [("edge", "i1", 7), ("edge", "i2", 14), ("edge", "i3", 28)]  # a day too old for each window
    return [*events, *edges, ("one", "i0", 3), ("one", "i7", 1), ("u0", "i6", 0)]


@pytest.fixture
def index(spark: SparkSession) -> Any:
    return spark.createDataFrame(list(zip(ITEMS, range(7), strict=True)), "item_id string, item int")


def test_items_are_those_of_the_histories(rows: Any, index: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    past = [event(user, item, -age) for user, item, age in log()]
    disliked = event("u0", "i2", 0, weight=0.0)
    frame = asof.users(rows(CLEAN_EVENTS, [*past, disliked]), index, CUT, 14, repeats_allowed=False).persist()
    users = {row["user_id"]: row for row in frame.toArrow().to_pylist()}
    assert set(users) == {user for user, _, _ in log()}
    assert users["one"] == {"user_id": "one", "events": 2, "items": [0], "counts": [1], "ages": [3], "truth": [],
                            "masked": [0]}  # fmt: skip
    found = asof.items(frame, pa.array(ITEMS))
    of = {item: {user for user, one, _ in log() if one == item} for item in ITEMS}
    for n, item in enumerate(ITEMS):
        ages: dict[str, int] = {}
        for user, one, age in log():
            if one == item:
                ages[user] = min(age, ages.get(user, age))
        assert found.users[n].tolist() == [*(sum(a < days for a in ages.values()) for days in WINDOWS), len(of[item])]
        assert found.events[n] == sum(one == item for _, one, _ in log())
    assert found.people == len(users) and found.references.seen.sum() == sum(map(len, of.values()))
    # Segments of some: who has none counts nowhere.
    segments = {"u0": "b", "u1": "a", "u2": "b", "u9": None, "edge": "a"}
    named = frame.sparkSession.createDataFrame(list(segments.items()), "user_id string, segment string")
    inside = asof.items(frame.join(named, "user_id", "left"), pa.array(ITEMS))
    assert inside.segment.to_pylist() == ["a", "b"] and (inside.users == found.users).all()
    for place, days in enumerate(WINDOWS):
        expected = [
            [len({u for u, one, age in log() if one == item and age < days and segments.get(u) == s}) for item in ITEMS]
            for s in "ab"
        ]
        assert inside.by_segment[place].toarray().tolist() == expected
    # Bounded: of the users a part.
    monkeypatch.setattr(asof, "REFERENCES", 6)
    assert 0 < len(asof.items(frame, pa.array(ITEMS)).references.users) < 12
    # Before anything was on offer.
    nothing = asof.items(frame.where("false"), pa.array([], pa.string()))
    assert nothing.people == 0 and nothing.users.shape == (0, len(WINDOWS) + 1)
    frame.unpersist()


def test_what_counts_afterwards(rows: Any, index: Any) -> None:
    events = rows(CLEAN_EVENTS, [
        event("u", "i0", -3), event("u", "i0", 2),  # a repeat
        event("u", "i1", 1), event("u", "i1", 5),
        event("u", "i2", 0, arrived=1),  # arrived after the cut, happened before it
        event("u", "i3", 1, weight=0.0),
        event("u", "i4", 14),
        event("u", "i5", 15),  # beyond
        event("u", "i5", 2, arrived=0),  # a fast clock: it had arrived by the cut
        event("u", "i6", -1, weight=0.0), event("u", "i6", 3),  # seen before, though it weighs nothing
        # Shown before: the lists may show it again, and it counts. Disliked before: no list may hold it.
        event("v", "i0", -1, weight=0.0, kind="impression"), event("v", "i0", 3),
        event("v", "i1", -1, weight=0.0, kind="dislike"), event("v", "i1", 3),
        event("v", "i2", -9), event("v", "i2", 3),
        event("u", "i7", 3), event("u", "i8", 3),  # not on offer
        event("cold", "i1", 4),
    ])  # fmt: skip
    for allowed, expected in ((False, [-1, -1, 1, 4]), (True, [-1, -1, 0, 1, 4, 6])):
        found = {row["user_id"]: row for row in asof.users(
            events, index, CUT, 14, repeats_allowed=allowed
        ).toArrow().to_pylist()}  # fmt: skip
        assert (found["v"]["truth"], found["v"]["masked"]) == (([0, 1, 2], [1]) if allowed else ([0], [1, 2]))
        assert found["u"]["masked"] == ([] if allowed else [0, 5, 6])
        assert found["u"]["truth"] == expected and found["u"]["items"] == [0] and found["u"]["events"] == 1
        assert found["cold"]["truth"] == [1] and found["cold"]["events"] == 0 == len(found["cold"]["items"])


def test_lists_and_figures_of_a_user_by_hand(rows: Any, index: Any, spark: SparkSession) -> None:
    past = [event(f"p{n}", f"i{item}", -1) for item, people in enumerate([6, 4, 3, 2, 1, 0, 0]) for n in range(people)]
    after = [event("p0", "i4", 1), event("p0", "i5", 1), event("new", "i0", 2), event("new", "i9", 2)]
    after += [event("p1", "i4", 1), event("p1", "i6", 1)]
    past.append(event("shy", "i0", -1, weight=0.0, kind="dislike"))
    past.append(event("shy", "i1", -1, weight=0.0, kind="impression"))
    after.append(event("shy", "i2", 1))
    frame = asof.users(rows(CLEAN_EVENTS, [*past, *after]), index, CUT, 14, repeats_allowed=False)
    items = asof.items(frame, pa.array(ITEMS))
    vectors = np.zeros((7, 2), np.float32)
    vectors[[4, 5, 6]] = [[1, 0], [0, 1], [0, 1]]
    methods = [Method("popular", "", False), Method("popular", "", True)]
    judging = Judging(
        2, Shelf.of(items, vectors), np.array([1, 1, 9, 1, 1, 1, 1], np.float32), methods,
        {("popular", ""): popularity(3)(items)}, everyone=[0, 1], segments=["north"],
    )  # fmt: skip
    extra = spark.createDataFrame([("p0", 7, [5, 4], "north"), ("new", 8, None, None), ("p1", 9, [3, 5, 6], None),
                                   ("shy", 10, None, None)],
                                  "user_id string, _user long, ours array<int>, segment string")
    found = {
        row["user_id"]: row for row in judging.judged(frame.join(extra, "user_id")).toArrow().to_pylist()
    }
    assert judging.names == [OURS, "popular", "popular, trend"]
    # p0 has i0 .. i4 of the past but i4: offered are i5, i6 and what is left.
    assert found["p0"]["lists"] == [[5, 4], [5, 6], [5, 6]]
    assert found["new"]["lists"] == [[0, 1], [0, 1], [2, 0]]
    # Nobody's list holds what its user dislikes, but what was only shown.
    assert found["shy"]["lists"] == [[0, 1], [1, 2], [2, 1]]
    figures = {user: dict(zip(judging.columns, row["figures"], strict=True)) for user, row in found.items()}
    best = 1 + 1 / math.log2(3)
    assert figures["new"]["popular", "ndcg"] == pytest.approx(1 / best)
    assert figures["new"]["popular, trend", "ndcg"] == pytest.approx(1 / math.log2(3) / best)
    assert figures["new"]["popular", "recall_100"] == figures["new"][OURS, "recall_100"] == 0.5
    assert figures["p0"][OURS, "diversity"] == 1.0 and figures["p0"]["popular", "diversity"] == 0.0
    cold, _, _, head, _ = ITEM_SLICES
    assert figures["new"]["popular", (head, 2)] == 1.0 and math.isnan(figures["new"]["popular", (cold, 2)])
    # Of i4 .. i6, all that p1 has left: i6, without events, is the third in both lists; i4 is the first in one.
    new = {(kind, depth): [figures["p1"][method, (kind, depth)] for method in (OURS, "popular")]
           for kind in ITEM_SLICES[:2] for depth in (2, DEEP)}  # fmt: skip
    assert new == {
        (cold, 2): [0.0, 0.0], (cold, DEEP): [1.0, 1.0], (ITEM_SLICES[1], 2): [0.0, 1.0],
        (ITEM_SLICES[1], DEEP): [0.0, 1.0],
    }  # fmt: skip
    assert [name for (method, name), value in figures["new"].items() if method == OURS and not math.isnan(value)] == [
        *(name for name in PER_METHOD if name != "diversity"), (head, 2), (head, DEEP), "users without events",
    ]  # fmt: skip
    assert figures["p0"]["popular", "segment north"] == figures["p0"]["popular", "users of 2 to 5 events"]
    assert math.isnan(figures["new"]["popular", "segment north"])
