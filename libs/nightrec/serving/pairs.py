"""Pairs of items of the same users, weighed and added up inside every worker: what similarities of items are cut from.

Several ways of weighing share one pass over the users and one shuffle: their N x N sums lie below one another, so that
item i of way w is row w N + i. All sums are whole numbers in double precision, so no bit depends on how users are
spread over workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any, ParamSpec, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from scipy import sparse

from nightrec.serving import sources_kernel as kernel
from nightrec.stopwatch import Clock

Ints = npt.NDArray[np.integer]
Doubles = npt.NDArray[np.float64]
Batches = Iterator[pa.RecordBatch]
P = ParamSpec("P")
T = TypeVar("T")

# Pairs multiplied out at once, and pairs of items a worker holds before it passes them on: 2**23 of 12 bytes each.
_PAIRS = 2**23
# Sums that a task of the cut holds at once, about 80 bytes each while they are added up and sorted; those of a single
# item may be more. Held all at once they took 3.8 GB of a worker at 5 million events, five times as much as at one.
_CUT = 2**21
# Neighbours of an item in one row of the shuffle: an Arrow batch has 10,000 rows, however long they are.
_PIECE = 1024
SUMS = "item_idx int, neighbour_idx array<int>, weights array<double>"
_NEIGHBOURS = "item_idx int, neighbour_idx int, similarity double"


class Weighing(Protocol):
    """One way of weighing pairs."""

    def weights(self, users: pa.RecordBatch, width: int) -> Any:
        """What some users (as in `histories`) add to each pair: width x width, sparse, whole numbers."""

    def similarity(self, items: Ints, neighbours: Ints, sums: Doubles, /) -> Doubles:
        """Of pairs and what all users added to them; where it is not above 0 the two are no neighbours."""


Weights = Callable[[pa.RecordBatch, int], Any]
Similarity = Callable[[Ints, Ints, Doubles], Doubles]


def neighbours(
    histories: DataFrame, ways: Mapping[str, Weighing], is_available: npt.NDArray[np.bool_], most: int,
    partitions: int, clock: Clock = nullcontext,
) -> dict[str, pa.Table]:
    """Per way `item_idx`, `neighbour_idx`, `similarity`: the available items nearest to each item, `most` at most.

    `histories` has one row per user with `basket`, distinct item numbers. Only sums are shuffled, by item; a task of
    the cut meets its share of the items one after the other and holds some of them at a time. Ties go to the smaller
    number. `clock` is told what the ways take by their names, and what all of them have in common as "pairs".
    """
    if not ways:
        return {}
    width = len(is_available)
    columns = histories.select("basket", "own_days", "own_moment")
    weights = [_timed(clock, name, way.weights) for name, way in ways.items()]
    sums = columns.mapInArrow(adding(width, *weights, clock=clock), SUMS)
    by_item = sums.repartition(partitions, "item_idx").sortWithinPartitions("item_idx")
    similarities = [_timed(clock, name, way.similarity) for name, way in ways.items()]
    cut = cutting(is_available, *similarities, most=most, clock=clock)
    found = by_item.mapInArrow(cut, _NEIGHBOURS).toArrow()
    way, item = np.divmod(found["item_idx"].to_numpy(), max(width, 1))
    numbered = found.set_column(0, "item_idx", pa.array(item, pa.int32()))
    return {name: numbered.filter(pa.array(way == number)) for number, name in enumerate(ways)}


def _timed(clock: Clock, name: str, function: Callable[P, T]) -> Callable[P, T]:
    def timed(*args: P.args, **named: P.kwargs) -> T:
        with clock(name):
            return function(*args, **named)

    return timed


def shared(users: pa.RecordBatch, width: int) -> Any:
    """Users who have both of two items in their `basket`; on the diagonal those who have the one."""
    items, offsets = flat(users["basket"])
    ones = sparse.csr_matrix((np.ones(len(items)), items, offsets), shape=(len(users), width))
    return ones.T @ ones


def flat(lists: pa.ListArray) -> tuple[Ints, Ints]:
    """The values of lists one after the other, and where each begins; the last is where all end."""
    offsets: Ints = np.concatenate([[0], np.cumsum(lists.value_lengths().to_numpy())])
    return lists.flatten().to_numpy(), offsets


def adding(width: int, *ways: Weights, clock: Clock = nullcontext) -> Callable[[Batches], Batches]:
    """From batches of users (`basket` of distinct numbers below `width`, and what the ways read) to SUMS.

    A pair may come in several rows, whose weights are to be added up.
    """
    shape = (len(ways) * width, width)

    def add(batches: Batches) -> Batches:
        total = sparse.csr_matrix(shape)
        for batch in batches:
            lengths = batch["basket"].value_lengths().to_numpy()
            # Cut where the pairs multiplied out would pass the bound.
            group = np.cumsum(lengths.astype(np.int64) ** 2) // _PAIRS
            for start, stop in zip(*_runs(group), strict=True):
                users = batch.slice(start, stop - start)
                with clock("pairs"):
                    total = total + sparse.vstack([weights(users, width) for weights in ways], format="csr")
                if total.nnz > _PAIRS:
                    yield _listed(total)
                    total = sparse.csr_matrix(shape)
        yield _listed(total)

    return add


def _runs(group: Ints) -> tuple[Ints, Ints]:
    """Starts and ends of the runs of equal values."""
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    return starts, np.append(starts[1:], len(group))[: len(starts)]


def _listed(sums: Any) -> pa.RecordBatch:
    """The rows of a sparse matrix that are not empty, as lists of _PIECE at most."""
    starts = np.unique(np.concatenate([sums.indptr[:-1], np.arange(0, sums.nnz, _PIECE)]))
    starts = starts[starts < sums.nnz]
    offsets = pa.array(np.append(starts, sums.nnz).astype(np.int32))
    return pa.RecordBatch.from_pydict({
        "item_idx": pa.array(np.searchsorted(sums.indptr, starts, "right") - 1, pa.int32()),
        "neighbour_idx": pa.ListArray.from_arrays(offsets, pa.array(sums.indices, pa.int32())),
        "weights": pa.ListArray.from_arrays(offsets, pa.array(sums.data, pa.float64())),
    })  # fmt: skip


def cutting(
    is_available: npt.NDArray[np.bool_], *ways: Similarity, most: int, clock: Clock = nullcontext
) -> Callable[[Batches], Batches]:
    """From SUMS in the order of their items to neighbours; item numbers stay those of the ways below one another."""
    width = len(is_available)

    def cut(batches: Batches) -> Batches:
        for rows, columns, weights in _whole_items(batches):
            there = is_available[columns] & (rows % width != columns)
            if not there.any():
                continue
            with clock("pairs"):
                # Added up: an item's weights come from several workers.
                shape = (int(rows[-1] - rows[0]) + 1, width)
                total = sparse.csr_matrix((weights[there], (rows[there] - rows[0], columns[there])), shape=shape)
                items = np.repeat(np.arange(shape[0]) + rows[0], np.diff(total.indptr))
                # The ways lie below one another: where each ends among the entries.
                ends = np.searchsorted(items, width * np.arange(len(ways) + 1))
                similarity = np.concatenate([
                    of(items[start:end] - width * way, total.indices[start:end], total.data[start:end])
                    for way, (of, start, end) in enumerate(zip(ways, ends[:-1], ends[1:], strict=True))
                ])  # fmt: skip
                able = np.zeros(total.nnz, np.bool_)
                kernel.screened(total.indptr, similarity.astype(np.float32), most, able)
                item, neighbour, similarity = nearest(items[able], total.indices[able], similarity[able], most)
            yield pa.RecordBatch.from_pydict({
                "item_idx": pa.array(item, pa.int32()),
                "neighbour_idx": pa.array(neighbour, pa.int32()),
                "similarity": pa.array(similarity, pa.float64()),
            })  # fmt: skip

    return cut


def nearest(rows: Ints, columns: Ints, similarity: Doubles, most: int) -> tuple[Ints, Ints, Doubles]:
    """Of each row the best `most` pairs; rows in order, best first, ties by column."""
    order = np.lexsort((columns, -similarity, rows))
    rows, columns, similarity = rows[order], columns[order], similarity[order]
    kept = np.arange(len(rows)) - np.searchsorted(rows, rows) < most
    return rows[kept], columns[kept], similarity[kept]


def _whole_items(batches: Batches) -> Iterator[tuple[Ints, Ints, Doubles]]:
    """Item, neighbour and weight of batches in the order of their items, about _CUT at once, no item in two."""
    held: list[tuple[Ints, Ints, Doubles]] = []
    for batch in batches:
        held.append(entries(batch))
        if sum(len(rows) for rows, _, _ in held) < _CUT:
            continue
        rows, columns, weights = (np.concatenate(parts) for parts in zip(*held, strict=True))
        # Cut where an item begins: after every _CUT or so, and before the last one, which may go on.
        last = int(np.searchsorted(rows, rows[-1]))
        ends = np.unique(np.append(np.searchsorted(rows, rows[_CUT::_CUT]), last))
        for start, end in zip(np.append(0, ends[:-1]), ends, strict=True):
            if start < end:
                yield rows[start:end], columns[start:end], weights[start:end]
        held = [(rows[last:], columns[last:], weights[last:])]
    if sum(len(rows) for rows, _, _ in held):
        rows, columns, weights = (np.concatenate(parts) for parts in zip(*held, strict=True))
        yield rows, columns, weights


def entries(sums: pa.RecordBatch) -> tuple[Ints, Ints, Doubles]:
    """Item, neighbour and weight of each entry of SUMS."""
    near = sums["neighbour_idx"]
    rows = np.repeat(sums["item_idx"].to_numpy(), near.value_lengths().to_numpy())
    return rows, near.flatten().to_numpy(), sums["weights"].flatten().to_numpy()
