"""What the training processes give each other: factors of a side, whole or block by block, and sums over blocks.

Nothing passes through the driver. Sums over blocks are taken in the order of the blocks, whoever holds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import horovod.torch as hvd
import numpy as np
import torch

from nightrec.als.blocks import Side
from nightrec.als.objective import Doubles, Floats, Rows
from nightrec.als.shared import shared_matrix

# Rows squared at once: their copy in double stays small beside the factors.
SQUARED = 16_384


@dataclass(frozen=True)
class Part:
    """One process's part of a side: its blocks, their rows and their factors; and which blocks each process has.

    Where the side may be held whole, `factors` are the process's own rows of `whole`, which all processes of a host
    share: what one of them solves lies where the others read it.
    """

    side: Side
    blocks: range
    rows: Rows
    factors: Floats
    held: list[range]  # by rank
    whole: Floats | None

    @classmethod
    def of(cls, side: Side, blocks: range, rows: Rows, width: int, held: list[range], gathered_bytes: int) -> Part:
        """Start from zeros; whole where the side takes no more than `gathered_bytes`. All processes decide alike."""
        if side.count * width * np.dtype(np.float32).itemsize > gathered_bytes:
            return cls(side, blocks, rows, np.zeros((len(rows.lengths), width), np.float32), held, None)
        whole = shared_matrix(side.count, width)
        return cls(side, blocks, rows, whole[_rows(side, blocks)], held, whole)

    def own(self, block: int) -> slice:
        """A block's rows among the process's own."""
        start = self.side.start(block) - self.side.start(self.blocks.start)
        return slice(start, start + self.side.size(block))

    def settle(self) -> None:
        """Wait until all processes have solved their rows, and have those of other hosts come. All take part."""
        if self.whole is None:
            return
        if hvd.local_size() == hvd.size():
            hvd.barrier()
            return
        for rank, blocks in enumerate(self.held):
            # Processes of one host receive the same bytes in the same place.
            _from(rank, self.whole[_rows(self.side, blocks)])

    def pieces(self) -> Iterator[tuple[int, Floats]]:
        """Each block that a process holds, in order: the place of its first row, and its factors, from the shared
        matrix or from the process that holds it. All take part; `settle` comes before."""
        for block, rank in sorted((block, rank) for rank, blocks in enumerate(self.held) for block in blocks):
            rows = self.side.slice(block)
            if self.whole is not None:
                yield rows.start, self.whole[rows]
            elif rank == hvd.rank():
                yield rows.start, _from(rank, self.factors[self.own(block)])
            else:
                yield rows.start, _from(rank, np.empty((self.side.size(block), self.factors.shape[1]), np.float32))


def _rows(side: Side, blocks: range) -> slice:
    return slice(side.start(blocks.start), side.start(blocks.stop))


def _from(rank: int, rows: Floats) -> Floats:
    """The rows as the process of that rank has them; in place."""
    if rows.size and hvd.size() > 1:
        hvd.broadcast_(torch.from_numpy(rows), rank)
    return rows


@dataclass(frozen=True)
class Squares:
    """X'X (D x D) of each of the process's blocks, and over all blocks of all processes."""

    own: dict[int, Doubles]
    total: Doubles

    @classmethod
    def of(cls, part: Part) -> Squares:
        """Square a side's factors."""
        own = {block: _square(part.factors[part.own(block)]) for block in part.blocks}
        return cls(own, np.asarray(over_blocks(own)))


def over_blocks(own: dict[int, Any]) -> Any:
    """The sum of one value per block over the blocks of all processes, in the order of the blocks."""
    every = {block: value for one in hvd.allgather_object(own) for block, value in one.items()}
    return sum((every[block] for block in sorted(every)[1:]), start=every[min(every)])


def _square(factors: Floats) -> Doubles:
    total = np.zeros((factors.shape[1], factors.shape[1]))
    for start in range(0, len(factors), SQUARED):
        wide = factors[start : start + SQUARED].astype(np.float64)
        total += wide.T @ wide
    return total
