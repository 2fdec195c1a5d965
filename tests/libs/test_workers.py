"""What the workers of a whole night are forked with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

import pyarrow as pa
from processes import MARK, alive, marked

JVM = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-m", "nightrec.workers", "pyspark.worker"], stdin=subprocess.PIPE)
time.sleep(60)
"""


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


def test_it_does_not_load_on_for_a_jvm_that_was_killed() -> None:
    jvm = subprocess.Popen([sys.executable, "-c", JVM], env={**os.environ, MARK: "killed-jvm"})
    while len(marked("killed-jvm")) < 2:
        time.sleep(0.01)
    time.sleep(0.3)  # its interpreter is up, and loads
    jvm.send_signal(signal.SIGKILL)
    jvm.wait()
    assert not alive("killed-jvm", within_s=1)
