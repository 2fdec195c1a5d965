"""The compiled half-step against the textbook's dense algebra."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest

from nightrec.als import kernel
from nightrec.als.blocks import Entries, Side
from nightrec.als.objective import EXACT_STEPS, Objective, Rows

HU = Objective(alpha=4.0, regularisation=0.3)
RENDLE = Objective(alpha=4.0, regularisation=0.02, unobserved=0.1, frequency_power=0.8, frequency_offset=0.1)
IMPLICIT = Objective(alpha=4.0, regularisation=0.3, frequency_power=0.0)
RATINGS = Objective(alpha=4.0, regularisation=0.3, is_explicit=True)
EVERY = [HU, RENDLE, IMPLICIT, RATINGS]


Case = tuple[npt.NDArray[np.float64], Rows, npt.NDArray[np.float32]]


def case(users: int = 13, items: int = 9, rank: int = 6) -> Case:
    """Weights as a dense matrix (0: not seen), the same as rows, and item factors. User 5 has no entry."""
    rng = np.random.default_rng(5)
    dense = rng.integers(1, 5, (users, items)) * (rng.random((users, items)) < 0.4)
    dense[5] = 0
    rows, columns = np.nonzero(dense)
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=users))])
    found = Rows(starts, columns.astype(np.int32), dense[rows, columns].astype(np.float32))
    return dense.astype(np.float64), found, rng.standard_normal((items, rank)).astype(np.float32)


def exact(weights: npt.NDArray[np.float64], items: npt.NDArray[np.float64], o: Objective) -> npt.NDArray[np.float64]:
    """A user's factors by the normal equations, written out over all items."""
    seen = weights > 0
    # Every pair's weight in the sum of squares, and what it should score.
    squares = 1.0 * seen if o.is_explicit else o.unobserved + o.alpha * weights
    wanted = weights if o.is_explicit else 1.0 * seen
    penalty = o.regularisation * (seen.sum() + o.frequency_offset * len(items)) ** o.frequency_power
    left = items.T @ (items * squares[:, None]) + penalty * np.eye(items.shape[1])
    solved: npt.NDArray[np.float64] = np.linalg.solve(left, items.T @ (squares * wanted))
    return solved


@pytest.mark.parametrize("objective", EVERY)
def test_many_steps_are_the_normal_equations_and_a_few_from_there_stay(objective: Objective) -> None:
    dense, rows, items = case()
    wide = items.astype(np.float64)
    expected = np.array([exact(row, wide, objective) if row.any() else np.zeros(6) for row in dense])
    found = np.ones((13, 6), np.float32)
    objective.solve(rows, found, items, wide.T @ wide, steps=30)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    objective.solve(rows, found, items, wide.T @ wide, steps=3)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("objective", EVERY)
def test_in_double_it_is_exact(objective: Objective) -> None:
    dense, rows, items = case(users=200, items=300, rank=64)
    wide = items.astype(np.float64)
    found = np.zeros((200, 64))
    objective.solve(rows, found, wide, wide.T @ wide, EXACT_STEPS)
    expected = np.array([exact(row, wide, objective) if row.any() else np.zeros(64) for row in dense])
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("objective", EVERY)
def test_the_loss_of_the_entries_and_of_everywhere_is_the_objective_written_out(objective: Objective) -> None:
    dense, rows, items = case()
    users = np.random.default_rng(6).standard_normal((13, 6)).astype(np.float32)
    scores, seen = users.astype(np.float64) @ items.T.astype(np.float64), dense > 0
    if objective.is_explicit:
        expected = ((scores - dense)[seen] ** 2).sum()
    else:
        expected = ((objective.unobserved + objective.alpha * dense) * (scores - seen) ** 2).sum()
    terms, kind = objective.terms(items.dtype), objective.is_explicit
    heads, stops, found = rows.starts[:-1].copy(), rows.starts[1:], 0.0
    for low, high in ((0, 4), (4, 9)):
        found += kernel.entries_loss(heads, stops, rows.columns, rows.weights, users, low, items[low:high], terms, kind)
    grams = [side.astype(np.float64).T @ side.astype(np.float64) for side in (users, items)]
    assert found + objective.everywhere * (grams[0] * grams[1]).sum() == pytest.approx(expected, rel=1e-6)
    assert (heads == rows.starts[1:]).all()


