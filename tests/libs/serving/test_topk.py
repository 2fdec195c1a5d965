"""Lists cut to K, with answers known by construction."""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any

from pyspark.sql import functions as F

from nightrec.serving.topk import Quota, ranked_topk, shortfalls, split
from nightrec.tables import CANDIDATES, ITEM_PROFILES, RANKED_TOPK, SHORTFALLS, USER_PROFILES

NIGHT = dt.date(2026, 3, 10)


def candidate(key: str, item: str, kind: str = "user", **values: Any) -> dict[str, Any]:
    return {"list_kind": kind, "list_key": key, "item_id": item, "source": "popularity", **values}


def ranks(source: str, rank: int, **values: Any) -> dict[str, Any]:
    return {"source": source, f"{source}_rank": rank, f"{source}_score": 1.0, **values}


def fingerprint(kind: str, key: str, *items: str) -> str:
    text = "".join(f"{len(part)}:{part}" for part in (kind, key, *items))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def cut(
    rows: Any, scored: list[dict[str, Any]], ladder: list[dict[str, Any]], k: int, pins: dict[str, int] | None = None,
    quota: Quota | None = None, depth: int | None = None,
) -> dict[tuple[str, str], list[Any]]:
    """Lists by kind and key; `scored` rows carry their score in als_score, so that one contract builds both frames."""
    items = rows(ITEM_PROFILES, [{"item_id": "a", "title": "Alpha"}, {"item_id": "é", "title": "Élan"}])
    users = rows(
        USER_PROFILES, [{"user_id": "u", "segment": "crime"}, {"user_id": "new", "segment": "war"}, {"user_id": "bare"}]
    )
    frame = rows(CANDIDATES, scored).withColumn("score", F.col("als_score").cast("double"))
    down = rows(CANDIDATES, ladder)
    wanted = {"pins": pins or {}, "quota": quota or Quota(), "depth": depth}
    result = RANKED_TOPK.checked(ranked_topk(frame, down, items, users, k=k, run_date=NIGHT, **wanted), "test")
    lists: dict[tuple[str, str], list[Any]] = {}
    for row in result.orderBy("list_kind", "list_key", "rank").collect():
        assert row.run_date == NIGHT
        lists.setdefault((row.list_kind, row.list_key), []).append(row)
    return lists


def test_scores_order_a_list_and_ids_break_ties(rows):
    scored = [
        candidate("u", "d", als_score=0.9, source="als", because_item_id=None),
        candidate("u", "c", als_score=0.5, source="cooccurrence", because_item_id="é"),
        # Equal to c's score but for bits that another machine may compute otherwise: a tie, so b comes before c.
        candidate("u", "b", als_score=0.5000001, source="text", because_item_id="gone"),
        # Fourth of four: cut at K = 3.
        candidate("u", "a", als_score=0.1, source="als"),
        # Another list with the same items in another order: another list_id.
        candidate("v", "b", als_score=0.2, source="segment"),
    ]
    lists = cut(rows, scored, [], k=3)
    mine = lists["user", "u"]
    assert [(row.rank, row.item_id, row.score) for row in mine] == [(1, "d", 0.9), (2, "b", 0.5), (3, "c", 0.5)]
    assert [row.source for row in mine] == ["als", "text", "cooccurrence"]
    # The title of the item where there is one, the id of an item that has no profile.
    assert [row.reason for row in mine] == ["your taste is near this", "similar to gone", "because of Élan"]
    assert {row.list_id for row in mine} == {fingerprint("user", "u", "d", "b", "c")}
    assert lists["user", "v"][0].list_id == fingerprint("user", "v", "b")
    assert lists["user", "v"][0].reason == "popular with people like you"  # v has no profile, so no segment


