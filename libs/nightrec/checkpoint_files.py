"""Files that say how far a training or an ablation had got: arrays of numbers, whole or not there, and of one alone.

A file carries a mark, the fingerprint of the data and settings it came from: under another mark it is not found. It is
written under a hidden name and then renamed, so a process that is killed meanwhile leaves the one before in place.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nightrec.failpoint import reach

Arrays = Mapping[str, npt.NDArray[Any]]


def write(file: Path, mark: str, arrays: Arrays, stage: str) -> None:
    """Put arrays in place of what the file held before."""
    file.parent.mkdir(parents=True, exist_ok=True)
    hidden = file.with_name(f".{file.name}.{os.getpid()}")
    with hidden.open("wb") as handle:
        np.savez(handle, allow_pickle=False, **{"mark": np.array(mark), **arrays})
    reach(f"{stage}.in_checkpoint")
    hidden.replace(file)
    reach(f"{stage}.after_checkpoint")


def read(file: Path, mark: str) -> dict[str, npt.NDArray[Any]] | None:
    """The arrays; None where the file is missing, broken, or of other data or settings."""
    try:
        with np.load(file, allow_pickle=False) as found:
            arrays = dict(found)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return None
    return arrays if str(arrays.pop("mark", None)) == mark else None


def sweep(folder: Path) -> None:
    """Remove what processes that were killed while they wrote have left."""
    for hidden in folder.rglob(".*.npz.*"):
        hidden.unlink(missing_ok=True)
