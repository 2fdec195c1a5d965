"""What the workers of a whole night are forked with."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from processes import MARK, alive, marked

JVM = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-m", "nightrec.workers", "pyspark.worker"], stdin=subprocess.PIPE)
time.sleep(60)
"""


@pytest.fixture
def socket_dir() -> Iterator[str]:
    """A folder of a short path: that of a socket may have 107 bytes, and a test's own folder leaves too few."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield folder


def test_preloaded_libraries_stay_out_of_garbage_collection(spark: Any) -> None:
    def look(batches: Any) -> Any:
        import gc
        import sys

        for _ in batches:
            yield pa.record_batch({"frozen": [gc.get_freeze_count()], "torch": ["torch" in sys.modules]})

    seen = spark.range(1).mapInArrow(look, "frozen long, torch boolean").first()
    # torch, transformers and numba are some 800,000 objects
    assert seen.torch and seen.frozen > 300_000, seen


def test_no_row_goes_through_a_port(spark: Any) -> None:
    def look(batches: Any) -> Any:
        import psutil  # type: ignore[import-untyped]

        for _ in batches:
            kinds = [str(one.family.name) for one in psutil.Process().net_connections("all")]
            yield pa.record_batch({"kinds": [kinds]})

    seen = spark.range(1).mapInArrow(look, "kinds array<string>").first()
    assert seen.kinds and set(seen.kinds) == {"AF_UNIX"}, seen


def test_a_worker_that_is_not_needed_ends_without_a_word(socket_dir: str) -> None:
    variables = {
        "PYTHON_UNIX_DOMAIN_ENABLED": "true", "PYTHON_WORKER_FACTORY_SOCK_DIR": socket_dir,
        "PYTHON_DAEMON_KILL_WORKER_ON_FLUSH_FAILURE": "1", "SPARK_REUSE_WORKER": "1",
    }  # fmt: skip
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-m", "nightrec.daemon", "pyspark.worker"]
    with subprocess.Popen(command, env={**os.environ, **variables}, **pipes) as parent:  # type: ignore[call-overload]
        (length,) = struct.unpack("!i", parent.stdout.read(4))
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(parent.stdout.read(length).decode())
            (worker,) = struct.unpack("!i", line.recv(4))
        while Path(f"/proc/{worker}").exists():
            time.sleep(0.01)
        assert parent.communicate() == (b"", b"")


def test_it_does_not_load_on_for_a_jvm_that_was_killed() -> None:
    jvm = subprocess.Popen([sys.executable, "-c", JVM], env={**os.environ, MARK: "killed-jvm"})
    while len(marked("killed-jvm")) < 2:
        time.sleep(0.01)
    time.sleep(0.3)  # its interpreter is up, and loads
    jvm.send_signal(signal.SIGKILL)
    jvm.wait()
    assert not alive("killed-jvm", within_s=1)
