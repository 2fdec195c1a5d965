"""Whose lists differ: exactly those, and how."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from nightrec.errors import UsageError
from nightrec.past.diff import Change, diff
from nightrec.store import Store
from nightrec.tables import RANKED_TOPK

MONDAY, TUESDAY = dt.date(2026, 3, 9), dt.date(2026, 3, 10)
LISTS = {("user", f"u{n}"): "abc" for n in range(50)} | {("segment", "u7"): "abc", ("everyone", "everyone"): "xyz"}


def put(store: Store, night: dt.date, lists: dict[tuple[str, str], str], score: float = 0.5) -> None:
    rows: list[dict[str, Any]] = [
        {
            "run_date": night, "list_kind": kind, "list_key": key, "list_id": f"{kind}:{key}:{items}", "rank": rank,
            "item_id": item, "score": score / rank, "source": "als", "reason": "because",
        }
        for (kind, key), items in lists.items()
        for rank, item in enumerate(items, 1)
    ]  # fmt: skip
    store.put(RANKED_TOPK, rows, {"run_date": night})


def test_two_items_of_one_user_are_swapped_in_a_copy(store: Store) -> None:
    put(store, MONDAY, LISTS)
    put(store, TUESDAY, LISTS | {("user", "u7"): "bac"}, score=0.4)
    found = diff(store.warehouse, MONDAY, TUESDAY)
    assert found.changes == [Change("user", "u7", {}, {}, {"b": (2, 1), "a": (1, 2)})]
    assert found.counts == {"everyone": {"same": 1}, "segment": {"same": 1}, "user": {"same": 49, "differ": 1}}
    assert found.changes[0].told() == "user u7: b 2 to 1, a 1 to 2"
    assert diff(store.warehouse, MONDAY, MONDAY).changes == []


def test_what_came_went_and_moved(store: Store) -> None:
    put(store, MONDAY, {("user", "gone"): "ab", ("user", "u"): "abcd", ("item", "u"): "pq"})
    put(store, TUESDAY, {("user", "new"): "a", ("user", "u"): "xabd", ("item", "u"): "pr"})
    found = diff(store.warehouse, MONDAY, TUESDAY)
    assert found.counts == {"item": {"differ": 1}, "user": {"differ": 1, "new": 1, "gone": 1}}
    assert [change.told() for change in found.changes] == [
        "item u: +r at 2, -q from 2",
        "user gone: -a from 1, -b from 2",
        "user new: +a at 1",
        "user u: +x at 1, -c from 3, a 1 to 2, b 2 to 3",
    ]


def test_a_night_without_lists(store: Store) -> None:
    with pytest.raises(UsageError, match="no lists of 2026-03-09; there are some of no night"):
        diff(store.warehouse, MONDAY, TUESDAY)
    put(store, MONDAY, LISTS)
    with pytest.raises(UsageError, match="no lists of 2026-03-10; there are some of 2026-03-09"):
        diff(store.warehouse, MONDAY, TUESDAY)
