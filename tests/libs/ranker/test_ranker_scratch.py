"""Temporary folders of processes that were killed are removed by the next one; those of living ones are not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nightrec.ranker.scratch import scratch

KILLED = """
import os, signal
from nightrec.ranker.scratch import scratch
with scratch() as folder:
    (folder / "features").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with scratch() as own:
        (own / "x").write_text("x")
        here = {"TMPDIR": str(tmp_path)}
        for _ in range(2):
            subprocess.run([sys.executable, "-c", KILLED], env=os.environ | here, check=False, timeout=60)
        left = set(tmp_path.iterdir())
        # Each has removed the one before, and not that of a living process.
        assert own in left and len(left) == 2
        with scratch() as second:
            assert set(tmp_path.iterdir()) == {own, second} and (own / "x").exists()
    assert not list(tmp_path.iterdir())
