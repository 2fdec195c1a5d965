"""The nearest of every item by what items hold, words or values: the cosine of what both hold, each weighed by its
rarity (TF-IDF: Salton & Buckley, "Term-weighting approaches in automatic text retrieval", 1988; as scikit-learn's
TfidfTransformer has it, idf = log((1 + N) / (1 + holders)) + 1).

On the driver: what it costs goes with the items and what they hold, and is bounded (`telling`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from nightrec.serving import sources_kernel as kernel

Ints = npt.NDArray[np.integer]

# Others that an item meets in the mean, as often as they hold the same: a second of one core for each 20,000 items.
_MET = 2000
# Items searched at once.
_BLOCK = 4096


def neighbours(holds: Any, is_available: npt.NDArray[np.bool_], users: Ints, most: int) -> pa.Table:
    """`item_idx`, `neighbour_idx`, `similarity`: the available items nearest to each item, `most` at most.

    `holds` is N x V, sparse: how often item i holds v. Items without events are neighbours as all others are. Many
    items hold the very same: of equally near ones those that more `users` (N) know come first, as a similarity grows by
    up to one hundredth with the share of items that fewer users know; then the smaller number.
    """
    from sklearn.feature_extraction.text import TfidfTransformer

    none = {"item_idx": pa.int32(), "neighbour_idx": pa.int32(), "similarity": pa.float64()}
    holds = holds[:, telling(np.bincount(holds.indices, minlength=holds.shape[1]), len(is_available))]
    columns = np.flatnonzero(is_available)
    if not holds.nnz or not len(columns):
        return pa.schema(none).empty_table()
    weighed = sparse.csr_matrix(TfidfTransformer().fit_transform(holds), dtype=np.float64)
    # The kernel's lists are items, what they hold are the entries, and those who hold it the neighbours.
    holders = weighed[columns].T.tocsr()
    factor = 1 + np.searchsorted(np.sort(users[columns]), users[columns]) / len(columns) / 100
    itself = np.full(len(is_available), -1)
    itself[columns] = np.arange(len(columns))
    count = min(most, len(columns))
    parts = []
    for start in range(0, len(is_available), _BLOCK):
        rows = weighed[start : start + _BLOCK]
        found, because = (np.full((rows.shape[0], count), -1, np.int32) for _ in range(2))
        scores = np.zeros((rows.shape[0], count), np.float32)
        kernel.together(
            rows.indptr.astype(np.int64), rows.indices.astype(np.int64), rows.data, holders.indptr, holders.indices,
            holders.data, factor, np.arange(rows.shape[0] + 1), itself[start : start + _BLOCK], len(columns), found,
            scores, because,
        )  # fmt: skip
        row, place = np.nonzero(found >= 0)
        parts.append((row + start, columns[found[row, place]], scores[row, place].astype(np.float64)))
    values = (np.concatenate(part) for part in zip(*parts, strict=True))
    return pa.table({name: pa.array(part, type_) for part, (name, type_) in zip(values, none.items(), strict=True)})


def telling(holders: Ints, items: int) -> Ints:
    """Which words or values say which items are alike, by number of `holders` among the `items`.

    Those of one item alone say nothing of others, those of more than half of all items next to nothing. Of the rest the
    rarest are kept, all that have equally many holders or none of them, while their pairs of holders come to _MET times
    the items at most: one category of half of a million items would make 2.5e11.
    """
    able = (holders >= 2) & (2 * holders <= max(items, 4))
    sizes, counts = np.unique(holders[able], return_counts=True)
    largest = sizes[np.cumsum(counts * sizes.astype(np.float64) ** 2) <= _MET * items].max(initial=0)
    return np.flatnonzero(able & (holders <= largest))
