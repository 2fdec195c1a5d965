"""BM25 of items against its formula, written pair by pair."""

from __future__ import annotations

import math

import numpy as np
import pytest
from test_pairs import run, shop

from nightrec.serving.bm25 import Bm25


def test_equals_the_formula() -> None:
    users, items = shop(2, 12, 40, 8), 12
    length = [sum(days for user in users for i, days, _ in user if i == item) for item in range(items)]
    mean = sum(length) / items

    def weight(user: dict[int, int], item: int) -> float:
        norm = 1 - 0.75 + 0.75 * length[item] / mean
        return user[item] * 2.2 / (1.2 * norm + user[item]) * (math.log(items) - math.log(1 + len(user)))

    days = [{item: many for item, many, _ in user} for user in users]
    expected = {
        (a, b): sum(weight(user, a) * weight(user, b) for user in days if a in user and b in user)
        for a in range(items)
        for b in range(items)
        if a != b
    }
    found = {(a, b): s for a, b, s in run([[users]], [Bm25(np.array(length))], [True] * items, most=items)[0]}
    assert set(found) == {pair for pair, s in expected.items() if s > 0} and len(found) > 60
    for pair, similarity in found.items():
        assert similarity == pytest.approx(expected[pair], abs=0.02)  # weights are rounded to 1/1024


def test_what_it_prefers() -> None:
    users = [[(0, 1, 0), (1, 1, 0)]] * 2 + [[(2, 1, 0), (3, 1, 0)]] * 4  # more users share 2 and 3
    users += [[(4, 1, 0), (5, 1, 0), (6, 1, 0), (7, 1, 0)]] * 2  # as many as 0 and 1, but of more items
    users += [[(8, 3, 0), (9, 3, 0)]] * 2  # on more days
    length = np.array([2, 2, 4, 4, 2, 2, 2, 2, 6, 6, 0, 0, 0, 0])
    found = {(a, b): s for a, b, s in run([[users]], [Bm25(length)], [True] * 14)[0]}
    assert found[4, 5] < found[0, 1] < found[2, 3]
    even = {(a, b): s for a, b, s in run([[users]], [Bm25(np.ones(14, int))], [True] * 14)[0]}
    assert even[0, 1] < even[8, 9]  # of equal length: days count


def test_a_user_of_everything_says_nothing() -> None:
    assert run([[[[(0, 1, 0), (1, 1, 0)]]]], [Bm25(np.array([1, 1]))], [True, True])[0] == []
