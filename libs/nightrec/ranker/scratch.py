"""A folder for what the training processes of a host map into memory, which no killed process leaves for good."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "nightrec-examples-"


@contextmanager
def scratch() -> Iterator[Path]:
    """An empty folder among the temporary files (TMPDIR), until the `with` ends. Those that killed processes have left
    there are removed first: the kernel has let go of their locks."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if (lock := _locked(left)) is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)
    lock = None
    while lock is None:
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = _locked(folder)  # not, where another process has taken it for one that was left
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        os.close(lock)


def _locked(folder: Path) -> int | None:
    """A lock on a folder, by its descriptor; None where another process has it or the folder is gone."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        if folder.exists():
            return descriptor
        os.close(descriptor)
    return None
