"""Features against their definitions, cell by cell, in a world of whole numbers."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from test_nominate import NEAR, alike, batch, catalogue

from nightrec.features import FEATURES, GROUPS, RISING, SCORED
from nightrec.serving.affinities import Traits
from nightrec.serving.catalogue import lately
from nightrec.serving.features import features, scores
from nightrec.serving.item_facts import percentiles
from nightrec.serving.nominate import Lists
from nightrec.tables import WINDOWS

NAMES = [f"i{n}" for n in range(8)]  # i7 is not available
# The two who are most like each user speak for it; `little` is one of them, and no neighbour of its own.
PEOPLE = {"one": [2, 7, 4], "two": [0, 1], "little": [1], "three": [6]}
# The last is the weekday of reading's share of all days below: 9 of 36.
ON_WEEKDAY, DAYS = [0, 3, 1, 0, 4, 1, 0, 50], [9, 3, 4, 0, 8, 10, 2, 50]


def world() -> tuple[list[dict[str, Any]], dict[str, Any], list[Any], list[dict[str, Any]]]:
    """Items, neighbours by source, segments and users' lists."""
    rng = np.random.default_rng(4)
    items = [
        {
            "id": name,
            "available": name != "i7",
            "users": int(rng.integers(1, 9)),
            "windows": sorted(int(n) for n in rng.integers(0, 5, len(WINDOWS))),
            "factors": [float(x) for x in rng.integers(-2, 3, 2)],
            "vector": [float(x) for x in rng.integers(-1, 2, 3)],
            "age": int(rng.integers(1, 50)),
            "idle": int(rng.integers(0, 9)),
            "repeats": int(rng.integers(0, 3)),
            "gap": float(rng.integers(1, 30)),
            "categories": [["x"], ["x", "y"], []][rng.integers(3)],
        }
        for name in NAMES
    ]
    for n, item in enumerate(items):
        item |= {"cold": n in (3, 5), "weekday": (ON_WEEKDAY[n], DAYS[n])}
    items[3] |= {"age": None, "idle": None, "users": 0, "windows": [0] * len(WINDOWS), "gap": None, "repeats": 0}
    near = {
        source: [(a, b, float(w) / 2) for a in NAMES for b in NAMES if a != b and (w := rng.choice((0, 0, -1, 3)))]
        for source in NEAR
    }
    segments = [("s", name, int(rng.integers(1, 9))) for name in NAMES[:5]]
    lists = [
        {
            "als_vector": [2.0, 1.0],
            "text_vector": [1.0, 0.0, -1.0],
            "recent": [2, 7, 0],
            "segment": "s",
            "own": [2, 7, 0, 5],
            "own_days": [3, 1, 1, 2],
            "own_age": [4, 4, 60, 90],
            "own_span": [20, 0, 0, 8],
            "event_count": 9,
            "item_count": 4,
            "days_since_last": 4,
            "weekday_share": 0.4,
            "categories": ["x", "y", "gone"],
            "category_shares": [0.25, 0.5, 0.1],
        },
        {"list_key": "little", "recent": [1], "own": [1], "own_days": [1], "own_age": [0], "own_span": [0],
         "event_count": 1, "item_count": 1, "days_since_last": 0},
    ]  # fmt: skip
    return items, near, segments, lists


@pytest.fixture
def found() -> dict[tuple[int, str], dict[str, float]]:
    """(list, item) -> feature -> value, of all available items; the second list has five of them."""
    items, near, segments, lists = world()
    known = catalogue(items, near, segments, people=PEOPLE)
    rows = np.array([0] * 7 + [1] * 5)
    columns = np.array([*range(7), 0, 2, 3, 5, 6])
    values = features(Lists.of(batch(lists), known), known, rows, columns, np.arange(12))
    assert values.dtype == np.float32 and np.isfinite(values).all()
    cells = zip(rows.tolist(), columns.tolist(), values.tolist(), strict=True)
    return {(row, NAMES[c]): dict(zip(FEATURES, v, strict=True)) for row, c, v in cells}


