"""Who holds what while factors are trained: users and items dealt to blocks, blocks to processes.

Row r of a side belongs to block r mod B and is number r div B there. A side's factors lie block after block in one
matrix, so a block's rows are one slice of it. Which process holds a block changes nothing but who computes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.integer]


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
        return sum(self.size(before) for before in range(block))

    def slice(self, block: int) -> slice:
        """A block's rows in the matrix."""
        return slice(self.start(block), self.start(block) + self.size(block))

    def places(self, rows: Ints) -> npt.NDArray[np.int64]:
        """Places in the matrix of rows by number."""
        starts = np.array([self.start(block) for block in range(self.blocks)], np.int64)
        return starts[rows % self.blocks] + rows // self.blocks
