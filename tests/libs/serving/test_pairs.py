"""Pairs weighed in several ways at once, however the users are spread over workers and the sums over pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nightrec.serving import pairs
from nightrec.serving.bm25 import Bm25
from nightrec.serving.cooccurrence import Cooccurrence
from nightrec.serving.transitions import Transitions

SUMS = pa.schema(
    {"item_idx": pa.int32(), "neighbour_idx": pa.list_(pa.int32()), "weights": pa.list_(pa.float64())}
)
User = list[tuple[int, int, int]]  # newest first: item, days, moment (grows into the past)


def batch(users: list[User]) -> pa.RecordBatch:
    types = {"basket": pa.int32(), "own_days": pa.int32(), "own_moment": pa.int64()}
    return pa.RecordBatch.from_pydict({
        name: pa.array([[entry[n] for entry in user] for user in users], pa.list_(type_))
        for n, (name, type_) in enumerate(types.items())
    })  # fmt: skip


def run(workers: list[list[list[User]]], ways: list[Any], is_available: Any, most: int = 3) -> list[Any]:
    """Per way: item, neighbour, similarity. Workers hold batches of users; all sums meet in one cut, in order."""
    width, summed = len(is_available), []
    for batches in workers:
        summed += pairs.adding(width, *(way.weights for way in ways))(batch(users) for users in batches)
    cut = pairs.cutting(np.asarray(is_available), *(way.similarity for way in ways), most=most)
    ordered = pa.Table.from_batches(summed, SUMS).sort_by("item_idx")
    rows = [row for found in cut(iter(ordered.to_batches(max_chunksize=5))) for row in found.to_pylist()]
    found: list[Any] = [[] for _ in ways]
    for row in rows:
        way, item = divmod(row["item_idx"], width)
        found[way].append((item, row["neighbour_idx"], row["similarity"]))
    return found


def shop(seed: int, items: int, users: int, longest: int) -> list[User]:
    """Users with baskets of distinct items; moments tie."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(users):
        basket = rng.permutation(items)[: rng.integers(0, longest)]
        moments = np.sort(rng.integers(0, 2 * longest, len(basket)))
        made.append([(int(i), int(rng.integers(1, 5)), int(m)) for i, m in zip(basket, moments, strict=True)])
    return made


# All at once; passed on in small pieces; cut item by item, which are passed on in pieces of two and three.
@pytest.mark.parametrize(("most", "cut", "piece"), [(2**23, 2**21, 1024), (20, 30, 3), (20, 1, 2)])
def test_the_same_bits_however_they_are_spread(
    monkeypatch: pytest.MonkeyPatch, most: int, cut: int, piece: int
) -> None:
    users = shop(1, 15, 60, 9)
    counts = np.bincount([entry[0] for user in users for entry in user], minlength=15)
    days = np.bincount([e[0] for u in users for e in u], [e[1] for u in users for e in u], 15).astype(int)
    ways = [Cooccurrence(counts, 2), Bm25(days), Transitions(counts)]
    available = [n % 4 != 3 for n in range(15)]
    alone = [run([[users]], [way], available)[0] for way in ways]
    assert all(alone)
    for name, bound in (("_PAIRS", most), ("_CUT", cut), ("_PIECE", piece)):
        monkeypatch.setattr(pairs, name, bound)
    assert run([[users[:7], users[7:30]], [], [users[30:]]], ways, available) == alone
    for table in alone:
        assert not any(a == b or not available[b] for a, b, _ in table)
        assert any(not available[a] for a, _, _ in table)  # speaks for others all the same


def test_ties_go_to_the_smaller_number_and_what_is_not_above_0_is_none(spark: Any) -> None:
    class One:  # defined here, so that it travels to the workers whole
        """A way in which all pairs are alike, but those of item 2."""

        def weights(self, users: pa.RecordBatch, width: int) -> Any:
            return pairs.shared(users, width)

        def similarity(self, items: Any, neighbours: Any, sums: Any) -> Any:
            return np.where(items == 2, 0.0, 1.0)

    users = batch([[(3, 1, 0), (0, 1, 0), (1, 1, 0), (2, 1, 0)]])
    frame = spark.createDataFrame(pa.Table.from_batches([users]))
    found = pairs.neighbours(frame, {"one": One(), "two": One()}, np.ones(4, bool), 2, 3)
    for name in ("one", "two"):
        rows = sorted(tuple(row.values()) for row in found[name].to_pylist())
        assert rows == [(0, 1, 1.0), (0, 2, 1.0), (1, 0, 1.0), (1, 2, 1.0), (3, 0, 1.0), (3, 1, 1.0)]
    assert pairs.neighbours(frame, {}, np.ones(4, bool), 2, 3) == {}


def test_no_users_and_no_items() -> None:
    ways = [Cooccurrence(np.zeros(2, int), 2), Bm25(np.zeros(2, int)), Transitions(np.zeros(2, int))]
    assert run([[[]]], ways, [True, True]) == [[], [], []]
    assert run([[[[], []]]], ways, [True, True]) == [[], [], []]
    assert run([[[]]], ways, []) == run([], ways, []) == [[], [], []]
