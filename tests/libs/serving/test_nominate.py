"""The kernel against a reference written list by list and item by item, and the cases a list can be in."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nightrec.serving import nominate
from nightrec.serving.catalogue import Catalogue
from nightrec.tables import SOURCES

ALL = dict.fromkeys(SOURCES, 3)
OFF = dict.fromkeys(SOURCES, 0)


def catalogue(items: list[dict[str, Any]], neighbours: Any = (), segments: Any = (), editorial: Any = ()) -> Catalogue:
    """A catalogue of items that name only what matters: id, and perhaps available, recent, users, factors, vector."""
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
                "factors": pa.array([item.get("factors") for item in items], vectors),
                "vector": pa.array([item.get("vector") for item in items], vectors),
            }
        ),
        pa.table(
            {
                "item_idx": pa.array([number[a] for a, _, _ in neighbours], pa.int32()),
                "neighbour_idx": pa.array([number[b] for _, b, _ in neighbours], pa.int32()),
                "similarity": pa.array([s for _, _, s in neighbours], pa.float64()),
            }
        ),
        pa.table(
            {
                "segment": pa.array([name for name, _, _ in segments], pa.string()),
                "item_idx": pa.array([number[item] for _, item, _ in segments], pa.int32()),
                "users": pa.array([users for _, _, users in segments], pa.int64()),
            }
        ),
        editorial,
    )


def batch(lists: list[dict[str, Any]]) -> pa.RecordBatch:
    """Lists that name only what matters."""

    def column(name: str, type_: pa.DataType, default: Any = None) -> pa.Array:
        return pa.array([row.get(name, default) for row in lists], type_)

    floats, strings = pa.list_(pa.float32()), pa.list_(pa.string())
    return pa.RecordBatch.from_pydict(
        {
            "list_kind": column("list_kind", pa.string(), "user"),
            "list_key": column("list_key", pa.string(), "u"),
            "als_vector": column("als_vector", floats),
            "text_vector": column("text_vector", floats),
            "recent_items": column("recent_items", strings),
            "segment": column("segment", pa.string()),
            "blocked_items": column("blocked_items", strings),
            "masked": column("masked", pa.list_(pa.int32())),
        }
    )


def rows(lists: list[dict[str, Any]], items: Catalogue, counts: dict[str, int]) -> list[dict[str, Any]]:
    return pa.Table.from_batches(list(nominate.candidates(batch(lists), items, counts))).to_pylist()


def ranked(found: list[dict[str, Any]], source: str, key: str = "u") -> list[str]:
    """Items a source nominated for a list, best first."""
    named = [row for row in found if row["list_key"] == key and row[f"{source}_rank"]]
    return [row["item_id"] for row in sorted(named, key=lambda row: row[f"{source}_rank"])]


def reference(
    row: dict[str, Any], items: list[dict[str, Any]], neighbours: Any, segments: Any, editorial: list[str], count: int
) -> dict[str, Any]:
    """item id -> {source: rank}, source and reason item of one list, by the definitions."""
    by_id = {item["id"]: item for item in items}
    own = by_id[row["list_key"]] if row["list_kind"] == "item" else {}
    factors, vector = row.get("als_vector") or own.get("factors"), row.get("text_vector") or own.get("vector")
    hidden = {items[n]["id"] for n in row.get("masked") or []} | set(row.get("blocked_items") or [])
    shown = [item for item in items if item.get("available", True) and item["id"] not in hidden]
    recent = [i for i in row.get("recent_items") or [] if i in by_id]
    similar = {(a, b): s for a, b, s in neighbours}
    popular = sorted(items, key=lambda item: (-item["recent"], -item["users"], item["id"]))

    def dot(a: Any, b: Any) -> float:
        return float(sum(x * y for x, y in zip(a, b, strict=True)))

    def cosine(a: Any, b: Any) -> float:
        lengths = math.sqrt(dot(a, a)) * math.sqrt(dot(b, b))
        return dot(a, b) / lengths if lengths else 0.0

    def score(source: str, item: dict[str, Any]) -> float | None:
        name = item["id"]
        if source == "als":
            known = factors is not None and item["factors"] is not None
            return (cosine if own else dot)(factors, item["factors"]) if known else None
        if source == "cooccurrence":
            return sum(similar.get((i, name), 0.0) / math.log2(n + 2) for n, i in enumerate(recent)) or None
        if source == "text":
            return dot(vector, item["vector"]) if vector is not None and item["vector"] is not None else None
        if source == "segment":
            return {(s, i): users for s, i, users in segments}.get((row.get("segment"), name))
        if source == "popularity":
            return -popular.index(item)
        return -editorial.index(name) if name in editorial else None

    def reason(source: str, name: str) -> str | None:
        said: list[tuple[float, int, str]] = []
        if source == "cooccurrence":
            said = [(-similar.get((i, name), 0.0) / math.log2(n + 2), n, i) for n, i in enumerate(recent)]
        if source == "text":
            near = [(n, i) for n, i in enumerate(recent) if i != name and by_id[i]["vector"] is not None]
            said = [(-dot(by_id[i]["vector"], by_id[name]["vector"]), n, i) for n, i in near]
        return min(said)[2] if said else None

    found: dict[str, Any] = {}
    for source in SOURCES:
        scored = [(np.float32(s), item["id"]) for item in shown if (s := score(source, item)) is not None]
        for rank, (_, name) in enumerate(sorted(scored, key=lambda pair: (-pair[0], pair[1]))[:count], 1):
            found.setdefault(name, {})[source] = rank
    result = {}
    for name, ranks in found.items():
        source = min(ranks, key=lambda s: (ranks[s], SOURCES.index(s)))
        speakers = [reason(s, name) for s in sorted(ranks, key=lambda s: (ranks[s], SOURCES.index(s)))]
        result[name] = (ranks, source, next((s for s in speakers if s), None))
    return result


def random_case(seed: int) -> tuple[list[dict[str, Any]], list[Any], list[Any], list[str], list[dict[str, Any]]]:
    """A small world of whole numbers, so that scores are exact and ties are many."""
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
            "factors": vector(2),
            "vector": vector(3),
        }
        for name in names
    ]
    neighbours = [(a, b, float(rng.integers(1, 3)) / 2) for a in names for b in names if a != b and rng.random() < 0.3]
    segments = [(s, name, int(rng.integers(1, 3))) for s in ("new", "old") for name in names if rng.random() < 0.4]
    lists: list[dict[str, Any]] = [
        {
            "list_kind": "user",
            "list_key": f"u{n}",
            "als_vector": vector(2),
            "text_vector": vector(3),
            "recent_items": some([*names, "unknown"], 4),
            "segment": [None, "new", "old", "none"][rng.integers(4)],
            "blocked_items": some([*names, "unknown"], 2),
            "masked": some(list(range(len(names))), 5),
        }
        for n in range(5)
    ]
    lists += [
        {"list_kind": "item", "list_key": name, "recent_items": [name], "blocked_items": [name]} for name in names
    ]
    return items, neighbours, segments, some(names, 3), [*lists, {"list_kind": "everyone", "list_key": "everyone"}]


@pytest.mark.parametrize("seed", range(40))
def test_equals_the_reference(seed: int) -> None:
    items, neighbours, segments, editorial, lists = random_case(seed)
    found = rows(lists, catalogue(items, neighbours, segments, editorial), ALL)
    assert [(r["list_key"], r["item_id"]) for r in found] == [  # in order of list, then id; nothing twice
        (row["list_key"], name)
        for row in lists
        for name in sorted(reference(row, items, neighbours, segments, editorial, 3))
    ]
    for row in lists:
        got = {
            r["item_id"]: ({s: r[f"{s}_rank"] for s in SOURCES if r[f"{s}_rank"]}, r["source"], r["because_item_id"])
            for r in found
            if r["list_key"] == row["list_key"]
        }
        assert got == reference(row, items, neighbours, segments, editorial, 3), row


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
            "recent_items": [names[i] for i in rng.permutation(150)[: n % 7]],
            "masked": [n],
        }
        for n in range(60)
    ]
    whole = rows(lists, catalogue(items, near), ALL | {"als": 20, "text": 20})
    monkeypatch.setattr(nominate, "_BLOCK_BYTES", 1)
    assert rows(lists, catalogue(items, near), ALL | {"als": 20, "text": 20}) == whole


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
    lists = [{"als_vector": [1.0], "text_vector": [1.0, 0.0], "recent_items": ["old"], "masked": [2]}]
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
        [{"list_kind": "item", "list_key": "a", "recent_items": ["a"], "blocked_items": ["a"]}], items, OFF | {"als": 4}
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
    assert list(nominate.candidates(batch([]), catalogue([{"id": "a"}]), ALL)) == []
    # A model without factors for any known item, an encoder that has seen none of the texts.
    known = catalogue([{"id": "a"}])
    assert ranked(rows([{"als_vector": [1.0, 2.0], "text_vector": [1.0]}], known, ALL), "als") == []
