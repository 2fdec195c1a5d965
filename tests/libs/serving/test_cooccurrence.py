"""Neighbours of items against pairs counted one by one, however the users are spread over workers."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nightrec.serving import cooccurrence

COUNTS = pa.schema(
    {"item_idx": pa.int32(), "neighbour_idx": pa.list_(pa.int32()), "users": pa.list_(pa.int32())}
)


def run(workers: list[list[list[list[int]]]], users: Any, is_available: Any) -> list[tuple[int, int, float]]:
    """Workers hold Arrow batches of baskets; the counts of all of them meet in one cut, in the order of the items."""
    counted: list[pa.RecordBatch] = []
    for batches in workers:
        frames = [
            pa.RecordBatch.from_pydict({"basket": pa.array(baskets, pa.list_(pa.int32()))}) for baskets in batches
        ]
        counted += cooccurrence.counting(len(users))(iter(frames))
    cut = cooccurrence._cutting(np.asarray(users), np.asarray(is_available), least=2, most=3)
    ordered = pa.Table.from_batches(counted, COUNTS).sort_by("item_idx")
    found = [row for batch in cut(iter(ordered.to_batches(max_chunksize=5))) for row in batch.to_pylist()]
    return [(r["item_idx"], r["neighbour_idx"], r["similarity"]) for r in found]


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
    found = run([[baskets]], [4, 3, 4, 1], [True, True, True, True])
    assert [(a, b) for a, b, _ in found] == [(0, 1), (0, 2), (1, 0), (1, 2), (2, 1), (2, 0)]
    assert [s for _, _, s in found] == pytest.approx([3 / 12**0.5, 0.5, 3 / 12**0.5, 2 / 12**0.5, 2 / 12**0.5, 0.5])
    # An item that is not available speaks for others but is nobody's neighbour, and takes nobody's place.
    assert [(a, b) for a, b, _ in run([[baskets]], [4, 3, 4, 1], [True, False, True, True])] == [
        (0, 2),
        (1, 0),
        (1, 2),
        (2, 0),
    ]


# All at once; passed on in small pieces; cut item by item, which are passed on in pieces of two and three.
@pytest.mark.parametrize(("pairs", "cut", "piece"), [(2**23, 2**21, 1024), (20, 30, 3), (20, 1, 2)])
def test_equals_counting_one_by_one(monkeypatch: pytest.MonkeyPatch, pairs: int, cut: int, piece: int) -> None:
    for name, bound in (("_PAIRS", pairs), ("_CUT", cut), ("_PIECE", piece)):
        monkeypatch.setattr(cooccurrence, name, bound)
    rng = np.random.default_rng(1)
    baskets = [[int(i) for i in rng.permutation(15)[: rng.integers(0, 7)]] for _ in range(60)]
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
    counts = [users[item] for item in range(15)]
    one = run([[baskets]], counts, [True] * 15)
    assert one == expected  # ties by item number
    assert run([[baskets[:7], baskets[7:30]], [], [baskets[30:]]], counts, [True] * 15) == one


def test_no_users_and_no_items() -> None:
    assert run([[]], [0, 0], [True, True]) == []
    assert run([], [], []) == []
