"""Folders for temporary files that no killed process leaves for good.

Whoever makes one holds a lock on it, which the kernel lets go of however its holder ends. Whoever makes the next one
beside it first removes those that nobody holds.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "nightrec-scratch-"
# Of this process, each with its lock and the process that made it: a fork has inherited them, and they are not its own.
_lasting: dict[Path, tuple[int, int]] = {}


@contextmanager
def folder() -> Iterator[Path]:
    """An empty folder among the temporary files (TMPDIR), until the `with` ends."""
    made, lock = _made(tempfile.gettempdir())
    try:
        yield made
    finally:
        shutil.rmtree(made)
        os.close(lock)


def lasting(root: str | None = None) -> Path:
    """An empty folder in `root`, else among the temporary files (TMPDIR), until this process ends or calls `clear`.

    Raises OSError where none can be made.
    """
    made, lock = _made(root or tempfile.gettempdir())
    _lasting[made] = (lock, os.getpid())
    return made


@atexit.register
def clear() -> None:
    """Remove the lasting folders of this process, and what killed ones have left among the temporary files: by itself
    at its end, unless that is os._exit."""
    for made, (lock, owner) in list(_lasting.items()):
        if owner == os.getpid():
            shutil.rmtree(made, ignore_errors=True)
            os.close(lock)
            del _lasting[made]
    _sweep(Path(tempfile.gettempdir()))


def _made(root: str) -> tuple[Path, int]:
    """A new folder in `root`, and the descriptor of its lock; those that nobody holds are gone then."""
    Path(root).mkdir(parents=True, exist_ok=True)
    _sweep(Path(root))
    while True:
        made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
        try:
            return made, _locked(made)
        except (BlockingIOError, FileNotFoundError):
            continue  # another has taken it for one that was left, and removes it
        except OSError:
            # A file system without locks: nobody can take it, and a killed process leaves it.
            return made, os.open(made, os.O_RDONLY)


def _sweep(root: Path) -> None:
    """Remove the folders in `root` that nobody holds."""
    for left in root.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # another's, held or just gone
            lock = _locked(left)
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)


def _locked(made: Path) -> int:
    """A lock on a folder, by its descriptor. Raises BlockingIOError where another process has it, FileNotFoundError
    where it is gone, else OSError where there are no locks."""
    descriptor = os.open(made, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        made.stat()
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
