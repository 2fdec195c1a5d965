"""The kernel against a reference written list by list and item by item, and the cases a list can be in."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nightrec.serving import nominate
from nightrec.serving.catalogue import Catalogue
from nightrec.serving.sources import RISING
from nightrec.tables import SOURCES, WINDOWS

ALL = dict.fromkeys(SOURCES, 3)
OFF = dict.fromkeys(SOURCES, 0)


# Sources that are tables of similar items.
NEAR = ("cooccurrence", "bm25", "linear", "transitions", "keywords", "attributes")


def catalogue(
    items: list[dict[str, Any]], near: Any = None, segments: Any = (), editorial: Any = (), people: Any = None,
    nearest: int = 2,
) -> Catalogue:  # fmt: skip
    """A catalogue of items that name only what matters: id, and perhaps available, recent, users, first, new,
    windows, factors, vector, age, idle, repeats, gap, categories, values, price, cold, weekday (days of users on that
    of reading, and on all). `near` per source, `people` and the numbers of their items."""
    near, people = near or {}, people or {}
    vectors = pa.list_(pa.float32())
    number = {item["id"]: n for n, item in enumerate(items)}
    assert list(number) == sorted(number)
    return Catalogue.of(
        pa.table(
            {
                "item_id": pa.array([item["id"] for item in items], pa.string()),
                "is_available": pa.array([item.get("available", True) for item in items], pa.bool_()),
                "recent_user_count": pa.array([item.get("recent", 0) for item in items], pa.int64()),
                "user_count": pa.array([item.get("users", 0) for item in items], pa.int64()),
                "is_new": pa.array([item.get("new", False) for item in items], pa.bool_()),
                "newcomer_count": pa.array([item.get("first", 0) for item in items], pa.int64()),
                "window_user_counts": pa.array(
                    [item.get("windows", [0] * len(WINDOWS)) for item in items], pa.list_(pa.int64())
                ),
                "repeat_user_count": pa.array([item.get("repeats", 0) for item in items], pa.int64()),
                "repeat_gap_days": pa.array([item.get("gap") for item in items], pa.float64()),
                "age": pa.array([item.get("age") for item in items], pa.int32()),
                "idle": pa.array([item.get("idle") for item in items], pa.int32()),
                "categories": pa.array([item.get("categories", []) for item in items], pa.list_(pa.string())),
                "values": pa.array([item.get("values", []) for item in items], pa.list_(pa.string())),
                "price": pa.array([item.get("price") for item in items], pa.float64()),
                "is_cold": pa.array([item.get("cold", False) for item in items], pa.bool_()),
                "weekday_days": pa.array([item.get("weekday", (0, 0))[0] for item in items], pa.int64()),
                "all_days": pa.array([item.get("weekday", (0, 0))[1] for item in items], pa.int64()),
                "factors": pa.array([item.get("factors") for item in items], vectors),
                "vector": pa.array([item.get("vector") for item in items], vectors),
            }
        ),
        {
            source: pa.table(
                {
                    "item_idx": pa.array([number[a] for a, _, _ in near.get(source, ())], pa.int32()),
                    "neighbour_idx": pa.array([number[b] for _, b, _ in near.get(source, ())], pa.int32()),
                    "similarity": pa.array([s for _, _, s in near.get(source, ())], pa.float64()),
                }
            )
            for source in NEAR
        },
        pa.table(
            {
                "segment": pa.array([name for name, _, _ in segments], pa.string()),
                "item_idx": pa.array([number[item] for _, item, _ in segments], pa.int32()),
                "users": pa.array([users for _, _, users in segments], pa.int64()),
            }
        ),
        editorial,
        pa.table(
            {
                "user_id": pa.array(list(people), pa.string()),
                "basket": pa.array(list(people.values()), pa.list_(pa.int32())),
            }
        ),
        nearest,
    )


def batch(lists: list[dict[str, Any]]) -> pa.RecordBatch:
    """Lists that name only what matters."""

    def column(name: str, type_: pa.DataType, default: Any = None) -> pa.Array:
        return pa.array([row.get(name, default) for row in lists], type_)

    floats, strings, numbers = pa.list_(pa.float32()), pa.list_(pa.string()), pa.list_(pa.int32())
    return pa.RecordBatch.from_pydict(
        {
            "list_kind": column("list_kind", pa.string(), "user"),
            "list_key": column("list_key", pa.string(), "u"),
            "als_vector": column("als_vector", floats),
            "text_vector": column("text_vector", floats),
            "recent": column("recent", numbers),
            "segment": column("segment", pa.string()),
            "blocked_items": column("blocked_items", strings),
            "masked": column("masked", numbers),
            **{name: column(name, numbers) for name in ("own", "own_days", "own_age", "own_span")},
            "event_count": column("event_count", pa.int64()),
            "item_count": column("item_count", pa.int64()),
            "days_since_last": column("days_since_last", pa.int32()),
            "weekday_share": column("weekday_share", pa.float64()),
            "categories": column("categories", strings),
            "category_shares": column("category_shares", pa.list_(pa.float64())),
            "seed": column("seed", pa.int64()),
        }
    )


def rows(lists: list[dict[str, Any]], items: Catalogue, counts: dict[str, int]) -> list[dict[str, Any]]:
    """Candidates of lists in their order: those of users as of users, all others as others."""
    found = []
    for of_users, some in itertools.groupby(lists, lambda row: row.get("list_kind", "user") == "user"):
        batches = list(nominate.candidates(batch(list(some)), items, counts, of_users=of_users))
        found += pa.Table.from_batches(batches).to_pylist()
    return found


def ranked(found: list[dict[str, Any]], source: str, key: str = "u") -> list[str]:
    """Items a source nominated for a list, best first."""
    named = [row for row in found if row["list_key"] == key and row[f"{source}_rank"]]
    return [row["item_id"] for row in sorted(named, key=lambda row: row[f"{source}_rank"])]


def trend(item: dict[str, Any]) -> float:
    return (item["windows"][WINDOWS.index(28)] + 1) / math.sqrt(item["users"] + 1)


def alike(row: dict[str, Any], people: dict[str, list[int]], nearest: int) -> dict[str, float]:
    """The people most like a list's user, by cosine, then their order, and how much."""
    own = set(row.get("own") or [])
    cosine = {
        name: float(np.float32(len(own & {*basket}) / math.sqrt(len(own) * len(basket))))
        for name, basket in people.items()
        if own & {*basket} and name != row["list_key"]
    }
    return dict(sorted(cosine.items(), key=lambda pair: -pair[1])[:nearest])