def test_a_row_has_the_same_bits_in_any_block() -> None:
    _, rows, items = case()
    gram = items.astype(np.float64).T @ items.astype(np.float64)
    whole = np.zeros((13, 6), np.float32)
    HU.solve(rows, whole, items, gram, steps=3)
    for row in range(13):
        entries = slice(rows.starts[row], rows.starts[row + 1])
        alone = Rows(np.array([0, rows.lengths[row]]), rows.columns[entries], rows.weights[entries])
        found = np.zeros((1, 6), np.float32)
        HU.solve(alone, found, items, gram, steps=3)
        assert found[0].tobytes() == whole[row].tobytes()


@pytest.mark.parametrize("rank", [5, 6, 64])
@pytest.mark.parametrize("objective", EVERY)
def test_blocks_that_come_one_by_one_give_the_same_bits(objective: Objective, rank: int) -> None:
    _, rows, items = case(users=50, items=40, rank=rank)
    penalties = objective.penalties(rows.lengths, 40).astype(np.float32)
    gram = (objective.everywhere * (items.T @ items)).astype(np.float32)
    terms = objective.terms(items.dtype)
    whole = np.random.default_rng(7).standard_normal((50, rank)).astype(np.float32)
    x = whole.copy()
    kernel.solve(rows.starts, rows.columns, rows.weights, whole, items, gram, penalties, terms, 3)
    left, direction, image = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    sizes, enough = np.empty(50, np.float32), np.empty(50, np.float32)

    def minus_image(out: npt.NDArray[np.float32], of: npt.NDArray[np.float32], share: float) -> None:
        kernel.everywhere(out, of, gram, penalties)
        heads, stops, part = rows.starts[:-1].copy(), rows.starts[1:], np.float32(share)
        for low, high in ((0, 7), (7, 8), (8, 40)):
            kernel.along(out, of, part, heads, stops, rows.columns, rows.weights, low, items[low:high], terms)

    minus_image(left, x, 1)
    kernel.begin(left, direction, sizes, enough)
    for _ in range(3):
        minus_image(image, direction, 0)
        kernel.advance(x, left, direction, image, sizes, enough)
    x[rows.lengths == 0] = 0
    assert x.tobytes() == whole.tobytes()


def test_entries_become_the_rows_of_a_process_in_any_order() -> None:
    # Users 0, 2, 4 are in block 0 of 2, items likewise; this process has block 1 only: users 1, 3 and items 1, 3.
    of_users = [(1, 0, 5.0), (3, 3, 6.0), (1, 2, 7.0), (3, 0, 8.0)]
    of_items = [(1, 4, 1.0), (3, 3, 6.0), (1, 0, 2.0)]
    told = [(False, *entry) for entry in of_users] + [(True, *entry) for entry in of_items]
    for order in (range(7), (6, 0, 4, 3, 2, 5, 1)):
        columns = [list(column) for column in zip(*(told[n] for n in order), strict=True)]
        batch = pa.record_batch([[1] * 7, *columns], names=["block", "is_item", "row", "column", "weight"])
        entries = Entries.of(iter([batch[:3], batch[3:3], batch[3:]]))
        assert (entries.blocks, entries.users) == (range(1, 2), 5)
        users, items = Side(5, 2), Side(4, 2)
        # Places: items 0, 2 | 1, 3 and users 0, 2, 4 | 1, 3.
        found = entries.rows(users, items, of_items=False)
        assert found.starts.tolist() == [0, 2, 4]
        assert found.columns.tolist() == [0, 1, 0, 3] and found.weights.tolist() == [5, 7, 8, 6]
        found = entries.rows(items, users, of_items=True)
        assert found.starts.tolist() == [0, 2, 3]
        assert found.columns.tolist() == [0, 2, 4] and found.weights.tolist() == [2, 1, 6]


def test_rows_are_dealt_to_blocks_and_each_has_its_place() -> None:
    for count, blocks in ((10, 3), (2, 5), (0, 2), (7, 1)):
        side = Side(count, blocks)
        assert sum(side.size(block) for block in range(blocks)) == count
        places = side.places()
        assert sorted(places) == list(range(count))
        for row, place in enumerate(places):
            found = side.slice(row % blocks)
            assert found.start <= place < found.stop