def test_the_ladder_orders_lists_without_a_score(rows):
    ladder = [
        # A new user of segment war: the segment's items first, though popularity ranks b higher than the segment does.
        candidate("new", "e", **ranks("editorial", 1)),
        candidate("new", "p", **ranks("popularity", 2)),
        candidate("new", "b", **ranks("segment", 2), popularity_rank=1),
        candidate("new", "c", **ranks("segment", 1)),
        # Without a segment the ladder starts at what is popular.
        candidate("bare", "p", **ranks("popularity", 1)),
        # Similar items: two sources on one step; equal places are broken by item id, not by source.
        candidate("a", "y", "item", **ranks("text", 1)),
        candidate("a", "z", "item", **ranks("cooccurrence", 1)),
        # Nominated by both: its better place counts, and names the source.
        candidate("a", "x", "item", **ranks("text", 2), cooccurrence_rank=9),
        candidate("war", "c", "segment", **ranks("segment", 1)),
        candidate("everyone", "p", "everyone", **ranks("popularity", 1)),
    ]
    lists = cut(rows, [], ladder, k=3)
    assert set(lists) == {
        ("user", "new"),
        ("user", "bare"),
        ("item", "a"),
        ("segment", "war"),
        ("everyone", "everyone"),
    }
    assert [(row.item_id, row.source, row.score, row.reason) for row in lists["user", "new"]] == [
        ("c", "segment", 1.0, "popular with war"),
        ("b", "segment", 0.5, "popular with war"),
        ("p", "popularity", 0.333333, "popular now"),
    ]
    assert [(row.item_id, row.source, row.reason) for row in lists["item", "a"]] == [
        ("y", "text", "similar description"),
        ("z", "cooccurrence", "often chosen together"),
        ("x", "text", "similar description"),
    ]
    assert lists["segment", "war"][0].reason == "popular with war"
    assert [row.source for row in lists["user", "bare"]] == ["popularity"]


def test_picks_with_a_slot_stand_there_wherever_they_may_be_shown(rows):
    """Two picks for the second place, c first by hand; x at the fourth; one at a place that no list has."""
    pins = {"c": 2, "b": 2, "x": 4, "far": 9}
    scored = [candidate("u", item, als_score=score) for item, score in (("p", 0.9), ("q", 0.8), ("r", 0.7), ("s", 0.6))]
    scored += [candidate("u", "c", als_score=0.1, editorial_rank=1, source="als", because_item_id="a")]
    scored += [candidate("u", "x", als_score=0.99, editorial_rank=3), candidate("u", "far", als_score=0.0)]
    # Nobody nominated b by hand for u2, who has seen c: the place goes to whom it belongs. Of v's two b comes first.
    scored += [candidate("u2", "b", als_score=0.2), candidate("u2", "p", als_score=0.1)]
    scored += [candidate("v", item, als_score=0.3, editorial_rank=n) for item, n in (("b", 2), ("x", 3))]
    ladder = [candidate("new", item, **ranks("popularity", n + 1)) for n, item in enumerate("pqrst")]
    ladder += [candidate("new", "b", editorial_rank=1), candidate("new", "x", editorial_rank=2)]
    ladder += [candidate("a", "c", "item", editorial_rank=1), candidate("a", "p", "item", **ranks("text", 1))]
    lists = cut(rows, scored, ladder, k=5, pins=pins)

    def told(key: str, kind: str = "user") -> list[tuple[Any, ...]]:
        assert [row.rank for row in lists[kind, key]] == [*range(1, len(lists[kind, key]) + 1)]
        return [(row.item_id, row.score, row.source) for row in lists[kind, key]]

    picked = ("editorial", "picked by the editors")
    assert told("u") == [
        ("p", 0.9, "popularity"), ("c", 0.9, "editorial"), ("q", 0.8, "popularity"), ("x", 0.8, "editorial"),
        ("r", 0.7, "popularity"),
    ]  # fmt: skip
    assert (lists["user", "u"][1].source, lists["user", "u"][1].reason) == picked
    assert told("u2") == [("b", 0.2, "popularity"), ("p", 0.1, "popularity")]
    # Nothing but picks: they are the list, in the order of their places.
    assert told("v") == [("b", 1.0, "editorial"), ("x", 0.5, "editorial")]
    assert [row[::2] for row in told("new")] == [
        ("p", "popularity"), ("b", "editorial"), ("q", "popularity"), ("x", "editorial"), ("r", "popularity"),
    ]  # fmt: skip
    assert [score for _, score, _ in told("new")] == [1.0, 0.5, 0.333333, 0.25, 0.2]
    assert told("a", "item") == [("p", 1.0, "text"), ("c", 0.5, "editorial")]  # similar items are no place for them
    first = cut(rows, scored, [], k=5, pins={"c": 1, "x": 2})["user", "u"]
    assert [(row.item_id, row.score) for row in first][:3] == [("c", 0.9), ("x", 0.9), ("p", 0.9)]


