"""The line itself, between this process and plain ones: who may speak, and who ends when the other is gone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from nightrec.errors import BadInput, TrainingFailed
from nightrec.lifeline import End, Watch

# A training process: what it does on its line is the last argument.
PROCESS = """
import sys, time, os
from nightrec.errors import BadInput
from nightrec.lifeline import End, Line, progress
line = Line(End(("127.0.0.1", int(sys.argv[1])), sys.argv[2]), int(sys.argv[3]))
exec(sys.argv[4])
line.close()
"""


def process(end: End, rank: int, does: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", PROCESS, str(end.address[1]), end.secret, str(rank), does])


def watched(*does: str, deadline_s: float | None = None) -> tuple[Watch, list[int]]:
    """What a watch found of processes that did so, and how each ended; none may outlive it."""
    ended: list[str] = []
    with Watch("127.0.0.1", len(does), deadline_s, lambda: ended.append("end")) as watch:
        running = [process(watch.end_for("127.0.0.1"), rank, one) for rank, one in enumerate(does)]
        codes = [one.wait(timeout=60) for one in running]
        watch.settle()
    return watch, codes


def test_processes_that_end_in_order_leave_nothing_to_tell() -> None:
    watch, codes = watched("progress()", "time.sleep(0.3)")
    assert codes == [0, 0] and watch.error() is None and watch.report() == ""


def test_a_user_s_mistake_keeps_its_class_and_other_errors_their_sentence() -> None:
    watch, _ = watched("line.failed(BadInput('no file'), False)", "line.failed(OSError('partner'), True)")
    assert isinstance(found := watch.error(), BadInput) and str(found) == "no file"
    watch, _ = watched("line.failed(OSError('partner'), True)", "line.failed(OSError('x' * 10**6), False)")
    assert isinstance(found := watch.error(), TrainingFailed)
    assert str(found).startswith("training process 1 of 2 (pid ") and "failed: OSError: xxx" in str(found)


def test_two_that_wait_for_each_other_are_both_named() -> None:
    watch, codes = watched("time.sleep(60)", "time.sleep(60)", deadline_s=1)
    assert codes == [-signal.SIGKILL] * 2
    said = str(watch.error())
    assert "training process 0 of 2" in said and "training process 1 of 2" in said and "for 1 s" in said


def test_a_process_that_never_came_is_named() -> None:
    with Watch("127.0.0.1", 2, 1, lambda: None) as watch:
        only = process(watch.end_for("127.0.0.1"), 0, "time.sleep(60)")
        assert only.wait(timeout=60) == -signal.SIGKILL
        watch.settle()
    assert str(watch.error()).startswith("training process 1 of 2 never came")


def test_a_process_ends_itself_when_its_driver_is_gone() -> None:
    driver = """
import sys, time
from nightrec.lifeline import Watch
with Watch("127.0.0.1", 1, None, lambda: None) as watch:
    end = watch.end_for("127.0.0.1")
    print(end.address[1], end.secret, flush=True)
    time.sleep(60)
"""
    running = subprocess.Popen([sys.executable, "-c", driver], stdout=subprocess.PIPE)
    assert running.stdout
    port, secret = running.stdout.readline().decode().split()
    trained = process(End(("127.0.0.1", int(port)), secret), 0, "print('here', flush=True); time.sleep(60)")
    time.sleep(1)
    assert trained.poll() is None
    os.kill(running.pid, signal.SIGKILL)
    assert trained.wait(timeout=10) == -signal.SIGKILL
    running.wait()


@pytest.mark.parametrize(
    "said",
    [
        json.dumps({"secret": "guessed", "rank": 0, "host": "h", "pid": 1}).encode() + b"\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"x" * 5000,
        b'{"secret": null, "rank": 0}\n',
        b"[1]\n",
    ],
    ids=["secret", "http", "long", "null", "list"],
)
def test_strangers_are_not_heard(said: bytes) -> None:
    with Watch("127.0.0.1", 1, None, lambda: None) as watch:
        address = watch.end_for("127.0.0.1").address
        with socket.create_connection(address, timeout=10) as stranger:
            stranger.sendall(said)
            with suppress(ConnectionResetError):
                assert stranger.recv(10) == b""  # shut
        own = process(watch.end_for("127.0.0.1"), 0, "pass")
        assert own.wait(timeout=60) == 0
        watch.settle()
    assert watch.error() is None and watch.report() == ""