def reference(row: dict[str, Any], items: list[dict[str, Any]], near: Any, segments: Any, editorial: list[str],
              people: dict[str, list[int]], count: int) -> dict[str, Any]:
    """item id -> {source: rank}, source and reason item of one list, by the definitions."""
    by_id = {item["id"]: item for item in items}
    own = by_id[row["list_key"]] if row["list_kind"] == "item" else {}
    factors, vector = row.get("als_vector") or own.get("factors"), row.get("text_vector") or own.get("vector")
    hidden = {items[n]["id"] for n in row.get("masked") or []} | set(row.get("blocked_items") or [])
    shown = [item for item in items if item.get("available", True) and item["id"] not in hidden]
    recent = [row["list_key"]] if own else [items[n]["id"] for n in row.get("recent") or []]
    similar = {source: {(a, b): s for a, b, s in rows} for source, rows in near.items()}
    friends = alike(row, people, 2)
    habits = zip(*(row.get(name) or [] for name in ("own", "own_days", "own_age")), strict=True)
    habit = {items[n]["id"]: days * 0.5 ** (age / 60) for n, days, age in habits}
    week = WINDOWS.index(7)
    trending = sorted(items, key=lambda item: (-item["windows"][week], -item["recent"], -item["users"], item["id"]))
    first = [item for item in items if item.get("available", True)]
    most = max([item["recent"] for item in first] + [1])
    begin = {item["id"]: np.float32(item["first"] + 20 * item["recent"] / most) for item in first}
    begins = any(item["first"] for item in first) and not row.get("event_count") and row["list_kind"] != "item"
    popular = sorted(items, key=lambda item: (-item["recent"], -item["users"], item["id"]))

    def dot(a: Any, b: Any) -> float:
        return float(sum(x * y for x, y in zip(a, b, strict=True)))

    def cosine(a: Any, b: Any) -> float:
        lengths = math.sqrt(dot(a, a)) * math.sqrt(dot(b, b))
        return dot(a, b) / lengths if lengths else 0.0

    def score(source: str, item: dict[str, Any], *, is_rising: bool) -> float | None:
        name, times = item["id"], trend(item) if is_rising else 1.0
        if source == "als":
            known = factors is not None and item["factors"] is not None
            rising = [float(np.float32(f) * np.float32(times)) for f in item["factors"] or ()]
            return (cosine if own else dot)(factors, rising) if known else None
        if source in similar:
            shares = [similar[source].get((i, name), 0.0) * (1 / math.log2(n + 2)) for n, i in enumerate(recent)]
            return sum(shares) * times if sum(shares) > 0 else None
        if source == "neighbour_users":
            likes = sum(likeness for friend, likeness in friends.items() if items.index(item) in people[friend])
            return likes * times if likes else None
        if source == "habit":
            return habit.get(name)
        if source == "trending":
            return -trending.index(item) if item["windows"][week] else None
        if source == "text":
            return dot(vector, item["vector"]) if vector is not None and item["vector"] is not None else None
        if source == "segment":
            return {(s, i): users for s, i, users in segments}.get((row.get("segment"), name))
        if source == "newcomers":
            return float(begin[name]) - popular.index(item) / 1000 if begins and begin[name] else None
        if source == "new_items":
            return None  # of chance its own test
        if source == "popularity":
            return -popular.index(item)
        return -editorial.index(name) if name in editorial else None

    def reason(source: str, name: str) -> str | None:
        said: list[tuple[float, int, str]] = []
        if source in similar:
            pairs = [(similar[source].get((i, name)), n, i) for n, i in enumerate(recent)]
            said = [(-s * (1 / math.log2(n + 2)), n, i) for s, n, i in pairs if s is not None]
        if source == "text":
            near = [(n, i) for n, i in enumerate(recent) if i != name and by_id[i]["vector"] is not None]
            said = [(-dot(by_id[i]["vector"], by_id[name]["vector"]), n, i) for n, i in near]
        return min(said)[2] if said else None

    found: dict[str, Any] = {}
    for source, is_rising in itertools.product(SOURCES, (False, True)):
        if is_rising and (source not in RISING or row["list_kind"] != "user"):
            continue
        scores = [(score(source, item, is_rising=is_rising), item["id"]) for item in shown]
        scored = [(np.float32(s), name) for s, name in scores if s is not None]
        for rank, (_, name) in enumerate(sorted(scored, key=lambda pair: (-pair[0], pair[1]))[:count], 1):
            before = found.setdefault(name, {}).get(source, count)
            found[name][source] = min(rank, before)
    result = {}
    for name, ranks in found.items():
        source = min(ranks, key=lambda s: (ranks[s], SOURCES.index(s)))
        speakers = [reason(s, name) for s in sorted(ranks, key=lambda s: (ranks[s], SOURCES.index(s)))]
        result[name] = (ranks, source, next((s for s in speakers if s), None))
    return result


