"""Vectors of the items, and the best items of each list by them: whole in memory, or block by block from a file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nightrec.serving.inner_product import COLUMNS, Index, search

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Vectors:
    """Vectors (D wide) of the N items; zero where an item has none.

    `file` names a numpy file that Spark has laid beside every worker: all workers of a host share its pages, and the
    kernel takes them back when memory is short. `step` items of it are then searched at once, 0 for all.
    """

    has: Bools  # N
    held: Floats | None  # N x D, None where they lie in `file`
    file: str = ""
    step: int = 0

    @cached_property
    def rows(self) -> Floats:
        """N x D."""
        if self.held is not None:
            return self.held
        from pyspark import SparkFiles

        return np.asarray(np.load(SparkFiles.get(self.file), mmap_mode="r"))

    @property
    def width(self) -> int:
        """D."""
        return int(self.rows.shape[1])

    def in_file(self, path: Path, limit: int) -> Vectors:
        """The same, written to `path`; about `limit` bytes of a block of them and its index are held while searched."""
        np.save(path, self.rows)
        step = max(COLUMNS, limit // index_bytes(self.width))
        return Vectors(self.has, None, path.name, step)

    def best(
        self, columns: Ints, queries: Floats, offsets: Ints, masked: Ints, count: int, *, is_cosine: bool
    ) -> tuple[npt.NDArray[np.int32], Floats]:
        """Columns and scores (R x K) as of `inner_product.search`, where column c is the item number columns[c].

        Items without a vector are never among them. Blocks are merged by score, then column, as within a block.
        """
        there = np.flatnonzero(self.has[columns])
        step = self.step or max(len(there), 1)
        found = np.full((len(queries), count), -1, np.int32), np.full((len(queries), count), -np.inf, np.float32)
        for start in range(0, len(there), step):
            part = there[start : start + step]
            # Column of the catalogue -> column of the index; the last cell is for the masked that are no column: -1.
            local = np.full(len(columns) + 1, -1, np.int32)
            local[part] = np.arange(len(part), dtype=np.int32)
            index = self._index(columns[part], is_cosine)
            near, scores = search(index, queries, offsets, local[masked], count)
            found = _merged(found, (np.where(near < 0, -1, part[near]).astype(np.int32), scores))
        return found

    def _index(self, items: Ints, is_cosine: bool) -> Index:
        if self.step:
            return Index.of(self.rows[items], is_cosine=is_cosine)
        if is_cosine not in self._whole:
            self._whole[is_cosine] = Index.of(self.rows[items], is_cosine=is_cosine)
        return self._whole[is_cosine]

    @cached_property
    def _whole(self) -> dict[bool, Index]:
        return {}


def index_bytes(width: int) -> int:
    """Bytes per item of the largest index, and of the copy of the vectors that it is made from."""
    return 12 * width + 36


def _merged(
    one: tuple[npt.NDArray[np.int32], Floats], other: tuple[npt.NDArray[np.int32], Floats]
) -> tuple[npt.NDArray[np.int32], Floats]:
    """The best K of two lists of K each, by score, then column."""
    if (one[0] < 0).all():
        return other
    columns, scores = (np.concatenate(pair, axis=1) for pair in zip(one, other, strict=True))
    order = np.lexsort((columns, -scores), axis=1)[:, : one[0].shape[1]]
    return np.take_along_axis(columns, order, 1), np.take_along_axis(scores, order, 1)
