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
# Counts that a task of the cut holds at once, about 80 bytes each while they are added up and sorted; those of a single
# item may be more. Held all at once they took 3.8 GB of a worker at 5 million events, five times as much as at one.
_CUT = 2**21
# Neighbours of an item in one row of the shuffle: an Arrow batch has 10,000 rows, however long they are.
_PIECE = 1024
COUNTS = "item_idx int, neighbour_idx array<int>, users array<int>"
_NEIGHBOURS = "item_idx int, neighbour_idx int, similarity double"


def neighbours(
    baskets: DataFrame, users: Ints, is_available: npt.NDArray[np.bool_], settings: Candidates, partitions: int
) -> DataFrame:
    """`item_idx`, `neighbour_idx`, `similarity`: the available items nearest to each, `settings.neighbours` at most.

    `baskets` has one row per user with `basket`, distinct item numbers; `users` is n_i by item number. Pairs are
    counted inside each worker and only the counts are shuffled, by item. A task of the cut meets its share of the items
    one after the other and holds some of them at a time. Ties go to the smaller number.
    """
    counts = baskets.select("basket").mapInArrow(counting(len(users)), COUNTS)
    cut = _cutting(users, is_available, settings.min_cooccurrence, settings.neighbours)
    by_item = counts.repartition(partitions, "item_idx").sortWithinPartitions("item_idx")
    return by_item.mapInArrow(cut, _NEIGHBOURS)


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


def counting(width: int) -> Callable[[Batches], Batches]:
    """From batches of `basket` (distinct numbers below `width`) to COUNTS: the users who share each pair of items.

    A pair may come in several rows, whose users are to be added up.
    """

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
    """The rows of a sparse matrix that are not empty, as lists of _PIECE at most."""
    starts = np.unique(np.concatenate([counts.indptr[:-1], np.arange(0, counts.nnz, _PIECE)]))
    starts = starts[starts < counts.nnz]
    offsets = pa.array(np.append(starts, counts.nnz).astype(np.int32))
    return pa.RecordBatch.from_pydict(
        {
            "item_idx": pa.array(np.searchsorted(counts.indptr, starts, "right") - 1, pa.int32()),
            "neighbour_idx": pa.ListArray.from_arrays(offsets, pa.array(counts.indices, pa.int32())),
            "users": pa.ListArray.from_arrays(offsets, pa.array(counts.data, pa.int32())),
        }
    )


def _cutting(users: Ints, is_available: npt.NDArray[np.bool_], least: int, most: int) -> Callable[[Batches], Batches]:
    def cut(batches: Batches) -> Batches:
        for rows, columns, counts in _whole_items(batches):
            there = is_available[columns]
            # Added up: an item's counts come from several workers.
            shape = (int(rows[-1] - rows[0]) + 1, len(users))
            total = sparse.csr_matrix((counts[there], (rows[there] - rows[0], columns[there])), shape=shape).tocoo()
            item, neighbour, similarity = nearest(
                total.row + rows[0], total.col, total.data, users, least=least, most=most
            )
            yield pa.RecordBatch.from_pydict(
                {
                    "item_idx": pa.array(item, pa.int32()),
                    "neighbour_idx": pa.array(neighbour, pa.int32()),
                    "similarity": pa.array(similarity, pa.float64()),
                }
            )

    return cut


def _whole_items(batches: Batches) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Item, neighbour and count of batches in the order of their items, about _CUT at once, no item in two."""
    held: list[tuple[Ints, Ints, Ints]] = []
    for batch in batches:
        held.append(_flat(batch))
        if sum(len(rows) for rows, _, _ in held) < _CUT:
            continue
        rows, columns, counts = (np.concatenate(parts) for parts in zip(*held, strict=True))
        # Cut where an item begins: after every _CUT or so, and before the last one, which may go on.
        last = int(np.searchsorted(rows, rows[-1]))
        ends = np.unique(np.append(np.searchsorted(rows, rows[_CUT::_CUT]), last))
        for start, end in zip(np.append(0, ends[:-1]), ends, strict=True):
            if start < end:
                yield rows[start:end], columns[start:end], counts[start:end]
        held = [(rows[last:], columns[last:], counts[last:])]
    if sum(len(rows) for rows, _, _ in held):
        rows, columns, counts = (np.concatenate(parts) for parts in zip(*held, strict=True))
        yield rows, columns, counts


def _flat(batch: pa.RecordBatch) -> tuple[Ints, Ints, Ints]:
    """A batch's lists as item, neighbour and count of each entry."""
    neighbours, users = batch.column("neighbour_idx"), batch.column("users")
    rows = np.repeat(batch.column("item_idx").to_numpy(), neighbours.value_lengths().to_numpy())
    return rows, neighbours.flatten().to_numpy(), users.flatten().to_numpy()
