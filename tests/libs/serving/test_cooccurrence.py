"""Neighbours of items against pairs counted one by one."""

from __future__ import annotations

from collections import Counter
from itertools import product

import numpy as np
import pytest
from test_pairs import User, run, shop

from nightrec.serving.cooccurrence import Cooccurrence


def test_by_hand() -> None:
    baskets = [
        [0, 1, 2],
        [0, 1, 2],
        [0, 1],  # 0 and 1: three users; 0 and 2, 1 and 2: two
        [2],
        [2],  # 2 is had by four
        [0, 3],  # one user only: below min_cooccurrence
        [],  # a user without a basket
    ]
    users: list[User] = [[(item, 1, 0) for item in basket] for basket in baskets]
    way = Cooccurrence(np.array([4, 3, 4, 1]), least=2)
    found = run([[users]], [way], [True, True, True, True])[0]
    assert [(a, b) for a, b, _ in found] == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 1), (2, 0)]
    assert [s for _, _, s in found] == pytest.approx([3 / 12**0.5, 0.5, 3 / 12**0.5, 2 / 12**0.5, 2 / 12**0.5, 0.5])
    # An item that is not available speaks for others but is nobody's neighbour, and takes nobody's place.
    found = run([[users]], [way], [True, False, True, True])[0]
    assert [(a, b) for a, b, _ in found] == [(0, 2), (1, 0), (1, 2), (2, 0)]


def test_equals_counting_one_by_one() -> None:
    made = shop(1, 15, 60, 7)
    baskets = [[item for item, _, _ in user] for user in made]
    users = Counter(item for basket in baskets for item in basket)
    shared = Counter(pair for basket in baskets for pair in product(basket, basket) if pair[0] != pair[1])
    expected = []
    for item in range(15):
        scored = [
            (-n / (users[item] * users[other]) ** 0.5, other)
            for (own, other), n in shared.items()
            if own == item and n >= 2
        ]
        expected += [(item, other, pytest.approx(-s)) for s, other in sorted(scored)[:3]]
    counts = np.array([users[item] for item in range(15)])
    assert run([[made]], [Cooccurrence(counts, 2)], [True] * 15)[0] == expected  # ties by item number
