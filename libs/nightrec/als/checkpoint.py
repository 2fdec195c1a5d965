"""A training's state after each iteration, one file per block, so that a training that died goes on where it was.

FOLDER/iteration-0007/block-003.npz holds the block's user and item factors, the losses so far, and a mark: the sha-256
of the objective and the block's entries. Only files whose mark is that of tonight's block count, so other data or
settings never go on from them; the number of processes may change. The last two iterations are kept: the newer one is
complete only when every process has written its blocks.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import horovod.torch as hvd
import numpy as np

from nightrec import checkpoint_files

if TYPE_CHECKING:
    from nightrec.als.exchange import Part
    from nightrec.als.objective import Objective


class Checkpoint:
    """The files of one process's blocks; without a folder nothing is kept."""

    def __init__(self, folder: Path | None, objective: Objective, users: Part, items: Part) -> None:
        self._folder, self._parts = folder, (users, items)
        self._marks = {block: self._mark(objective, block) for block in users.blocks} if folder else {}

    def resume(self, iterations: int) -> list[float]:
        """Load the latest iteration, up to `iterations`, that all processes have; its losses, none where there is none.
        """
        if self._folder is None:
            return []
        if not hvd.rank():
            checkpoint_files.sweep(self._folder)
        found = {int(folder.name.split("-")[1]) for folder in self._folder.glob("iteration-*")}
        found = {iteration for iteration in found if iteration <= iterations}
        mine = {iteration for iteration in found if all(self._read(iteration, block) for block in self._marks)}
        common = set.intersection(*hvd.allgather_object(mine))
        if not common:
            return []
        losses: list[float] = []
        for block in self._marks:
            state = self._read(max(common), block)
            assert state is not None  # it was read a moment ago
            for part, name in zip(self._parts, ("users", "items"), strict=True):
                part.factors[part.own(block)] = state[name]
            losses = state["losses"].tolist()
        # A process without blocks has no file to learn them from.
        return max(hvd.allgather_object(losses), key=len)

    def save(self, losses: list[float]) -> None:
        """Write the state after the iteration that has just ended; the one before stays, older ones go."""
        if self._folder is None:
            return
        for block, mark in self._marks.items():
            file = self._file(len(losses), block)
            users, items = (part.factors[part.own(block)] for part in self._parts)
            state = {"losses": np.array(losses), "users": users, "items": items}
            checkpoint_files.write(file, mark, state, "als_item_factors")
            # All processes have written the last one: this iteration's loss came after it, from all of them.
            self._file(len(losses) - 2, block).unlink(missing_ok=True)

    def _file(self, iteration: int, block: int) -> Path:
        assert self._folder is not None
        return self._folder / f"iteration-{iteration:04d}" / f"block-{block:03d}.npz"

    def _read(self, iteration: int, block: int) -> dict[str, np.ndarray] | None:
        """A block's state, None where its file is missing, broken or of other data or settings."""
        return checkpoint_files.read(self._file(iteration, block), self._marks[block])

    def _mark(self, objective: Objective, block: int) -> str:
        digest = hashlib.sha256(repr(objective).encode())
        for part in self._parts:
            own = part.own(block)
            starts = part.rows.starts[own.start : own.stop + 1]
            entries = slice(starts[0], starts[-1])
            told = (np.array(part.factors.shape[1:]), starts - starts[0], part.rows.columns[entries])
            for values in (*told, part.rows.weights[entries]):
                digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()
