"""Who holds what while factors are trained: users and items dealt to blocks, blocks to processes.

Row r of a side belongs to block r mod B and is number r div B there. A side's factors lie block after block in one
matrix, of which every process holds the rows of its own blocks, which follow one another. Which process holds a block
changes nothing but who computes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nightrec.als import kernel
from nightrec.als.objective import Ints, Rows
from nightrec.lifeline import progress

ENTRIES = pa.schema(
    {"block": pa.int32(), "is_item": pa.bool_(), "row": pa.int32(), "column": pa.int32(), "weight": pa.float32()}
)


@dataclass(frozen=True)
class Side:
    """`count` rows (users or items) in `blocks` blocks."""

    count: int
    blocks: int

    def size(self, block: int) -> int:
        """Rows of a block."""
        return (self.count - block + self.blocks - 1) // self.blocks

    def start(self, block: int) -> int:
        """Place of a block's first row in the matrix."""
        return block * (self.count // self.blocks) + min(block, self.count % self.blocks)

    def slice(self, block: int) -> slice:
        """A block's rows in the matrix."""
        return slice(self.start(block), self.start(block) + self.size(block))

    def places(self) -> npt.NDArray[np.int32]:
        """`count`: the place in the matrix of each row by number."""
        rows = np.arange(self.count)
        starts = np.array([self.start(block) for block in range(self.blocks)], np.int64)
        return (starts[rows % self.blocks] + rows // self.blocks).astype(np.int32)


@dataclass(frozen=True)
class Entries:
    """The entries of one process's blocks, as they came: 13 bytes each, an entry once for its user and once for its
    item in all processes together."""

    batches: list[tuple[Ints, Ints, npt.NDArray[np.float32], npt.NDArray[np.bool_]]]
    blocks: range
    users: int  # one more than the highest user number among them

    @classmethod
    def of(cls, batches: Iterator[pa.RecordBatch]) -> Entries:
        """Read batches of ENTRIES."""
        kept, blocks, users = [], set(), 0
        for batch in batches:
            progress()
            if not batch.num_rows:
                continue
            told = batch.cast(ENTRIES)
            is_item = told["is_item"].to_numpy(zero_copy_only=False)
            row, column = told["row"].to_numpy(), told["column"].to_numpy()
            blocks.update(np.unique(told["block"].to_numpy()).tolist())
            users = max(users, int(np.where(is_item, column, row).max()) + 1)
            kept.append((row.copy(), column.copy(), told["weight"].to_numpy().copy(), is_item))
        return cls(kept, range(min(blocks), max(blocks) + 1) if blocks else range(0), users)

    def rows(self, side: Side, other: Side, *, of_items: bool) -> Rows:
        """One side's entries as compressed rows of the process's blocks, columns as places on the other side.

        Counted, placed, and sorted within each row: nothing but the 8 bytes an entry keeps is added.
        """
        first = side.start(self.blocks.start)
        places, others = side.places() - np.int32(first), other.places()
        starts = np.zeros(side.start(self.blocks.stop) - first + 1, np.int64)
        for row, _, _, is_item in self.batches:
            kernel.count_rows(places, row, is_item, of_items, starts[1:])
        np.cumsum(starts, out=starts)
        columns, weights, heads = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.float32), starts[:-1].copy()
        for row, column, weight, is_item in self.batches:
            kernel.place_entries(places, others, row, column, weight, is_item, of_items, heads, columns, weights)
        kernel.sort_rows(starts, columns, weights)
        return Rows(starts, columns, weights)
