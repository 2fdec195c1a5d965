"""Item-to-item weights of the linear model that is best in closed form (Steck 2019, "Embarrassingly Shallow
Autoencoders for Sparse Data", EASE): a user's items times these weights come as near as may be to the items themselves,
with no item speaking for itself.

With G the users who have both of two items (on the diagonal those who have the one) and P = (G + penalty I)^-1, the
weight from i to j is -P_ij / P_jj. The driver inverts the matrix, 8 bytes per pair of items: 6,000 items take 0.3 GB
three times over and some ten seconds of two cores. Of a larger catalogue only the items with the most users take part;
for the others `cooccurrence` speaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from scipy import linalg

from nightrec.serving.pairs import SUMS, adding, entries, shared

Ints = npt.NDArray[np.integer]
Batches = Iterator[pa.RecordBatch]
Doubles = npt.NDArray[np.float64]


def neighbours(baskets: DataFrame, users: Ints, *, most_items: int, penalty: float, neighbours: int) -> pa.Table:
    """`item_idx`, `neighbour_idx`, `similarity`: of each of the `most_items` items with the most users, those whose
    weights from it are largest in size, `neighbours` at most, weights below 0 included.

    `baskets` has one row per user with `basket`, distinct item numbers; `users` counts them by item number.
    """
    chosen = np.sort(np.lexsort((np.arange(len(users)), -users))[: min(most_items, int((users > 0).sum()))])
    place = np.full(len(users), -1)
    place[chosen] = np.arange(len(chosen))
    gram = _gram(baskets.select("basket").mapInArrow(_adding_chosen(place, len(chosen)), SUMS), len(chosen))
    return _listed(weights(gram, penalty), chosen, neighbours)


def weights(gram: Doubles, penalty: float) -> Doubles:
    """N x N, from row to column, 0 on the diagonal; `gram` is overwritten."""
    gram[np.diag_indices_from(gram)] += penalty
    inverse = linalg.inv(gram, overwrite_a=True, check_finite=False)
    inverse /= -np.diag(inverse).copy()
    np.fill_diagonal(inverse, 0)
    found: Doubles = inverse
    return found


def _adding_chosen(place: Ints, size: int) -> Callable[[Batches], Batches]:
    """As `pairs.adding`, users of the chosen items alone, by their places."""

    def renumbered(batch: pa.RecordBatch) -> pa.RecordBatch:
        basket = batch["basket"]
        lists = np.repeat(np.arange(len(basket)), basket.value_lengths().to_numpy())
        places = place[basket.flatten().to_numpy()]
        lengths = np.bincount(lists[places >= 0], minlength=len(basket))
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
        values = pa.array(places[places >= 0].astype(np.int32))
        return pa.RecordBatch.from_pydict({"basket": pa.ListArray.from_arrays(offsets, values)})

    return lambda batches: adding(size, shared)(map(renumbered, batches))


def _gram(sums: DataFrame, size: int) -> Doubles:
    """Users who share each pair of items, added up: `sums` has several rows for an item."""
    gram = np.zeros((size, size))
    for batch in sums.toArrow().to_batches():
        rows, columns, users = entries(batch)
        np.add.at(gram, (rows, columns), users)
    return gram


def _listed(weight: Doubles, chosen: Ints, most: int) -> pa.Table:
    """The entries largest in size of each row, by size, then by number."""
    kept = min(most, max(len(chosen) - 1, 0))
    order = np.argsort(-np.abs(weight), axis=1, kind="stable")[:, :kept]
    values = np.take_along_axis(weight, order, 1)
    there = values != 0
    return pa.table({
        "item_idx": pa.array(np.repeat(chosen, there.sum(1)), pa.int32()),
        "neighbour_idx": pa.array(chosen[order[there]], pa.int32()),
        "similarity": pa.array(values[there], pa.float64()),
    })  # fmt: skip
