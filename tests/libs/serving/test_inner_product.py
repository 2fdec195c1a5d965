"""The best items by product against brute force: every pair in double, rounded once, all columns sorted."""

from __future__ import annotations

import multiprocessing
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nightrec.serving import inner_product
from nightrec.serving.inner_product import Index, Screen, search
from nightrec.serving.vectors import Vectors

# bfloat16 is multiplied everywhere, if slowly where the processor cannot: both screens are tested on every machine.
SCREENS = pytest.mark.parametrize("how", [Screen(is_short=True), Screen(is_short=False)], ids=["bfloat16", "float32"])


def brute(queries: Any, vectors: Any, hidden: list[Any], count: int, *, is_cosine: bool = False) -> tuple[Any, Any]:
    """What `search` must find, by the definition."""
    wide, items = queries.astype(np.float64), vectors.astype(np.float64)
    scores = np.array([[float(np.sum(x * y)) for y in items] for x in wide]).reshape(len(wide), len(items))
    if is_cosine:
        lengths = np.outer(np.sqrt((wide**2).sum(1)), np.sqrt((items**2).sum(1)))
        scores = np.divide(scores, lengths, out=np.zeros_like(scores), where=lengths > 0)
    scores = scores.astype(np.float32)
    columns = np.full((len(queries), count), -1)
    best = np.full((len(queries), count), -np.inf, np.float32)
    for r, row in enumerate(scores):
        left = [c for c in np.lexsort((np.arange(len(row)), -row)) if c not in set(hidden[r])][:count]
        columns[r, : len(left)], best[r, : len(left)] = left, row[left]
    return columns, best


def flat(hidden: list[Any]) -> tuple[Any, Any]:
    """Offsets and columns."""
    offsets = np.cumsum([0, *map(len, hidden)])
    return offsets, np.array([c for row in hidden for c in row], np.int64)


def case(seed: int) -> tuple[Any, Any, list[Any], int]:
    """Whole numbers, so that scores are exact in any order and ties are many; zero vectors, all hidden, K above A."""
    rng = np.random.default_rng(seed)
    rows, items, width = int(rng.integers(0, 12)), int(rng.integers(0, 700)), int(rng.integers(1, 40))
    most = [1, 2, 50][seed % 3]
    queries = rng.integers(-most, most + 1, (rows, width)).astype(np.float32)
    vectors = rng.integers(-most, most + 1, (items, width)).astype(np.float32)
    vectors[rng.random(items) < 0.1] = 0
    queries[rng.random(rows) < 0.1] = 0
    if seed % 4 == 0:  # norms of all sizes
        vectors *= 2.0 ** rng.integers(-12, 3, (items, 1)).astype(np.float32)
    shares = rng.choice([0.0, 0.1, 0.9, 1.0], rows)
    hidden = [[-1, *rng.permutation(np.flatnonzero(rng.random(items) < share))] for share in shares]
    return queries, vectors, hidden, int(rng.choice([1, 5, 60, 800]))


@SCREENS
@pytest.mark.parametrize("seed", range(24))
def test_equals_brute_force(seed: int, how: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inner_product, "ROWS", 5)
    monkeypatch.setattr(inner_product, "COLUMNS", 192)
    queries, vectors, hidden, count = case(seed)
    for is_cosine in (False, True):
        columns, scores = search(Index.of(vectors, is_cosine=is_cosine, how=how), queries, *flat(hidden), count)
        wanted = brute(queries, vectors, hidden, count, is_cosine=is_cosine)
        assert (columns == wanted[0]).all() and (scores == wanted[1]).all()


@SCREENS
def test_scores_that_the_screen_cannot_tell_apart(how: Screen) -> None:
    """Products that differ from the 20th bit on; each comes twice, and of two the smaller column is first."""
    rng = np.random.default_rng(3)
    width = 64
    base = rng.normal(size=width)
    near = (base + 1e-6 * rng.normal(size=(1500, width))).astype(np.float32)
    vectors = np.concatenate([near, near[::-1]])
    queries = np.concatenate([base[None], -base[None], rng.normal(size=(6, width))]).astype(np.float32)
    hidden: list[Any] = [rng.permutation(3000)[:40] for _ in queries]
    columns, scores = search(Index.of(vectors, how=how), queries, *flat(hidden), 30)
    wanted = brute(queries, vectors, hidden, 30)
    assert (columns == wanted[0]).all() and (scores == wanted[1]).all()


