"""Which examples a step of training takes, and which of them a process: whole lists where the loss looks within them.

Letters: N examples of a split, U units that are never parted: single examples, or lists. Everything here follows from
the split and a seed, so all processes of a job agree without a word, and take equally many steps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nightrec.errors import BadInput
from nightrec.ranker.dataset import Floats, Ints, Split

# A list's weight where the loss looks within lists: its positives, at most so many. One user of hundreds would
# otherwise decide what is learned for all.
MOST_WEIGHT = 20
WITHIN_LISTS = ("pairwise", "listwise")


@dataclass(frozen=True)
class Taken:
    """What one process takes of one step: `rows` of the split, of each its unit's number among `weights`, ascending.

    Of the whole step, all processes together: how many `rows_of_all`, the `weight_of_all`, and the `place` of these.
    """

    rows: npt.NDArray[np.int64]
    units: npt.NDArray[np.int64]
    weights: Floats
    place: range
    rows_of_all: int
    weight_of_all: float


@dataclass(frozen=True)
class Units:
    """U units: the row each starts at, how many rows it has (None: one each), and its weight (None: 1 each)."""

    starts: Ints
    lengths: Ints | None = None
    weights: Floats | None = None

    @classmethod
    def of(cls, split: Split, loss: str) -> Units:
        """What `ranker.loss` learns from. Raises BadInput where that is nothing.

        binary: every example; squared: the rated ones; pairwise and listwise: lists with both a positive and another.
        """
        if loss == "binary":
            return cls(np.arange(len(split), dtype=np.int32))
        if loss == "squared":
            rated = np.flatnonzero(~np.isnan(split.ratings)).astype(np.int32)
            if not len(rated):
                raise BadInput('ranker_examples: ranker.loss = "squared" learns from ratings, and no example has one')
            return cls(rated)
        starts, lengths, positives = _lists(split)
        weights = np.where(positives < lengths, np.minimum(positives, MOST_WEIGHT), 0).astype(np.float32)
        if not weights.any():
            raise BadInput(
                f'ranker_examples: ranker.loss = "{loss}" learns from lists with an action and a candidate without, '
                "and there is none; raise ranker.negatives_share"
            )
        kept = weights > 0
        return cls(starts[kept], lengths[kept], weights[kept])

    def steps(self, batch: int, order: npt.NDArray[np.int64], rank: int = 0, size: int = 1) -> Iterator[Taken]:
        """The steps over the units in an order: `batch` rows each at most, give or take a unit, and none empty.

        The rows of a step, and of a step those of each of `size` processes, differ by one unit at most from equal
        parts. A process's part may be empty where a step has few lists.
        """
        ends = None if self.lengths is None else np.cumsum(self.lengths[order], dtype=np.int64)
        total = len(order) if ends is None else int(ends[-1])
        count = math.ceil(total / batch)

        def unit(row: int) -> int:
            return row if ends is None else int(np.searchsorted(ends, row, side="right"))

        def row(unit: int) -> int:
            return unit if ends is None or unit == 0 else int(ends[unit - 1])

        borders = sorted({unit(total * step // count) for step in range(count + 1)})
        for first, last in itertools.pairwise(borders):
            start, rows = row(first), row(last) - row(first)
            mine = slice(*(unit(start + rows * part // size) for part in (rank, rank + 1)))
            whole = float(rows) if self.weights is None else float(self.weights[order[first:last]].sum())
            place = range(row(mine.start) - start, row(mine.stop) - start)
            yield Taken(*self._rows(order[mine]), place, rows, whole)

    def _rows(
        self, units: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
        numbers = np.arange(len(units))
        starts = self.starts[units].astype(np.int64)
        if self.lengths is None or self.weights is None:
            return starts, numbers, np.ones(len(units), np.float32)
        lengths = self.lengths[units]
        ends = np.cumsum(lengths)
        rows = np.arange(lengths.sum()) + np.repeat(starts - ends + lengths, lengths)
        return rows, np.repeat(numbers, lengths), self.weights[units]


def _lists(split: Split) -> tuple[Ints, Ints, Floats]:
    """Of each list the row it starts at, how many rows it has, and how many positives."""
    starts = np.flatnonzero(np.diff(split.lists, prepend=-1)).astype(np.int32)
    positives = np.add.reduceat(split.labels, starts) if len(starts) else split.labels
    return starts, np.diff(starts, append=np.int32(len(split))), positives


def has_comparison(split: Split) -> bool:
    """Whether a list has both a positive and another: what is learned within lists needs one."""
    _, lengths, positives = _lists(split)
    return bool(((positives > 0) & (positives < lengths)).any())


def log_shares(items: Ints, train: Split) -> Floats:
    """(N,) logarithm of the share of the training lists that hold each of `items`, one added to both counts."""
    held = np.bincount(train.items, minlength=int(items.max(initial=0)) + 1) + 1
    lists = np.count_nonzero(np.diff(train.lists)) + 2
    return np.log(held / lists).astype(np.float32)[items]
