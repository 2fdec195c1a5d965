"""A draw among new items, by its definition and by what comes of many draws."""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nightrec.serving import new_items
from nightrec.serving.nominate import Ragged
from nightrec.serving.sources import Best
from nightrec.tables import WINDOWS

NIGHT = dt.date(2026, 3, 10)
# Users of the week and the month, and a text: the second and third item are new, as is the last, which has no text.
WEEK, MONTH = [9, 1, 0, 0], [9, 1, 0, 0]
TEXTS = np.array([[1, 0], [0, 1], [0.2, 0.98], [0, 0]], np.float32)
WINDOWED = np.array([[0, w, w, m, m] for w, m in zip(WEEK, MONTH, strict=True)])
NEAR = np.array([1.0, 0.0], np.float32)


def drawn(lists: int, count: int, *, hidden: list[int] | None = None, text: bool = True, first_seed: int = 0) -> Best:
    """What lists draw of the items 1, 2 and 3 beside a user whose text is that of item 0."""
    own = SimpleNamespace(
        seed=np.arange(lists) + first_seed, is_item=np.zeros(lists, bool), text=np.tile(NEAR, (lists, 1)),
        has_text=np.full(lists, text),
    )  # fmt: skip
    vectors = SimpleNamespace(rows=TEXTS, has=np.array([True, True, True, False]))
    items = SimpleNamespace(columns=np.arange(4), new=np.array([1, 2, 3]), vectors=vectors, windows=WINDOWED, width=4)
    lengths = np.arange(lists + 1) * len(hidden or [])
    best = Best.none(lists, count)
    masked = Ragged(lengths, np.tile(np.array(hidden or [], np.int64), lists))
    new_items.draw(own, items, masked, best)  # type: ignore[arg-type]
    return best


def weights(*, text: bool = True) -> dict[int, float]:
    near = TEXTS @ NEAR if text else np.zeros(4)
    return {n: (1 + WEEK[n]) ** 4 * (1 + MONTH[n]) ** 2 * math.exp(near[n] / new_items.TEMPERATURE) for n in (1, 2, 3)}


@pytest.mark.parametrize("text", [True, False])
def test_the_probability_is_that_of_the_draw_at_its_place(text: bool) -> None:
    best, weight = drawn(3000, 2, text=text), weights(text=text)
    whole = sum(weight.values())
    for (first, second), (one, two) in zip(best.columns, best.scores, strict=True):
        assert one == pytest.approx(weight[first] / whole, rel=1e-6)
        assert two == pytest.approx(weight[second] / (whole - weight[first]), rel=1e-6)
    # And that is how often it happens, within four standard errors.
    often = Counter(best.columns[:, 0].tolist())
    for item, value in weight.items():
        expected = value / whole
        assert abs(often[item] / 3000 - expected) < 4 * math.sqrt(expected * (1 - expected) / 3000) + 1e-9


def test_a_draw_is_that_of_its_list_alone_and_never_what_is_hidden() -> None:
    whole = drawn(50, 3)
    assert all(sorted(row) == [1, 2, 3] for row in whole.columns.tolist())
    one = drawn(1, 3, first_seed=17)
    assert one.columns[0].tolist() == whole.columns[17].tolist() and (one.scores[0] == whole.scores[17]).all()
    rest = drawn(50, 3, hidden=[2, -1])
    assert all(sorted(row[:2]) == [1, 3] and row[2] == -1 for row in rest.columns.tolist())
    # Without the one the others follow in the same order.
    assert rest.columns[:, :2].tolist() == [[n for n in row if n != 2] for row in whole.columns.tolist()]


def rows(counts: list[tuple[bool, int, list[int]]]) -> pa.Table:
    columns: dict[str, Any] = {
        "is_available": pa.array([there for there, _, _ in counts], pa.bool_()),
        "event_count": pa.array([events for _, events, _ in counts], pa.int64()),
        "window_user_counts": pa.array([windows for _, _, windows in counts], pa.list_(pa.int64())),
    }
    return pa.table(columns)


def test_the_pool_is_new_available_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    none, some = [0] * len(WINDOWS), [0, 0, 1, 1, 1, 1]
    items = rows([(True, 6, some), (True, 5, some), (False, 0, none), (True, 0, none), (True, 2, [0, 1, 1, 1, 1, 1])])
    assert np.flatnonzero(new_items.pool(items, 5, NIGHT)).tolist() == [1, 3, 4]
    monkeypatch.setattr(new_items, "POOL", 2)
    assert np.flatnonzero(new_items.pool(items, 5, NIGHT)).tolist() == [1, 4]
    # Two users of three days before one of tonight.
    monkeypatch.setattr(new_items, "POOL", 1)
    lately = rows([(True, 1, [1] * len(WINDOWS)), (True, 2, [0, *[2] * (len(WINDOWS) - 1)])])
    assert np.flatnonzero(new_items.pool(lately, 5, NIGHT)).tolist() == [1]
    monkeypatch.setattr(new_items, "POOL", 2)
    # Of a hundred alike all have their turn.
    alike = rows([(True, 0, none)] * 100)
    nights = [new_items.pool(alike, 5, NIGHT + dt.timedelta(days=n)) for n in range(300)]
    assert {int(chosen.sum()) for chosen in nights} == {2} and np.sum(nights, axis=0).min() > 0
    assert not len(new_items.pool(rows([]), 5, NIGHT))
