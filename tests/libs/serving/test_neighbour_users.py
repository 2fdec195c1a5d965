"""Users alike, against cosines of all pairs of users, and what they nominate."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nightrec.serving import neighbour_users
from nightrec.serving.neighbour_users import References


def sampled(baskets: dict[str, list[int]]) -> pa.Table:
    return pa.table({
        "user_id": pa.array(list(baskets), pa.string()),
        "basket": pa.array(list(baskets.values()), pa.list_(pa.int32())),
    })  # fmt: skip


def alike(references: References, users: list[list[int]], itself: list[int]) -> list[list[tuple[int, float]]]:
    offsets = np.concatenate([[0], np.cumsum([len(user) for user in users])])
    own = np.array([item for user in users for item in user], np.int64)
    starts, found, likeness = references.alike(offsets, own, np.array(itself))
    pairs = list(zip(found.tolist(), likeness.tolist(), strict=True))
    return [pairs[start:end] for start, end in pairwise(starts)]


@pytest.mark.parametrize("seed", range(4))
def test_the_most_alike_by_cosine(seed: int) -> None:
    rng = np.random.default_rng(seed)
    people = {f"u{n}": rng.permutation(12)[: rng.integers(1, 8)].tolist() for n in range(30)}
    column = np.where(np.arange(12) % 3 == 2, -1, np.arange(12) - np.arange(12) // 3)  # every third is not available
    references = References.of(sampled(people), column, 8, 5)
    users = [*list(people.values())[:6], [], [0, 1], list(range(12))]
    itself = [*range(6), -1, -1, -1]
    baskets = [set(basket) for basket in people.values()]
    for own, me, got in zip(users, itself, alike(references, users, itself), strict=True):
        cosine = [len(set(own) & b) / np.sqrt(max(len(own), 1) * len(b)) for b in baskets]
        order = sorted((-np.float32(c), v) for v, c in enumerate(cosine) if c > 0 and v != me)[:5]
        assert got == [(v, pytest.approx(-c, abs=1e-7)) for c, v in order]
    taken = references.taken.toarray()
    assert taken.shape == (30, 8) and all(
        {int(c) for c in np.flatnonzero(row)} == {int(column[i]) for i in basket if column[i] >= 0}
        for row, basket in zip(taken, baskets, strict=True)
    )


def test_nobody_to_ask() -> None:
    none = References.of(sampled({}), np.arange(3), 3, 100)
    assert alike(none, [[0, 1], []], [-1, -1]) == [[], []]
    one = References.of(sampled({"me": [0, 1]}), np.arange(3), 3, 100)
    assert alike(one, [[0, 1]], [0]) == [[]]  # no neighbour of its own
    assert alike(one, [[0, 1]], [-1]) == [[(0, pytest.approx(1))]]


def test_the_sample_is_the_same_whatever_the_partitions(spark: Any) -> None:
    people = {f"u{n}": [n % 5] if n % 4 else [] for n in range(80)}
    frame = spark.createDataFrame(sampled(people))
    one = neighbour_users.sample(frame.repartition(3), 20)
    assert one.equals(neighbour_users.sample(frame.repartition(7, "user_id"), 20)) and one.num_rows == 20
    assert all(one["basket"].to_pylist())
    everybody = neighbour_users.sample(frame, 1000)
    assert everybody.num_rows == 60 and everybody.slice(0, 20).equals(one)
    none = neighbour_users.sample(frame, 0)
    assert References.of(none, np.arange(5), 5, 100).nearest == 0