def random_case(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[Any]]:
    """A small world of whole numbers, so that scores are exact and ties are many: items, lists, and the neighbours,
    segments, picks and people that a catalogue takes beside the items."""
    rng = np.random.default_rng(seed)
    names = [f"i{n:02}" for n in range(int(rng.integers(1, 13)))]

    def vector(size: int) -> list[float] | None:
        return [float(x) for x in rng.integers(-1, 2, size)] if rng.random() < 0.8 else None

    def some(of: list[Any], most: int) -> list[Any]:
        return [of[n] for n in rng.permutation(len(of))[: rng.integers(0, most + 1)]]

    items = [
        {
            "id": name,
            "available": bool(rng.random() < 0.8),
            "recent": int(rng.integers(3)),
            "users": int(rng.integers(3)),
            "first": int(rng.integers(3)) if seed % 4 else 0,
            "windows": sorted(int(n) for n in rng.integers(0, 3, len(WINDOWS))),
            "factors": vector(2),
            "vector": vector(3),
        }
        for name in names
    ]
    near = {
        source: [(a, b, float(w) / 2) for a in names for b in names if a != b and (w := rng.choice(weights))]
        for source in NEAR
        for weights in [(0, 0, -1, 2) if source == "linear" else (0, 0, 1, 2)]
    }
    segments = [(s, name, int(rng.integers(1, 3))) for s in ("new", "old") for name in names if rng.random() < 0.4]
    lists: list[dict[str, Any]] = [
        {
            "list_kind": "user",
            "list_key": f"u{n}",
            "als_vector": vector(2),
            "text_vector": vector(3),
            "recent": some(list(range(len(names))), 4),
            "segment": [None, "new", "old", "none"][rng.integers(4)],
            "blocked_items": some([*names, "unknown"], 2),
            "masked": some(list(range(len(names))), 5),
        }
        for n in range(5)
    ]
    for row in lists:
        row["own"] = some(list(range(len(names))), 4)
        row |= {name: [int(n) for n in rng.integers(1, 4, len(row["own"]))] for name in ("own_days", "own_age")}
        row |= {"own_span": row["own_days"], "event_count": len(row["own"]), "item_count": len(row["own"])}
    lists += [{"list_kind": "item", "list_key": name, "blocked_items": [name]} for name in names]
    # One user with events is among them, and one whom no list is for.
    people = {name: some(list(range(len(names))), 4) or [0] for name in ("other", "u1", "u3")}
    lists.append({"list_kind": "everyone", "list_key": "everyone"})
    return items, lists, [near, segments, some(names, 3), people]