def test_new_items_have_the_last_places(rows):
    """Two of five places for n1 and n2, drawn first and second of three; m was drawn too but has a better place."""
    order = [("p", 0.9), ("m", 0.8), ("q", 0.7), ("r", 0.6), ("s", 0.5), ("n2", 0.2), ("n1", 0.1), ("n3", 0.05)]
    drawn = {"n1": (2, 0.25), "n2": (3, 0.5), "n3": (4, 0.5), "m": (1, 0.125)}

    def user(key: str, kind: str = "user", leave: str = "") -> list[dict[str, Any]]:
        turns = {item: {"new_items_rank": n, "new_items_score": chance} for item, (n, chance) in drawn.items()}
        return [candidate(key, i, kind, als_score=s, **turns.get(i, {})) for i, s in order if i not in leave.split()]

    # v drew only n2; the one pick stands on the last place of w; x has nothing else.
    scored = [*user("u"), *user("v", leave="n1 n3 m"), *user("x", leave="p m q r s"), *user("a", "item")]
    scored += [row | {"editorial_rank": 1 if row["item_id"] == "s" else None} for row in user("w")]
    ladder = [candidate("new", item, **ranks("popularity", n + 1)) for n, item in enumerate("pqrst")]
    ladder += [candidate("new", "n1", source="new_items", new_items_rank=1, new_items_score=0.75)]
    lists = cut(rows, scored, ladder, k=5, pins={"s": 5}, quota=Quota(2))
    told = {key: [(row.item_id, row.score, row.probability) for row in found] for (_, key), found in lists.items()}
    assert told["u"] == [("p", 0.9, None), ("m", 0.8, None), ("q", 0.7, None), ("n1", 0.7, 0.25), ("n2", 0.7, 0.5)]
    assert [(row.source, row.reason) for row in lists["user", "u"][2:]] == [
        ("popularity", "popular now"), ("new_items", "new"), ("new_items", "new"),
    ]  # fmt: skip
    assert told["v"] == [("p", 0.9, None), ("q", 0.7, None), ("r", 0.6, None), ("s", 0.5, None), ("n2", 0.5, 0.5)]
    # The place of n2 is the pick's.
    assert told["w"] == [("p", 0.9, None), ("m", 0.8, None), ("q", 0.7, None), ("n1", 0.7, 0.25), ("s", 0.7, None)]
    assert lists["user", "w"][4].source == "editorial"
    assert told["x"] == [("n2", 0.2, None), ("n1", 0.1, None), ("n3", 0.05, None)]
    assert told["new"][3:] == [("s", 0.25, None), ("n1", 0.2, 0.75)] and lists["user", "new"][4].rank == 5
    assert [item for item, _, _ in told["a"]] == ["p", "m", "q", "r", "s"]  # similar items are no place for them


def test_a_share_of_the_lists_keeps_places_for_new_items(rows):
    scored = [candidate(f"u{n}", item, als_score=s) for n in range(60) for item, s in (("a", 0.9), ("b", 0.8))]
    scored += [candidate(f"u{n}", "n", als_score=0.1, new_items_rank=1, new_items_score=0.5) for n in range(60)]
    lists = cut(rows, scored, [], k=2, quota=Quota(1, 0.25))
    kept = [found[1].probability for found in lists.values() if found[1].item_id == "n"]
    # Binomial: 60 lists, one in four; the limits are wider than 99.9 % of all draws.
    assert 4 <= len(kept) <= 27 and set(kept) == {0.125}
    assert not any(found[1].item_id == "n" for found in cut(rows, scored, [], k=2, quota=Quota(1, 0.0)).values())


def test_a_list_does_not_depend_on_row_order_or_partitions(rows, spark):
    scored = [candidate("u", f"i{n:02d}", als_score=(n % 3) / 4) for n in range(30)]
    one = cut(rows, scored, [], k=10)
    frame = rows(CANDIDATES, scored[::-1]).withColumn("score", F.col("als_score").cast("double")).repartition(7)
    users = rows(USER_PROFILES, [])
    other = (
        ranked_topk(
            frame, rows(CANDIDATES, []), rows(ITEM_PROFILES, []), users, k=10, run_date=NIGHT, pins={}, quota=Quota()
        )
        .orderBy("rank")
        .collect()
    )
    assert (
        [row.item_id for row in other]
        == [row.item_id for row in one["user", "u"]]
        == [f"i{n:02d}" for n in range(2, 30, 3)]
    )