def raw(row: dict[str, Any], source: str, item: dict[str, Any], near: Any, segments: Any) -> float:
    """What a source says of an item, whether or not it nominates it."""
    if source == "als":
        return float(np.dot(row.get("als_vector", [0, 0]), item["factors"]))
    if source == "text":
        return float(np.dot(row.get("text_vector", [0, 0, 0]), item["vector"]))
    if source == "neighbour_users":
        friends = alike({"list_key": "u", **row}, PEOPLE, 2)
        return sum(likeness for name, likeness in friends.items() if int(item["id"][1:]) in PEOPLE[name])
    if source == "habit":
        own = dict(zip(row["own"], zip(row["own_days"], row["own_age"], strict=True), strict=True))
        days, age = own.get(int(item["id"][1:]), (0, 0))
        return days * 0.5 ** (age / 60)
    if source == "segment":
        return {(s, i): users for s, i, users in segments}.get((row.get("segment"), item["id"]), 0)
    similar = {(a, b): s for a, b, s in near[source]}
    return sum(similar.get((NAMES[n], item["id"]), 0) / math.log2(p + 2) for p, n in enumerate(row["recent"]))


def test_scores_within_the_list(found: dict[tuple[int, str], dict[str, float]]) -> None:
    items, near, segments, lists = world()
    trends = {"rising": WINDOWS.index(28), "week": WINDOWS.index(7)}
    for number, row in enumerate(lists):
        shown = [item for item in items if (number, item["id"]) in found]
        for source in (*SCORED, *(f"{source}_{trend}" for source in RISING for trend in trends)):
            plain = source.removesuffix("_rising").removesuffix("_week")
            values = {item["id"]: raw(row, plain, item, near, segments) for item in shown}
            if plain != source:
                window = trends[source.rsplit("_", 1)[1]]
                trend = {item["id"]: (item["windows"][window] + 1) / math.sqrt(item["users"] + 1) for item in items}
                values = {name: value * trend[name] if value > 0 else value for name, value in values.items()}
            numbers = np.array([*values.values()])
            spread = numbers.std()
            for name, value in values.items():
                told = found[number, name]
                share = max(value / numbers.max(), -1) if numbers.max() > 0 else 0
                z = (value - numbers.mean()) / spread if spread > 1e-9 else 0
                place = math.log1p(sum(numbers > value + 1e-9))
                expected = (share, z, place)
                got = tuple(told[f"{source}_{part}"] for part in ("share", "z", "place"))
                assert got == pytest.approx(expected, abs=1e-5), (number, name, source)


def test_items_among_one_another(found: dict[tuple[int, str], dict[str, float]]) -> None:
    items = {item["id"]: item for item in world()[0] if item["available"]}

    def percentile(values: dict[str, float]) -> dict[str, float]:
        below = {name: sum(other < value for other in values.values()) for name, value in values.items()}
        ties = Counter(values.values())
        return {name: (below[name] + (ties[value] - 1) / 2) / (len(values) - 1) for name, value in values.items()}

    week, month = WINDOWS.index(7), WINDOWS.index(28)
    idle = max(item["idle"] or 0 for item in items.values()) + 1
    ever = {name: item["users"] for name, item in items.items()}
    for n, days in enumerate(WINDOWS):
        users = {name: item["windows"][n] for name, item in items.items()}
        percentiles_ = percentile(users)
        for (_, name), told in found.items():
            assert told[f"users_{days}_days_percentile"] == pytest.approx(percentiles_[name])
            assert told[f"users_{days}_days_share"] == pytest.approx(users[name] / max(*users.values(), 1))
    expected = {
        "users_ever_percentile": percentile(ever),
        "item_age_percentile": percentile({name: item["age"] or 0 for name, item in items.items()}),
        "item_idle_percentile": percentile(
            {name: idle if item["idle"] is None else item["idle"] for name, item in items.items()}
        ),
        "week_over_month_log": {
            name: math.log((item["windows"][week] + 1) / (item["windows"][month] + 4)) for name, item in items.items()
        },
        "repeat_share": {name: item["repeats"] / max(item["users"], 1) for name, item in items.items()},
        "repeat_gap_log": {
            name: math.log1p(((item["gap"] or 0) * item["repeats"] + 90) / (item["repeats"] + 3))
            for name, item in items.items()
        },
    }
    for (_, name), told in found.items():
        for feature, values in expected.items():
            assert told[feature] == pytest.approx(values[name], abs=1e-6), (name, feature)


def test_what_the_user_did_with_the_item_itself(found: dict[tuple[int, str], dict[str, float]]) -> None:
    told = [found[0, "i2"][name] for name in GROUPS["own"]]
    item = world()[0][2]
    usual = (item["gap"] * item["repeats"] + 90) / (item["repeats"] + 3)
    # 3 days of 7, 20 days from the first to the last: every 10 days; the last 4 days ago, as was the user.
    assert told == pytest.approx([3, 3 / 7, math.log(5), math.log(11), 0.4, 4 / usual, 1.0], abs=1e-6)
    assert found[0, "i5"]["own_age_over_user_age"] == pytest.approx(91 / 5)
    assert found[0, "i0"]["own_gap_log"] == 0 == found[0, "i0"]["own_age_over_gap"]  # one day has no gap
    assert [found[0, "i1"][name] for name in GROUPS["own"]] == [0] * 7
    assert [found[1, "i2"][name] for name in GROUPS["own"]] == [0] * 7  # another user's


