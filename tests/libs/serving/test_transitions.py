"""What was taken up next, against users walked through one by one."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from test_pairs import run, shop

from nightrec.serving.transitions import PRIOR, REACH, Transitions


def test_equals_walking_through_every_user() -> None:
    users, items = shop(3, 14, 50, 12), 14
    counts = Counter(item for user in users for item, _, _ in user)
    total: Counter[tuple[int, int]] = Counter()
    for user in users:
        steps = sorted({moment for _, _, moment in user}, reverse=True)  # oldest first
        for a, _, from_ in user:
            for b, _, to in user:
                distance = steps.index(to) - steps.index(from_)
                if 0 < distance <= REACH:
                    total[a, b] += Fraction(1, distance)
    expected = {
        (a, b): float(weight) / ((counts[a] * counts[b]) ** 0.5 + PRIOR) for (a, b), weight in total.items()
    }
    assert max(len({m for _, _, m in user}) for user in users) > REACH + 2
    way = Transitions(np.array([counts[item] for item in range(items)]))
    found = {(a, b): s for a, b, s in run([[users]], [way], [True] * items, most=items)[0]}
    assert found == {pair: pytest.approx(similarity) for pair, similarity in expected.items()}


def test_by_hand() -> None:
    """0, then 1 and 2 in one basket, then 3; moments grow into the past, so the newest come first."""
    user = [(3, 1, -9), (1, 1, -5), (2, 1, -5), (0, 1, 0)]
    found = {(a, b): s for a, b, s in run([[[user]]], [Transitions(np.ones(4, int))], [True] * 4)[0]}
    one = 1 / (1 + PRIOR)
    assert found == {
        (0, 1): pytest.approx(one), (0, 2): pytest.approx(one), (0, 3): pytest.approx(one / 2),
        (1, 3): pytest.approx(one), (2, 3): pytest.approx(one),
    }  # fmt: skip


def test_the_popular_are_not_favoured_blindly() -> None:
    """After 0 two users in three take 1, which everybody takes, and one in three takes 2, which few others do."""
    users = [[(1, 1, 0), (0, 1, 1)]] * 20 + [[(2, 1, 0), (0, 1, 1)]] * 10 + [[(1, 1, 0)]] * 970
    found = {(a, b): s for a, b, s in run([[users]], [Transitions(np.array([30, 990, 10]))], [True] * 3)[0]}
    assert found[0, 2] > found[0, 1]


def test_users_do_not_run_into_one_another() -> None:
    users = [[(0, 1, 5)], [(1, 1, 5)], [], [(2, 1, 7)]]
    assert run([[users]], [Transitions(np.ones(3, int))], [True] * 3)[0] == []
