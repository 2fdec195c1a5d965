"""Item-to-item similarity: how often two items are among the latest of the same users.

similarity(i, j) = n_ij / sqrt(n_i n_j), the cosine of the items' columns in the users x items matrix of zeros and ones
(Sarwar et al., "Item-Based Collaborative Filtering Recommendation Algorithms", 2001). n_i counts the users who have i
in their basket, n_ij those who have both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from scipy import sparse

if TYPE_CHECKING:
    # Every worker imports this module; the config's pydantic costs each 0.3 s.
    from nightrec.config import Candidates

Ints = npt.NDArray[np.integer]
Batches = Iterator[pa.RecordBatch]

# Pairs multiplied out at once, and pairs of items a worker holds before it passes them on: 2**23 of 12 bytes each.
_PAIRS = 2**23
_COUNTS = "item_idx int, neighbour_idx array<int>, users array<int>"
_NEIGHBOURS = "item_idx int, neighbour_idx int, similarity double"


def neighbours(
    baskets: DataFrame, users: Ints, is_available: npt.NDArray[np.bool_], settings: Candidates, partitions: int
) -> DataFrame:
    """`item_idx`, `neighbour_idx`, `similarity`: the available items nearest to each, `settings.neighbours` at most.

    `baskets` has one row per user with `basket`, distinct item numbers; `users` is n_i by item number. Pairs are
    counted inside each worker and only the counts are shuffled, one row per item and worker. A task of the cut holds
    the counts of its share of the items. Ties go to the smaller number.
    """
    counts = baskets.select("basket").mapInArrow(_counting(len(users)), _COUNTS)
    cut = _cutting(users, is_available, settings.min_cooccurrence, settings.neighbours)
    return counts.repartition(partitions, "item_idx").mapInArrow(cut, _NEIGHBOURS)


def pair_counts(offsets: Ints, items: Ints, width: int) -> Any:
    """Users who share each pair of items (width x width, sparse); basket u is items[offsets[u]:offsets[u + 1]]."""
    ones = sparse.csr_matrix((np.ones(len(items), np.int32), items, offsets), shape=(len(offsets) - 1, width))
    return ones.T @ ones


def nearest(
    rows: Ints, columns: Ints, counts: Ints, users: Ints, *, least: int, most: int
) -> tuple[Ints, Ints, npt.NDArray[np.float64]]:
    """Item, neighbour and similarity of the pairs that at least `least` users share, the best `most` of each item."""
    kept = (rows != columns) & (counts >= least)
    rows, columns, counts = rows[kept], columns[kept], counts[kept]
    similarity = counts / np.sqrt(users[rows].astype(np.float64) * users[columns])
    order = np.lexsort((columns, -similarity, rows))
    rows, columns, similarity = rows[order], columns[order], similarity[order]
    kept = np.arange(len(rows)) - np.searchsorted(rows, rows) < most
    return rows[kept], columns[kept], similarity[kept]


def _counting(width: int) -> Callable[[Batches], Batches]:
    def count(batches: Batches) -> Batches:
        total = sparse.csr_matrix((width, width), dtype=np.int32)
        for batch in batches:
            lengths = batch.column("basket").value_lengths().to_numpy()
            items, offsets = batch.column("basket").flatten().to_numpy(), np.concatenate([[0], np.cumsum(lengths)])
            # Cut where the pairs multiplied out would pass the bound.
            group = np.cumsum(lengths.astype(np.int64) ** 2) // _PAIRS
            for start, stop in zip(*_runs(group), strict=True):
                part = offsets[start : stop + 1]
                total = total + pair_counts(part - part[0], items[part[0] : part[-1]], width)
                if total.nnz > _PAIRS:
                    yield _listed(total)
                    total = sparse.csr_matrix((width, width), dtype=np.int32)
        yield _listed(total)

    return count


def _runs(group: Ints) -> tuple[Ints, Ints]:
    """Starts and ends of the runs of equal values."""
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    return starts, np.append(starts[1:], len(group))


def _listed(counts: Any) -> pa.RecordBatch:
    """The rows of a sparse matrix that are not empty, as lists."""
    filled = np.flatnonzero(np.diff(counts.indptr))
    offsets = pa.array(np.append(counts.indptr[filled], counts.nnz).astype(np.int32))
    return pa.RecordBatch.from_pydict(
        {
            "item_idx": pa.array(filled, pa.int32()),
            "neighbour_idx": pa.ListArray.from_arrays(offsets, pa.array(counts.indices, pa.int32())),
            "users": pa.ListArray.from_arrays(offsets, pa.array(counts.data, pa.int32())),
        }
    )


def _cutting(users: Ints, is_available: npt.NDArray[np.bool_], least: int, most: int) -> Callable[[Batches], Batches]:
    def cut(batches: Batches) -> Batches:
        arrived = [batch for batch in batches if batch.num_rows]
        if not arrived:
            return
        held = pa.Table.from_batches(arrived).combine_chunks()
        lists = held["neighbour_idx"].combine_chunks()
        rows = np.repeat(held["item_idx"].to_numpy(), lists.value_lengths().to_numpy())
        columns, counts = lists.flatten().to_numpy(), held["users"].combine_chunks().flatten().to_numpy()
        there = is_available[columns]
        shape = (len(users), len(users))
        total = sparse.csr_matrix((counts[there], (rows[there], columns[there])), shape=shape).tocoo()
        item, neighbour, similarity = nearest(total.row, total.col, total.data, users, least=least, most=most)
        yield pa.RecordBatch.from_pydict(
            {
                "item_idx": pa.array(item, pa.int32()),
                "neighbour_idx": pa.array(neighbour, pa.int32()),
                "similarity": pa.array(similarity, pa.float64()),
            }
        )

    return cut