def test_the_user_and_the_rest(found: dict[tuple[int, str], dict[str, float]]) -> None:
    told = found[0, "i1"]
    assert [told[name] for name in GROUPS["user"][:3]] == pytest.approx([math.log(10), math.log(5), math.log(5)])
    mean = np.mean([found[0, name]["users_ever_percentile"] for name in ("i2", "i0", "i5")])  # i7 is not available
    assert told["user_popularity_percentile"] == pytest.approx(mean)
    shares = {"x": 0.25, "y": 0.5}
    for item in world()[0]:
        if item["available"]:
            share = max((shares[name] for name in item["categories"]), default=0)
            assert found[0, item["id"]]["category_share"] == share
    assert all(found[1, name]["category_share"] == 0 for name in ("i0", "i2", "i3"))
    assert [found[cell]["nomination_count"] for cell in found] == [*range(12)]


def test_the_weekday_of_reading(found: dict[tuple[int, str], dict[str, float]]) -> None:
    # Nine of 36 days of users of what is available: everything counts as 20 days more, 5 of them on that weekday.
    assert (sum(ON_WEEKDAY[:7]), sum(DAYS[:7])) == (9, 36)
    for (row, name), told in found.items():
        on_weekday, days = ON_WEEKDAY[int(name[1:])] + 5, DAYS[int(name[1:])] + 20
        assert told["item_weekday_log"] == pytest.approx(math.log(on_weekday / days / 0.25), abs=1e-6), name
        assert told["user_weekday_share"] == pytest.approx([0.4, 0][row])
    assert found[0, "i3"]["item_weekday_log"] == 0
    # A weekday on which nobody does anything says nothing of any item.
    gone = {"id": "c", "available": False, "weekday": (4, 4)}
    closed = catalogue([{"id": "a", "weekday": (0, 9)}, {"id": "b"}, gone])
    assert closed.weekday_log.tolist() == [0, 0]


def test_who_and_what_is_hardly_known(found: dict[tuple[int, str], dict[str, float]]) -> None:
    users = {item["id"]: item["users"] for item in world()[0]}
    for (row, name), told in found.items():
        expected = [name in ("i3", "i5"), users[name] == 0, row == 1]
        assert [told[flag] for flag in GROUPS["cold"]] == expected, (row, name)
    assert found[0, "i3"]["item_is_unseen"] == 1 and found[0, "i5"]["item_is_unseen"] == 0
    known = catalogue([{"id": "a"}])
    few = Lists.of(batch([{"list_key": f"{count}", "event_count": count} for count in (5, 6)]), known)
    values = features(few, known, np.array([0, 1]), np.array([0, 0]), np.ones(2))
    assert values[:, FEATURES.index("user_is_light")].tolist() == [1, 0]


