"""The compiled half-step against the textbook's dense algebra."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from nightrec.als.blocks import Side
from nightrec.als.kernel import EXACT_STEPS, Objective, Rows

HU = Objective(alpha=4.0, regularisation=0.3)
RENDLE = Objective(alpha=4.0, regularisation=0.02, unobserved=0.1, frequency_power=0.8, frequency_offset=0.1)
IMPLICIT = Objective(alpha=4.0, regularisation=0.3, frequency_power=0.0)


Case = tuple[npt.NDArray[np.float64], Rows, npt.NDArray[np.float32]]


def case(users: int = 13, items: int = 9, rank: int = 6) -> Case:
    """Weights as a dense matrix (0: not seen), the same as rows, and item factors. User 5 has no entry."""
    rng = np.random.default_rng(5)
    dense = rng.integers(1, 5, (users, items)) * (rng.random((users, items)) < 0.4)
    dense[5] = 0
    rows, columns = np.nonzero(dense)
    shuffled = rng.permutation(len(rows))
    weights = dense[rows, columns].astype(np.float32)
    found = Rows.of(rows[shuffled], columns[shuffled], weights[shuffled], users)
    return dense.astype(np.float64), found, rng.standard_normal((items, rank)).astype(np.float32)


def exact(weights: npt.NDArray[np.float64], items: npt.NDArray[np.float64], o: Objective) -> npt.NDArray[np.float64]:
    """A user's factors by the normal equations, written out over all items."""
    seen = weights > 0
    confidence = o.unobserved + o.alpha * weights
    penalty = o.regularisation * (seen.sum() + o.frequency_offset * len(items)) ** o.frequency_power
    left = items.T @ (items * confidence[:, None]) + penalty * np.eye(items.shape[1])
    solved: npt.NDArray[np.float64] = np.linalg.solve(left, items.T @ (confidence * seen))
    return solved


@pytest.mark.parametrize("objective", [HU, RENDLE, IMPLICIT])
def test_many_steps_are_the_normal_equations_and_a_few_from_there_stay(objective: Objective) -> None:
    dense, rows, items = case()
    wide = items.astype(np.float64)
    expected = np.array([exact(row, wide, objective) if row.any() else np.zeros(6) for row in dense])
    found = np.ones((13, 6), np.float32)
    objective.solve(rows, found, items, wide.T @ wide, steps=30)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    objective.solve(rows, found, items, wide.T @ wide, steps=3)
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("objective", [HU, RENDLE, IMPLICIT])
def test_in_double_it_is_exact(objective: Objective) -> None:
    dense, rows, items = case(users=200, items=300, rank=64)
    wide = items.astype(np.float64)
    found = np.zeros((200, 64))
    objective.solve(rows, found, wide, wide.T @ wide, EXACT_STEPS)
    expected = np.array([exact(row, wide, objective) if row.any() else np.zeros(64) for row in dense])
    np.testing.assert_allclose(found, expected, atol=1e-9)


@pytest.mark.parametrize("objective", [HU, RENDLE, IMPLICIT])
def test_the_loss_is_the_objective_written_out(objective: Objective) -> None:
    dense, rows, items = case()
    users = np.random.default_rng(6).standard_normal((13, 6)).astype(np.float32)
    scores, seen = users.astype(np.float64) @ items.T.astype(np.float64), dense > 0
    confidence = objective.unobserved + objective.alpha * dense
    counts = (seen.sum(axis=1) + objective.frequency_offset * 9) ** objective.frequency_power
    expected = (confidence * (scores - seen) ** 2).sum() + objective.regularisation * counts @ (users**2).sum(axis=1)
    grams = [side.astype(np.float64).T @ side.astype(np.float64) for side in (users, items)]
    assert objective.loss(rows, users, items, *grams) == pytest.approx(expected, rel=1e-6)


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


def test_rows_are_dealt_to_blocks_and_each_has_its_place() -> None:
    for count, blocks in ((10, 3), (2, 5), (0, 2), (7, 1)):
        side = Side(count, blocks)
        assert sum(side.size(block) for block in range(blocks)) == count
        places = side.places(np.arange(count))
        assert sorted(places) == list(range(count))
        for row, place in enumerate(places):
            found = side.slice(row % blocks)
            assert found.start <= place < found.stop
