"""Losses against hand-computed values and autograd of naive versions; what a step holds, and each process of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from nightrec.config import Ranker
from nightrec.errors import BadInput
from nightrec.ranker import losses
from nightrec.ranker.dataset import Split
from nightrec.ranker.lessons import Batch, Lessons
from nightrec.ranker.steps import Units, has_comparison, log_shares


def split(lengths: list[int], positive: Callable[[int], bool], ratings: dict[int, float] | None = None) -> Split:
    """Lists of these lengths, of items 0, 1, 2 ... each; positive by row number."""
    size = sum(lengths)
    given = np.full(size, np.nan, np.float32)
    for row, rating in (ratings or {}).items():
        given[row] = rating
    return Split(
        first=0, folds=np.zeros(size, np.int32), lists=np.repeat(np.arange(len(lengths)), lengths).astype(np.int32),
        items=np.concatenate([np.arange(length) for length in lengths]).astype(np.int32),
        labels=np.array([positive(row) for row in range(size)], np.float32),
        kinds=np.zeros(size, np.int32), ratings=given, features=np.zeros((size, 1), np.float32),
    )


# A list of a positive between two others, one of two positives and another, one of nothing but a positive.
LOGITS = [0.0, math.log(2), math.log(3), 1.0, 0.0, 2.0, 5.0]
LABELS = [0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
LISTS = [0, 0, 0, 1, 1, 1, 2]


def test_each_loss_is_what_it_says() -> None:
    logits, labels, lists = torch.tensor(LOGITS), torch.tensor(LABELS), torch.tensor(LISTS)
    weights = torch.tensor([1.0, 2.0, 0.0])
    soft = [-math.log(2 / 6), math.log(math.e + 1 + math.e**2) - (1 + 0) / 2]
    assert losses.listwise(logits, labels, lists, weights).item() == pytest.approx(soft[0] + 2 * soft[1], rel=1e-6)
    # log(1 + e^(other - positive)): of the pairs (2, 1) and (2, 3), then (e^1, e^2) and (e^0, e^2)
    pairs = [(math.log(1 + 1 / 2) + math.log(1 + 3 / 2)) / 2, (math.log(1 + math.e) + math.log(1 + math.e**2)) / 2]
    assert losses.pairwise(logits, labels, lists, weights).item() == pytest.approx(pairs[0] + 2 * pairs[1], rel=1e-6)
    binary = sum(math.log(1 + math.exp(-x if y else x)) for x, y in zip(LOGITS, LABELS, strict=True))
    assert losses.binary(logits, labels).item() == pytest.approx(binary, rel=1e-6)
    assert losses.squared(torch.tensor([1.0, 3.0]), torch.tensor([4.0, 2.0])).item() == 10


def naive(name: str, logits: Tensor, labels: Tensor, lists: Tensor, weights: Tensor) -> Tensor:
    """List by list, pair by pair."""
    total = torch.zeros((), dtype=logits.dtype)
    for number, weight in enumerate(weights):
        own, did = logits[lists == number], labels[lists == number] > 0
        if name == "listwise" and did.any():
            total = total - weight * torch.log_softmax(own, 0)[did].mean()
        if name == "pairwise" and did.any() and not did.all():
            terms = [-torch.sigmoid(better - worse).log() for better in own[did] for worse in own[~did]]
            total = total + weight * torch.stack(terms).mean()
    return total


@pytest.mark.parametrize("name", ["listwise", "pairwise"])
def test_values_and_gradients_are_those_of_the_naive_version(name: str) -> None:
    rng = torch.Generator().manual_seed(3)
    lists = torch.repeat_interleave(torch.arange(6), torch.tensor([1, 4, 9, 2, 30, 3]))
    labels = (torch.rand(len(lists), generator=rng) < 0.3).double()
    labels[lists == 3] = 0  # nobody
    weights = torch.rand(6, generator=rng).double()
    logits = torch.randn(len(lists), generator=rng).double().mul(30).requires_grad_()  # exponentials beyond floats
    values = [losses.listwise, losses.pairwise][name == "pairwise"](logits, labels, lists, weights)
    expected = naive(name, logits, labels, lists, weights)
    assert values.item() == pytest.approx(expected.item(), rel=1e-9)
    (found,), (wanted,) = (torch.autograd.grad(value, logits) for value in (values, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-12)


def test_a_list_weighs_its_positives_up_to_twenty_and_nothing_where_it_compares_nothing() -> None:
    # 30 and 2 positives, none, and only positives
    lessons = split([40, 5, 4, 3], lambda row: row < 30 or row in (41, 42) or row >= 49)
    assert has_comparison(lessons) and not has_comparison(split([3, 2], lambda row: row < 3))
    assert not has_comparison(lessons.part(0, 0))
    within = Units.of(lessons, "listwise")
    assert within.weights is not None and within.weights.tolist() == [20, 2] and within.starts.tolist() == [0, 40]
    with pytest.raises(BadInput, match=r'"pairwise" learns from lists with .* raise ranker.negatives_share'):
        Units.of(split([3, 2], lambda row: True), "pairwise")
    assert Units.of(split([3], bool, {2: 4.0, 0: 1.0}), "squared").starts.tolist() == [0, 2]


@pytest.mark.parametrize("loss", ["binary", "listwise", "pairwise"])
@pytest.mark.parametrize("batch", [1, 7, 64, 10_000])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_all_processes_take_equal_steps_that_hold_every_unit_once(loss: str, batch: int, size: int) -> None:
    rng = np.random.default_rng(8)
    lengths = rng.integers(1, 30, 50)
    data = split(lengths.tolist(), lambda row: row % 5 == 0)
    units = Units.of(data, loss)
    order = rng.permutation(len(units.starts))
    by_process = [list(units.steps(batch, order, rank, size)) for rank in range(size)]
    assert len({len(steps) for steps in by_process}) == 1
    seen: list[int] = []
    for parts in zip(*by_process, strict=True):
        rows = [int(row) for part in parts for row in part.rows]
        assert rows and {part.rows_of_all for part in parts} == {len(rows)}
        assert [place for part in parts for place in part.place] == list(range(len(rows)))
        weight = sum(float(part.weights.sum()) for part in parts)
        assert {part.weight_of_all for part in parts} == {weight}
        longest = 1 if loss == "binary" else int(lengths.max())
        assert len(rows) <= max(batch, 1) + longest
        for part in parts:
            assert abs(len(part.rows) - len(rows) / size) <= longest
            # A unit is one list, and whole.
            if loss != "binary":
                lists = data.lists[part.rows]
                assert len(part.units) == len(lists) and (np.diff(part.units) == (np.diff(lists) != 0)).all()
                assert (np.bincount(part.units, minlength=len(part.weights)) == lengths[lists[np.diff(
                    part.units, prepend=-1) > 0]]).all()
        seen += rows
    kept = np.concatenate([np.arange(start, start + length) for start, length in zip(
        units.starts, np.ones(len(units.starts), int) if units.lengths is None else units.lengths, strict=True)])
    assert sorted(seen) == kept.tolist()


@pytest.mark.parametrize("loss", ["binary", "pairwise", "listwise", "squared"])
def test_the_parts_of_a_step_add_up_to_its_loss(loss: str) -> None:
    data = split([5, 9, 1, 20], lambda row: row % 4 == 0, {row: float(row % 5) for row in range(0, 35, 3)})
    settings = Ranker(loss=loss, popularity_correction=0.5)
    lessons = Lessons.of(data, data, settings)
    scores = torch.randn(35, generator=torch.Generator().manual_seed(1)).double()
    order = np.arange(len(lessons.units.starts))

    def total(size: int) -> float:
        steps = [step for rank in range(size) for step in lessons.units.steps(1000, order, rank, size)]
        parts = [Batch(lessons, step, lessons.given(step.rows), []) for step in steps]
        return sum(float(part.loss(scores[part.step.rows], size)) for part in parts) / size

    # Item n is in all lists longer than n: 4 of 4, 3 of 4 ..., one added to both.
    held = [(1 + sum(n < length for length in (5, 9, 1, 20))) / 5 for length in (5, 9, 1, 20) for n in range(length)]
    np.testing.assert_allclose(log_shares(data.items, data), np.log(held), rtol=1e-6)
    taken_off = scores - 0.5 * torch.tensor(held).double().log()
    labels, lists = torch.from_numpy(data.labels).double(), torch.from_numpy(data.lists).long()
    weights = torch.tensor([2.0, 2.0, 0.0, 5.0]).double()
    rated = ~np.isnan(data.ratings)
    expected = {
        "binary": losses.binary(taken_off, labels).item() / 35,
        "squared": float(((taken_off.numpy() - data.ratings)[rated] ** 2).mean()),
        **{name: naive(name, taken_off, labels, lists, weights).item() / 9 for name in ("pairwise", "listwise")},
    }
    assert total(1) == pytest.approx(expected[loss], rel=1e-6)
    assert total(2) == pytest.approx(expected[loss], rel=1e-6) and total(3) == pytest.approx(expected[loss], rel=1e-6)