@pytest.mark.parametrize("seed", range(40))
def test_equals_the_reference(seed: int) -> None:
    items, lists, beside = random_case(seed)
    found = rows(lists, catalogue(items, *beside), ALL)
    assert [(r["list_key"], r["item_id"]) for r in found] == [  # in order of list, then id; nothing twice
        (row["list_key"], name)
        for row in lists
        for name in sorted(reference(row, items, *beside, 3))
    ]
    for row in lists:
        got = {
            r["item_id"]: ({s: r[f"{s}_rank"] for s in SOURCES if r[f"{s}_rank"]}, r["source"], r["because_item_id"])
            for r in found
            if r["list_key"] == row["list_key"]
        }
        assert got == reference(row, items, *beside, 3), row


def test_the_size_of_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    names = [f"i{n:03}" for n in range(150)]
    items = [
        {"id": n, "factors": list(rng.normal(size=16)), "vector": list(rng.normal(size=33)), "recent": 1} for n in names
    ]
    near = [(a, names[b], float(rng.random())) for a in names for b in rng.permutation(150)[:20]]
    lists: list[dict[str, Any]] = [
        {
            "list_key": f"u{n}",
            "als_vector": list(rng.normal(size=16)),
            "text_vector": list(rng.normal(size=33)),
            "recent": [int(i) for i in rng.permutation(150)[: n % 7]],
            "event_count": n % 7,
            "masked": [n],
        }
        for n in range(60)
    ]
    for row in lists:
        row |= {"own": row["recent"], **dict.fromkeys(("own_days", "own_age", "own_span"), [1] * len(row["recent"]))}
    people = {f"u{n}": [int(i) for i in rng.permutation(150)[:20]] for n in range(30, 90)}
    known = catalogue(items, {"cooccurrence": near, "keywords": near[::-1]}, people=people, nearest=5)
    whole = rows(lists, known, ALL | {"als": 20, "text": 20})
    monkeypatch.setattr(nominate, "_BLOCK_BYTES", 1)
    assert rows(lists, known, ALL | {"als": 20, "text": 20}) == whole


