"""The nearest items by what they hold, against TF-IDF and cosine written out; what is bounded, and how."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from nightrec.serving import held

MOST = 3


def nearest(holds: Any, available: Any, users: Any) -> dict[tuple[int, int], float]:
    rows = held.neighbours(sparse.csr_matrix(holds), np.asarray(available), np.asarray(users), MOST).to_pylist()
    found = {(row["item_idx"], row["neighbour_idx"]): row["similarity"] for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize(("seed", "block"), [(0, 4096), (1, 4096), (2, 7)])
def test_equals_the_definition(monkeypatch: pytest.MonkeyPatch, seed: int, block: int) -> None:
    monkeypatch.setattr(held, "_BLOCK", block)
    rng = np.random.default_rng(seed)
    holds = rng.integers(1, 4, (20, 12)) * (rng.random((20, 12)) < rng.random(12))
    available, users = rng.random(20) < 0.8, rng.integers(0, 5, 20)
    holders = (holds > 0).sum(0)
    told = [v for v in range(12) if 2 <= holders[v] <= 10]
    assert 2 < len(told) < 12
    weights = [[holds[i, v] * (math.log(21 / (1 + holders[v])) + 1) for v in told] for i in range(20)]
    lengths = [math.hypot(*row) for row in weights]
    known = [i for i in range(20) if available[i]]
    expected = {}
    for a in range(20):
        near = []
        for b in known:
            product = sum(x * y for x, y in zip(weights[a], weights[b], strict=True))
            if a != b and product:
                fewer = sum(users[c] < users[b] for c in known) / len(known)
                near.append((-product / lengths[a] / lengths[b] * (1 + fewer / 100), b))
        expected |= {(a, b): pytest.approx(-s, abs=1e-6) for s, b in sorted(near)[:MOST]}
    assert nearest(holds, available, users) == expected


def test_of_items_alike_the_known_come_first_and_new_ones_are_not_left_out() -> None:
    holds = np.zeros((12, 2))
    holds[:4, 0] = holds[10:, 1] = 1
    found = nearest(holds, [True] * 12, [0, 0, 5, 9, *[1] * 8])
    assert [b for a, b in found if a == 0] == [3, 2, 1]
    assert found[0, 1] == pytest.approx(1) and found[0, 3] == pytest.approx(1 + 11 / 12 / 100)
    assert (10, 11) in found and (11, 10) in found and len(found) == 14


def test_what_says_nothing_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    holders = np.array([0, 1, 2, 50, 51, 100, 7, 7, 30])
    assert held.telling(holders, 100).tolist() == [2, 3, 6, 7, 8]  # of one item, and of more than half
    monkeypatch.setattr(held, "_MET", (2**2 + 2 * 7**2 + 30**2) / 100)
    assert held.telling(holders, 100).tolist() == [2, 6, 7, 8]  # the rarest that cost no more
    monkeypatch.setattr(held, "_MET", (2**2 + 2 * 7**2 - 1) / 100)
    assert held.telling(holders, 100).tolist() == [2]  # all of one size, or none of them
    monkeypatch.undo()
    assert held.telling(np.array([2, 1]), 2).tolist() == [0]  # two items may share what both have
    assert held.telling(np.zeros(0, int), 5).tolist() == []


def test_nothing_is_held_or_available() -> None:
    for holds, available in (
        (np.zeros((3, 0)), [True] * 3), (np.zeros((0, 0)), []), (np.eye(3), [True] * 3),
        (np.ones((2, 1)), [False, False]),
    ):  # fmt: skip
        assert nearest(holds, np.array(available, bool), np.zeros(len(available), int)) == {}


def test_common_values_cost_no_more_than_their_bound() -> None:
    """Of 20,000 items' values those are left out that make an item meet more than 2,000 others."""
    holders = np.concatenate([[20_000, 9_000, 4_000], np.full(100, 400)])
    kept = Counter(holders[held.telling(holders, 20_000)].tolist())
    assert kept == {400: 100, 4_000: 1}
