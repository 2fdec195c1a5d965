"""The item side of the candidates stage as arrays: what is sent once to every worker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from nightrec.serving.vectors import Vectors, index_bytes

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]


def matrix(column: pa.ListArray, width: int | None = None) -> tuple[npt.NDArray[np.float32], Bools]:
    """Rows of a column of equally long vectors, and which rows have one; the others are zero.

    `width` is the length to expect; where it is 0 nobody can use the vectors and none is kept.
    """
    has = column.is_valid().to_numpy(zero_copy_only=False).copy()
    values = column.flatten().to_numpy(zero_copy_only=False)
    if width is None:
        width = len(values) // int(has.sum()) if has.any() else 0
    if not width:
        return np.zeros((len(column), 0), np.float32), np.zeros(len(column), np.bool_)
    rows = np.zeros((len(column), width), np.float32)
    rows[has] = values.reshape(-1, width)
    return rows, has


@dataclass(frozen=True)
class Orders:
    """Columns in one order or several, best first, and what to record as their scores: order o is offsets[o] on."""

    offsets: Ints
    columns: Ints
    scores: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Catalogue:
    """N items in the order of their ids, A of them available; `columns` and `column` lead from one to the other."""

    item_id: pa.StringArray  # N, in byte order
    columns: Ints  # A, item number of each column
    factors: Vectors  # N x D
    vectors: Vectors  # N x E
    neighbours: Any  # N x A, sparse rows of similarities above 0
    segments: pa.StringArray  # S
    segment_counts: Any  # S x A, sparse rows of shrunk user counts above 0
    popularity: Ints  # A x 2: recent users, users ever
    editorial: Ints  # A, place in the hand-made list from 0, -1 for none

    @classmethod
    def of(cls, rows: pa.Table, neighbours: pa.Table, segments: pa.Table, editorial: Sequence[str]) -> Catalogue:
        """From items in id order (`item_id`, `is_available`, `recent_user_count`, `user_count`, `factors`, `vector`),
        `neighbours` (`item_idx`, `neighbour_idx`, `similarity`) and `segments` (`segment`, `item_idx`, `users`).

        Ids of the editorial list that are not among the items, or not available, are passed over.
        """
        rows = rows.combine_chunks()
        item_id = rows["item_id"].combine_chunks()
        columns = np.flatnonzero(rows["is_available"].to_numpy())
        column = _column(len(item_id), columns)
        factors, has_factors = matrix(rows["factors"].combine_chunks())
        vectors, has_vector = matrix(rows["vector"].combine_chunks())
        names = pc.unique(segments["segment"]).cast(pa.string()).sort()
        picked = pc.index_in(
            item_id.take(pa.array(columns)), value_set=pa.array(list(dict.fromkeys(editorial)), pa.string())
        )
        return cls(
            item_id,
            columns,
            Vectors(has_factors, factors),
            Vectors(has_vector, vectors),
            _sparse(
                neighbours["item_idx"].to_numpy(),
                column[neighbours["neighbour_idx"].to_numpy()],
                neighbours["similarity"].to_numpy(),
                (len(item_id), len(columns)),
            ),
            names,
            _sparse(
                pc.index_in(segments["segment"], value_set=names).to_numpy(),
                column[segments["item_idx"].to_numpy()],
                segments["users"].to_numpy(),
                (len(names), len(columns)),
            ),
            np.column_stack([rows["recent_user_count"].to_numpy(), rows["user_count"].to_numpy()])[columns],
            pc.fill_null(picked, -1).to_numpy(zero_copy_only=False),
        )

    @property
    def width(self) -> int:
        """A."""
        return len(self.columns)

    @cached_property
    def column(self) -> Ints:
        """N, column of each item, -1 where it is not available."""
        return _column(len(self.item_id), self.columns)

    @property
    def worker_bytes(self) -> int:
        """What item vectors take of a worker that holds them whole: themselves, and an index for each way of use."""
        items, wide, text = len(self.item_id), self.factors.width, self.vectors.width
        return 4 * items * (wide + text) + self.width * (2 * index_bytes(wide) + index_bytes(text))

    @cached_property
    def by_popularity(self) -> Orders:
        """By recent users, then users ever, then id: even items that nobody has touched have their place."""
        order = np.lexsort((np.arange(self.width), -self.popularity[:, 1], -self.popularity[:, 0]))
        return Orders(np.array([0, len(order)]), order, self.popularity[order, 0].astype(np.float32))

    @cached_property
    def by_hand(self) -> Orders:
        """The editorial list."""
        order = np.argsort(self.editorial, kind="stable")[np.count_nonzero(self.editorial < 0) :]
        return Orders(np.array([0, len(order)]), order, (1.0 / (1.0 + self.editorial[order])).astype(np.float32))

    @cached_property
    def by_segment(self) -> Orders:
        """Per segment, by users of the item there, then id."""
        table = self.segment_counts.tocoo()
        scores = table.data.astype(np.float32)
        order = np.lexsort((table.col, -scores, table.row))
        order = order[scores[order] > 0]
        counts = np.bincount(table.row[order], minlength=len(self.segments))
        return Orders(np.concatenate([[0], np.cumsum(counts)]), table.col[order].astype(np.int64), scores[order])


def _column(items: int, columns: Ints) -> Ints:
    column = np.full(items, -1)
    column[columns] = np.arange(len(columns))
    return column


def _sparse(rows: Ints, columns: Ints, values: Floats, shape: tuple[int, int]) -> Any:
    """A sparse matrix of the entries whose item is available."""
    there = columns >= 0
    return sparse.csr_matrix((values[there].astype(np.float64), (rows[there], columns[there])), shape=shape)