def test_k_means_k_whatever_is_masked() -> None:
    """The 40 most popular of 50 items are seen or blocked: the other 10 fill the list all the same."""
    items = catalogue([{"id": f"i{n:02}", "recent": 50 - n} for n in range(50)])
    lists = [{"masked": list(range(30)), "blocked_items": [f"i{n}" for n in range(25, 40)]}]
    assert ranked(rows(lists, items, OFF | {"popularity": 10}), "popularity") == [f"i{n}" for n in range(40, 50)]


def test_a_list_for_whom_nothing_is_left_has_no_rows() -> None:
    items = catalogue([{"id": "a", "recent": 1}, {"id": "b", "factors": [1.0], "vector": [1.0]}], editorial=["a"])
    lists = [
        {"list_key": "seen-all", "masked": [0, 1], "als_vector": [1.0]},
        {"list_key": "no-history"},  # gets what is popular, and what was picked by hand
    ]
    found = rows(lists, items, ALL)
    assert ranked(found, "popularity", "seen-all") == []
    assert [(r["list_key"], r["item_id"], r["source"]) for r in found] == [
        ("no-history", "a", "popularity"),
        ("no-history", "b", "popularity"),
    ]


def test_a_new_item_is_found_by_its_text_alone() -> None:
    items = catalogue(
        [
            {"id": "hit", "recent": 9, "factors": [1.0], "vector": [0.0, 1.0]},
            {"id": "new", "vector": [1.0, 0.0]},  # no events: no factors, no neighbours, last in popularity
            {"id": "old", "recent": 5, "factors": [1.0], "vector": [1.0, 0.0]},
        ]
    )
    lists = [{"als_vector": [1.0], "text_vector": [1.0, 0.0], "recent": [2], "masked": [2]}]
    found = rows(lists, items, dict.fromkeys(SOURCES, 1))
    new = next(row for row in found if row["item_id"] == "new")
    assert (new["source"], new["text_rank"], new["text_score"], new["because_item_id"]) == ("text", 1, 1.0, "old")
    assert new["als_rank"] is None and new["als_score"] is None and new["popularity_rank"] is None


def test_similar_items_go_by_angle_and_never_name_the_item_itself() -> None:
    items = catalogue(
        [
            {"id": "a", "factors": [1.0, 0.0]},
            {"id": "b", "factors": [9.0, 9.0]},  # the larger product with a
            {"id": "c", "factors": [2.0, 0.0]},  # the same direction as a
            {"id": "d", "factors": [0.0, 0.0]},  # no direction at all
        ]
    )
    found = rows(
        [{"list_kind": "item", "list_key": "a", "blocked_items": ["a"]}], items, OFF | {"als": 4}
    )
    assert ranked(found, "als", "a") == ["c", "b", "d"]
    by_user = rows([{"als_vector": [1.0, 0.0], "masked": [0]}], items, OFF | {"als": 4})
    assert ranked(by_user, "als") == ["b", "c", "d"]


def test_scores_are_recorded_as_the_source_means_them() -> None:
    items = catalogue(
        [{"id": "a", "recent": 7, "users": 1}, {"id": "b", "recent": 7, "users": 2}], editorial=["gone", "a", "b"]
    )
    found = rows([{"list_key": "u"}], items, ALL)
    assert ranked(found, "popularity") == ["b", "a"]  # users ever, where recent users tie
    assert [(r["popularity_score"], r["editorial_score"]) for r in found] == [(7.0, 1 / 2), (7.0, pytest.approx(1 / 3))]


def test_nothing_at_all() -> None:
    assert rows([{"list_key": "u"}], catalogue([]), ALL) == []
    assert rows([{"list_key": "u"}], catalogue([{"id": "a", "available": False, "recent": 1}]), ALL) == []
    assert list(nominate.candidates(batch([]), catalogue([{"id": "a"}]), ALL, of_users=True)) == []
    # A model without factors for any known item, an encoder that has seen none of the texts.
    known = catalogue([{"id": "a"}])
    assert ranked(rows([{"als_vector": [1.0, 2.0], "text_vector": [1.0]}], known, ALL), "als") == []
