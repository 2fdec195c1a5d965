"""Temporary folders of processes that were killed are removed by the next one; those of living ones are not."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nightrec import scratch

KILLED = """
import os, signal
from nightrec import scratch
(scratch.lasting() / "spilled").write_text("half")
with scratch.folder() as folder:
    (folder / "features").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""

FORKED = """
import os
from nightrec import scratch
folder = scratch.lasting()
if not os.fork():
    scratch.clear()
    os._exit(0)
os.wait()
print(folder.exists())
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    # The test run's own session has a folder too, and goes on.
    monkeypatch.setattr(scratch, "_lasting", {})
    return tmp_path


def told(code: str, folder: Path) -> str:
    """What Python code says whose temporary files lie in a folder."""
    here = {"TMPDIR": str(folder)}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=os.environ | here, check=False, timeout=60, text=True, stdout=subprocess.PIPE
    ).stdout


def test_what_a_killed_process_left_goes(temporary: Path) -> None:
    with scratch.folder() as own:
        (own / "x").write_text("x")
        for _ in range(2):
            told(KILLED, temporary)
        left = set(temporary.iterdir())
        # Each has removed those of the one before, and not that of a living process.
        assert own in left and len(left) == 3
        with scratch.folder() as second:
            assert set(temporary.iterdir()) == {own, second} and (own / "x").exists()
    assert not list(temporary.iterdir())


def test_a_lasting_folder_goes_with_its_process_and_not_with_a_fork(temporary: Path) -> None:
    assert told(FORKED, temporary) == "True\n"
    assert not list(temporary.iterdir())


def test_a_folder_for_what_spark_spills_is_made_where_it_is_asked_for(temporary: Path) -> None:
    made = scratch.lasting(str(temporary / "disk/spill"))
    assert made.parent == temporary / "disk/spill" and not list(made.iterdir())
    scratch.clear()
    assert not made.exists()


def test_a_file_system_without_locks_has_folders_too(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refused)
    with scratch.folder() as one, scratch.folder() as other:
        assert one.exists() and other.exists()
