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

# Rows squared at once: their copy in double stays small beside the factors.
SQUARED = 16_384


@dataclass(frozen=True)
class Part:
    """One process's part of a side: its blocks, their rows and their factors; and which blocks each process has."""

    side: Side
    blocks: range
    rows: Rows
    factors: Floats
    held: list[range]  # by rank

    def own(self, block: int) -> slice:
        """A block's rows among the process's own."""
        start = self.side.start(block) - self.side.start(self.blocks.start)
        return slice(start, start + self.side.size(block))


class Fixed:
    """The side that a half-step does not change: in every process whole, where it may be, else block by block."""

    def __init__(self, part: Part, gathered_bytes: int) -> None:
        """Gather the side where its factors take no more than `gathered_bytes`. All processes decide alike."""
        self._part = part
        self.count, width = part.side.count, part.factors.shape[1]
        self.whole: Floats | None = None
        if self.count * width * part.factors.itemsize <= gathered_bytes:
            self.whole = np.zeros((self.count, width), np.float32)
            for rank, blocks in enumerate(part.held):
                rows = slice(part.side.start(blocks.start), part.side.start(blocks.stop)) if blocks else slice(0, 0)
                if blocks == part.blocks:
                    self.whole[rows] = part.factors
                _from(rank, self.whole[rows])

    def pieces(self) -> Iterator[tuple[int, Floats]]:
        """Each block that a process holds, in order: the place of its first row, and its factors. All take part."""
        part, width = self._part, self._part.factors.shape[1]
        for block, rank in sorted((block, rank) for rank, blocks in enumerate(part.held) for block in blocks):
            rows = part.side.slice(block)
            if self.whole is not None:
                yield rows.start, self.whole[rows]
            elif rank == hvd.rank():
                yield rows.start, _from(rank, part.factors[part.own(block)])
            else:
                yield rows.start, _from(rank, np.empty((part.side.size(block), width), np.float32))


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
