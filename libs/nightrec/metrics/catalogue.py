"""What lists do with the catalogue: how much of it they show, how unknown and how unlike each other their items are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit
from pyspark.sql import DataFrame

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]


def coverage(rows: DataFrame, methods: Sequence[str], items: int) -> dict[str, float]:
    """Share of `items` (numbers below it) that stand in any list of each method; 0 where there are no items.

    `rows` has one row per user with `lists`: an item list per method, in the order of `methods`, cut at k.
    """
    if not items:
        return dict.fromkeys(methods, 0.0)
    parts = rows.select("lists").mapInArrow(_shown(len(methods), items), "shown binary").toArrow()["shown"]
    bits = [np.frombuffer(part, np.uint8).reshape(len(methods), -1) for part in parts.to_pylist()]
    shown = np.bitwise_or.reduce([np.zeros((len(methods), (items + 7) // 8), np.uint8), *bits])
    shares = np.unpackbits(shown, axis=1).sum(1) / items
    return dict(zip(methods, shares.tolist(), strict=True))


def _shown(methods: int, items: int) -> Any:
    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        shown = np.zeros((methods, items), np.bool_)
        for batch in batches:
            lists = batch["lists"].flatten()
            method = np.repeat(np.arange(len(lists)) % methods, lists.value_lengths().to_numpy())
            shown[method, lists.flatten().to_numpy()] = True
        yield pa.RecordBatch.from_pydict({"shown": [np.packbits(shown, axis=1).tobytes()]})

    return work


@njit(cache=True, nogil=True)
def novelty_and_diversity(shown: Any, share: Any, vectors: Any) -> Any:
    """U x 2, of lists of item numbers (U x k, below 0 where there is none); NaN where there is nothing to judge.

    Novelty is the mean of -log2(share) over the list's items, in bits; `share` of all users acted on the item, above 0
    (Vargas & Castells 2011, "Rank and Relevance in Novelty and Diversity Metrics for Recommender Systems"). Diversity
    is the mean of 1 - cosine over all pairs of the list's items that have a vector (a row of `vectors` of length 1, not
    0): intra-list distance, Ziegler et al. 2005, "Improving Recommendation Lists Through Topic Diversification".
    """
    found = np.full((len(shown), 2), np.nan)
    summed = np.zeros(vectors.shape[1])
    for row in range(len(shown)):
        surprise, items, with_vector = 0.0, 0, 0
        summed[:] = 0
        for item in shown[row]:
            if item < 0:
                continue
            items += 1
            surprise -= np.log2(share[item])
            if (vectors[item] != 0).any():
                with_vector += 1
                summed += vectors[item]
        if items:
            found[row, 0] = surprise / items
        if with_vector > 1:
            # The sum over all pairs follows from the sum of the vectors, of which each has length 1.
            pairs = with_vector * (with_vector - 1)
            found[row, 1] = 1 - ((summed**2).sum() - with_vector) / pairs
    return found
