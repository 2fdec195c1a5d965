"""How far a training of the ranker had got: a file per network and per kind of trees of each fold.

FOLDER/fold-1.network_binary.npz is replaced as its network learns (see fit.py for what it holds); the trees of a kind
are written when they are done. All carry the fingerprint of settings and examples, so others never go on from them.
The first process writes what all hold alike and reads it for all, so that they agree; trees are written where they
grew. The number of processes may change; with the same number the weights are, to the bit, those of a training that was
never disturbed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import numpy as np
import numpy.typing as npt

from nightrec import checkpoint_files
from nightrec.config import Ranker
from nightrec.features import FEATURES
from nightrec.lifeline import progress
from nightrec.ranker.dataset import Examples
from nightrec.ranker.texts import Vectors

State = dict[str, npt.NDArray[Any]]
# Bytes of the examples that are read at once for their fingerprint.
_AT_ONCE = 2**26


@dataclass(frozen=True)
class Kept:
    """Where one member of a training is kept: `file` is None where nothing is. A network is saved after so many
    `steps`, and after each epoch."""

    file: Path | None
    mark: str = ""
    steps: int = 1

    def loaded(self) -> State | None:
        """What was kept; None where there is nothing. All processes take part and all get it."""
        found = checkpoint_files.read(self.file, self.mark) if self.file and not hvd.rank() else None
        state: State | None = hvd.broadcast_object(found, 0, name="checkpoint") if self.file else None
        return state

    def keep(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Write in place of what was kept. One process calls it."""
        if self.file:
            checkpoint_files.write(self.file, self.mark, state, "ranker_model")


# Nothing is kept.
NOWHERE = Kept(None)


@dataclass(frozen=True)
class Checkpoint:
    """The files of one training, in a folder that every process reaches; without a folder nothing is kept."""

    folder: Path | None
    mark: str
    steps: int

    @classmethod
    def of(
        cls, folder: Path | None, steps: int, settings: Ranker, examples: Examples, vectors: Vectors | None
    ) -> Checkpoint:
        """The files of a training with those settings on those examples. All processes take part."""
        if folder is None:
            return cls(None, "", steps)
        mark = None
        if not hvd.rank():
            checkpoint_files.sweep(folder)
            mark = _mark(settings, examples, vectors)
        return cls(folder, hvd.broadcast_object(mark, 0, name="mark"), steps)

    def kept(self, part: str, member: str) -> Kept:
        """Where a member is kept that learns from a part of the examples."""
        return Kept(self.folder / f"{part}.{member}.npz" if self.folder else None, self.mark, self.steps)


def _mark(settings: Ranker, examples: Examples, vectors: Vectors | None) -> str:
    digest = hashlib.sha256(f"{settings.model_dump_json()} {FEATURES}".encode())
    for split in (examples.lessons, examples.judged):
        for column in (split.folds, split.lists, split.items, split.labels, split.kinds, split.ratings, split.features):
            _add(digest, column)
    if vectors is not None:
        for table in (vectors.texts, vectors.items, vectors.users, vectors.recent):
            _add(digest, table)
    return digest.hexdigest()


def _add(digest: Any, values: npt.NDArray[Any]) -> None:
    flat = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    digest.update(str(values.shape).encode())
    for start in range(0, len(flat), _AT_ONCE):
        digest.update(flat[start : start + _AT_ONCE].data)
        progress()