def test_candidates_are_split_by_history(rows):
    users = rows(
        USER_PROFILES,
        [
            {"user_id": "old", "event_count": 1},  # one event is a history
            {"user_id": "new", "event_count": 0},
            {"user_id": "a", "event_count": 5},  # also the id of an item: the item's list has no score
        ],
    )
    frame = rows(
        CANDIDATES,
        [
            candidate("old", "x"),
            candidate("new", "x"),
            candidate("a", "x"),
            candidate("a", "y", "item"),
            candidate("stranger", "x"),
            candidate("everyone", "x", "everyone"),
        ],
    )
    known, others = split(frame, users)
    assert sorted(row.list_key for row in known.collect()) == ["a", "old"]
    assert sorted((row.list_kind, row.list_key) for row in others.collect()) == [
        ("everyone", "everyone"),
        ("item", "a"),
        ("user", "new"),
        ("user", "stranger"),
    ]


def test_every_list_that_is_short_is_recorded(rows):
    items = rows(
        ITEM_PROFILES,
        [
            {"item_id": "a", "in_catalogue": True, "is_available": True},
            {"item_id": "b", "in_catalogue": True, "is_available": False},
            {"item_id": "c", "in_catalogue": False, "is_available": False},  # not in the catalogue: no list of its own
        ],
    )
    users = rows(
        USER_PROFILES,
        [
            {"user_id": "full", "is_eligible": True, "segment": "s"},
            {"user_id": "one", "is_eligible": True, "segment": "s"},
            {"user_id": "blocked all", "is_eligible": True, "segment": None},  # no candidate at all
            {
                "user_id": "gone",
                "is_eligible": False,
                "segment": "nobody's",
            },  # neither the user nor the segment gets a list
        ],
    )
    candidates = rows(
        CANDIDATES,
        [
            candidate("full", "a"),
            candidate("full", "b"),  # exactly K
            candidate("one", "a"),
            candidate("a", "b", "item"),
            candidate("a", "c", "item"),
            candidate("a", "d", "item"),  # more than K
            candidate("everyone", "a", "everyone"),
            candidate("everyone", "b", "everyone"),
            candidate("s", "a", "segment"),
            candidate("s", "b", "segment"),
        ],
    )
    frame = SHORTFALLS.checked(shortfalls(candidates, items, users, k=2, run_date=NIGHT), "test")
    found = {(row.list_kind, row.list_key): row for row in frame.collect()}
    assert {key: (row.wanted, row.found) for key, row in found.items()} == {
        ("user", "one"): (2, 1),
        ("user", "blocked all"): (2, 0),
        ("item", "b"): (2, 0),
    }
    assert (
        found["user", "one"].cause == "only 1 of 1 available items: the others are seen, blocked or named by no source"
    )
    assert found["item", "b"].cause == "only 0 of 1 available items: no source names another"


def test_no_candidates_at_all(rows):
    assert cut(rows, [], [], k=3) == {}
    empty = rows(CANDIDATES, []), rows(ITEM_PROFILES, []), rows(USER_PROFILES, [])
    # The list for everyone should exist even in a night without users.
    assert [(row.list_kind, row.found) for row in shortfalls(*empty, k=3, run_date=NIGHT).collect()] == [
        ("everyone", 0)
    ]


def test_a_deeper_cut_begins_with_the_shorter_one(rows):
    # Ties of scores and of the ladder, a pick with a place, new items of which one has one, a list shorter than both.
    scored = [candidate("u", item, als_score=round(n % 4 / 10, 1), source="als") for n, item in enumerate("abcdefgh")]
    scored += [candidate("u", "pick", als_score=0.0, **{"source": "als", "editorial_rank": 1})]
    scored += [candidate("u", f"new{n}", new_items_rank=n, new_items_score=0.5, als_score=0.01) for n in (1, 2)]
    scored += [candidate("v", "a", als_score=0.3, source="als")]
    ladder = [candidate("new", item, **ranks("popularity", 1 + n // 2)) for n, item in enumerate("hgfedcba")]
    for wanted in ({"pins": {"pick": 2}, "quota": Quota(1)}, {}):
        short, deep = (cut(rows, scored, ladder, k=4, depth=depth, **wanted) for depth in (None, 50))
        compare(short, deep)
    assert {row.item_id for row in deep["user", "u"]} == {*"abcdefgh", "pick", "new1", "new2"}


def compare(short: dict[tuple[str, str], list[Any]], deep: dict[tuple[str, str], list[Any]]) -> None:
    assert {key: len(rows_) for key, rows_ in deep.items()} == {("user", "u"): 11, ("user", "v"): 1, ("user", "new"): 8}
    for key, shorter in short.items():
        both = [[(row.rank, row.item_id, row.score, row.source) for row in some] for some in (shorter, deep[key])]
        assert len(both[0]) == min(4, len(both[1])) and both[1][:4] == both[0]