@pytest.mark.parametrize("kind", ["all", "no values", "no prices", "one price"])
def test_what_own_items_have_in_common(kind: str) -> None:
    rng = np.random.default_rng(7)
    names = [f"i{n:02}" for n in range(33)]
    # Attributes that few share, one that all have and one of each item alone; a whole price is one of them too.
    values: list[list[str]] = [
        []
        if kind == "no values"
        else [
            *(f"tags\n{tag}" for tag in sorted({*rng.integers(0, 9, 3).tolist()})),
            *(f"attribute {key}\n{rng.integers(0, 5)}" for key in ("brand", "colour", "price tag")[: rng.integers(4)]),
            f"attribute sku\n{name}", "attribute Price\n9", "categories\nx",
        ]
        for name in names
    ]  # fmt: skip
    values[4] = []
    prices: list[float | None] = [float(rng.integers(1, 25)) if rng.random() < 0.8 else None for _ in names]
    prices[:7] = [None if n < 3 else 4.5 for n in range(7)]
    if kind in ("no prices", "one price"):
        prices = [9.5 if kind == "one price" else None] * 33
    items = [
        {"id": name, "available": n not in (0, 9), "values": values[n], "price": prices[n]}
        for n, name in enumerate(names)
    ]
    known = catalogue(items)
    # Only what is gone; only what has no price; a dozen; nothing; one item that says nothing of itself; one that does.
    owns = [[0, 9], [1, 2, 3], [int(n) for n in rng.permutation(33)[:12]], [], [4], [20]]
    beside = ("own_days", "own_age", "own_span")
    users = [{"list_key": f"u{n}", "own": own} | dict.fromkeys(beside, [1] * len(own)) for n, own in enumerate(owns)]
    lists = Lists.of(batch(users), known)
    rows, columns = np.repeat(np.arange(len(owns)), known.width), np.tile(np.arange(known.width), len(owns))
    found = features(lists, known, rows, columns, np.ones(len(rows)))
    assert np.isfinite(found).all()
    there = [price for price in prices if price is not None]

    def below(price: float) -> int:
        return sum(other < price for other in there)

    def percentile(price: float) -> float:
        return (below(price) + (there.count(price) - 1) / 2) / (len(there) - 1)

    for row, column, told in zip(rows, known.columns[columns], found.tolist(), strict=True):
        own, price = owns[row], prices[column]

        def largest(prefix: str, own: list[int] = own, column: int = column) -> float:
            held = [v for v in values[column] if v.startswith(prefix) and not v.startswith("attribute Price\n")]
            others = [v for v in held if sum(v in of for of in values) > 1]
            return max((sum(v in values[o] for o in own) / len(own) for v in others), default=0) if own else 0

        spent = [paid for o in own if (paid := prices[o]) is not None]
        share = distance = is_known = 0.0
        if price is not None and spent:
            share = sum(10 * below(paid) // len(there) == 10 * below(price) // len(there) for paid in spent) / len(own)
            distance, is_known = abs(percentile(price) - sum(map(percentile, spent)) / len(spent)), 1.0
        expected = [0, largest("attribute "), largest("tags\n"), share, distance, is_known]
        got = [told[FEATURES.index(name)] for name in GROUPS["affinities"]]
        assert got == pytest.approx(expected, abs=1e-6), (row, column)
    shares = found[:, [FEATURES.index(name) for name in GROUPS["affinities"]]]
    something = {"no values": [3, 4, 5], "no prices": [1, 2], "one price": [1, 2, 3, 5], "all": [1, 2, 3, 4, 5]}[kind]
    assert np.flatnonzero(shares.any(axis=0)).tolist() == something and shares.min() == 0 and shares.max() <= 1


def test_bands_hold_as_many_prices_each() -> None:
    def bands(*prices: float | None) -> list[int]:
        of = pa.array([[] for _ in prices], pa.list_(pa.string()))
        return Traits.of(of, np.array(prices, np.float64)).price_band.tolist()

    assert bands(*map(float, range(20))) == [n // 2 for n in range(20)]
    # Equal prices share a band, the lowest of theirs; the others stay where they are.
    assert bands(*[1.0] * 5, 2.0, 3.0, 4.0, 5.0, 6.0) == [0] * 5 + [5, 6, 7, 8, 9]
    assert bands(7.0) == [0] and bands(None, 3.0, None) == [-1, 0, -1] and bands() == []


def test_a_list_alone_and_none() -> None:
    items, near, segments, lists = world()
    known = catalogue(items, near, segments, people=PEOPLE)
    both = Lists.of(batch(lists), known)
    rows, columns = np.array([0, 0, 1]), np.array([1, 4, 2])
    together = features(both, known, rows, columns, np.ones(3))
    alone = features(Lists.of(batch(lists[1:]), known), known, np.array([0]), columns[2:], np.ones(1))
    assert (together[2:] == alone).all()  # what other lists share its block changes nothing
    none = np.empty(0, np.int64)
    assert features(both, known, none, none, none).shape == (0, len(FEATURES))
    assert set(scores(both, known, np.array([0, 2, 3]), columns)) == set(SCORED)


def test_percentiles_share_places() -> None:
    assert percentiles(np.array([5, 1, 5, 9])).tolist() == [0.5, 0.0, 0.5, 1.0]
    assert percentiles(np.array([7])).tolist() == [0.0] and percentiles(np.empty(0)).tolist() == []


def test_trends_are_of_the_window_that_was_decided_and_of_a_quarter_of_it() -> None:
    found = {days: lately(days) for days in (1, 3, 5, 7, 14, 28, 30, 56, 365)}
    assert found == {
        1: (1, 1), 3: (1, 3), 5: (1, 3), 7: (1, 7), 14: (3, 14), 28: (7, 28), 30: (7, 28), 56: (14, 56), 365: (56, 56),
    }  # fmt: skip
