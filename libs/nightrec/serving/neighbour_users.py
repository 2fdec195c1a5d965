"""Users alike: what a bounded sample of users, sent to every worker, has in common with a list's user.

likeness(u, v) = n_uv / sqrt(n_u n_v), the cosine of two baskets of n_u and n_v items that share n_uv; an item scores
the sum of the likenesses of the `nearest` references who have it (Resnick et al., "GroupLens", 1994, for baskets). A
user is no neighbour of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse

from nightrec.serving import sources_kernel as kernel

Ints = npt.NDArray[np.integer]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True)
class References:
    """V users who stand for all, by number in the order of their sample.

    They take about 24 bytes of a worker per item of a basket: each is in both matrices.
    """

    user_id: pa.StringArray  # V
    held: Any  # N x V, sparse ones: who has each item
    taken: Any  # V x A, sparse ones: what each has of what is available
    nearest: int  # references that speak for a user at most

    @classmethod
    def of(cls, sample: pa.Table, column: Ints, width: int, nearest: int) -> References:
        """From a `sample` of users; `column` leads from item numbers to columns below `width`, -1 for none."""
        basket = sample["basket"].combine_chunks()
        items, lengths = basket.flatten().to_numpy(), basket.value_lengths().to_numpy()
        users = np.repeat(np.arange(len(basket)), lengths)
        there = column[items] >= 0
        return cls(
            user_id=sample["user_id"].combine_chunks(),
            held=_ones(items, users, (len(column), len(basket))),
            taken=_ones(users[there], column[items[there]], (len(basket), width)),
            nearest=min(nearest, len(basket)),
        )

    @cached_property
    def sizes(self) -> Ints:
        """V, items of each basket, available or not."""
        return np.bincount(self.held.indices, minlength=self.held.shape[1])

    def alike(self, offsets: Ints, own: Ints, itself: Ints) -> tuple[Ints, Ints, Doubles]:
        """The references most like each of R users, as offsets, references and likenesses, rounded to float32.

        User r has items own[offsets[r]:offsets[r + 1]] and is reference itself[r], -1 for none. Most alike first, ties
        by number; those who share nothing are left out.
        """
        shape = (len(offsets) - 1, self.nearest)
        found, likeness = np.full(shape, -1, np.int32), np.zeros(shape, np.float32)
        kernel.alike(
            offsets, own, self.held.indptr, self.held.indices, self.sizes, itself, found, likeness
        )
        there = found >= 0
        counts: Ints = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
        return counts, found[there].astype(np.int64), likeness[there].astype(np.float64)


def sample(histories: DataFrame, count: int) -> pa.Table:
    """`user_id` and `basket` of the `count` users with one whose ids have the smallest hashes: the same users night
    after night, and whatever the partitions.
    """
    known = histories.where(F.size("basket") > 0).select("user_id", "basket")
    return known.orderBy(F.xxhash64("user_id"), "user_id").limit(count).toArrow()


def _ones(rows: Ints, columns: Ints, shape: tuple[int, int]) -> Any:
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