@SCREENS
def test_neither_blocks_nor_company_change_a_bit(how: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    queries, vectors = (rng.normal(size=(n, 33)).astype(np.float32) for n in (40, 900))
    hidden: list[Any] = [rng.permutation(900)[: 7 * r] for r in range(40)]
    whole = search(Index.of(vectors, how=how), queries, *flat(hidden), 20)
    for size in (1, 7):
        monkeypatch.setattr(inner_product, "ROWS", size)
        monkeypatch.setattr(inner_product, "COLUMNS", 64 * size)
        again = search(Index.of(vectors, how=how), queries, *flat(hidden), 20)
        assert all((a == b).all() for a, b in zip(whole, again, strict=True))
    other = search(Index.of(vectors, how=Screen(is_short=not how.is_short)), queries, *flat(hidden), 20)
    assert all((a == b).all() for a, b in zip(whole, other, strict=True))


def test_long_items_first_and_the_rest_not_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the norms of later blocks cannot reach the K-th best, no product is taken of them."""
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(1280, 8)).astype(np.float32)
    vectors[64:] *= np.float32(1e-3)
    vectors = vectors[rng.permutation(1280)]
    monkeypatch.setattr(inner_product, "COLUMNS", 128)
    multiplied = []
    multiply = Screen.multiply
    monkeypatch.setattr(Screen, "multiply", lambda *args: multiplied.append(1) or multiply(*args))
    queries = rng.normal(size=(4, 8)).astype(np.float32)
    columns, scores = search(Index.of(vectors), queries, *flat([[]] * 4), 3)
    wanted = brute(queries, vectors, [[]] * 4, 3)
    assert (columns == wanted[0]).all() and (scores == wanted[1]).all()
    assert len(multiplied) == 1


def test_a_number_that_is_not_finite_is_named() -> None:
    with pytest.raises(ValueError, match=r"^1 of 2 vectors hold a number that is not finite$"):
        Index.of(np.array([[1.0, np.nan], [1.0, 0.0]], np.float32))


@pytest.mark.parametrize("is_cosine", [False, True])
def test_block_by_block_from_a_file_equals_at_once(
    is_cosine: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks are the smallest there are; 2 of 3 items are columns, 1 of 10 has no vector, ties abound."""
    monkeypatch.setattr("nightrec.serving.vectors.COLUMNS", 16)
    monkeypatch.setattr("pyspark.SparkFiles.get", lambda name: str(tmp_path / name))
    rng = np.random.default_rng(4)
    rows = rng.integers(-2, 3, (600, 6)).astype(np.float32)
    vectors = Vectors(rng.random(600) < 0.9, rows)
    columns, queries = np.flatnonzero(rng.random(600) < 0.66), rng.integers(-2, 3, (30, 6)).astype(np.float32)
    offsets, masked = flat([[-1, *rng.permutation(len(columns))[: 13 * r]] for r in range(30)])
    whole = vectors.best(columns, queries, offsets, masked, 20, is_cosine=is_cosine)
    routed = vectors.in_file(tmp_path / "rows.npy", 1)
    assert routed.held is None and routed.step == 16
    parts = routed.best(columns, queries, offsets, masked, 20, is_cosine=is_cosine)
    assert all((a == b).all() for a, b in zip(whole, parts, strict=True))
    assert (whole[0] >= 0).sum() > 400 and vectors.has[columns[whole[0][whole[0] >= 0]]].all()


def _peak(most: int) -> tuple[int, int]:
    """Peak memory of a process that searches for users with 50 seen items, one of them with `most`; what is left."""
    rng = np.random.default_rng(2)
    vectors, queries = (rng.normal(size=(n, 64)).astype(np.float32) for n in (60_000, 400))
    seen = np.arange(50_000 - most, 50_000), rng.integers(0, 60_000, 399 * 50)
    offsets = np.concatenate([[0], most + 50 * np.arange(400)])
    columns, _ = search(Index.of(vectors), queries, offsets, np.concatenate(seen), 50)
    assert not np.isin(columns[0], seen[0]).any() and (columns >= 0).all()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, int(columns[0].min())


def test_a_user_with_50_000_seen_items_costs_no_memory() -> None:
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        few, many = (pool.apply(_peak, (most,)) for most in (50, 50_000))
    assert many[1] >= 50_000 and many[0] <= 1.05 * few[0]
