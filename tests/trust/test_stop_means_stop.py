"""When spark-submit is ended, by SIGTERM or SIGKILL, nothing of the job is left: no driver, no worker, no lock.

Two points for each signal here; twenty in `make soak`. The driver without its death signal is the broken variant.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import checker
import processes
import pytest
from deployments import Base
from submitted import POINTS, Submitted, stopped
from witness import look

from nightrec.store import Store

CHOSEN = (POINTS[1], POINTS[4])


@pytest.mark.timeout(600)
@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGKILL], ids=lambda sent: sent.name)
def test_nothing_outlives_spark_submit(base: Base, ended_by: signal.Signals, tmp_path: Path) -> None:
    shop, draw = base.copy(2, tmp_path / "shop"), random.Random(ended_by)
    for point in CHOSEN:
        job = Submitted(shop, base.nights[1], f"stop-{ended_by}-{point}", tmp_path / point)
        found = stopped(job, point, ended_by, draw)
        assert not found.alive, found
        assert found.seconds_to_end < 10, found
        # the warehouse is free at once, and what the dead one left is cleared away by whoever opens it
        Store(None, str(shop / "warehouse"), "next").close()  # type: ignore[arg-type]
        assert not checker.temporary(shop)
    assert look(str(shop / "warehouse/published_topk")).digest == base.lawful[2]
    assert not checker.doubled(str(shop / "warehouse"))


ORPHAN = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]])
time.sleep(60)
"""
LIVES = "import sys, time; from pathlib import Path; Path(sys.argv[1]).touch(); time.sleep(30)"
DIES = f"from nightrec.parent import die_with_parent; die_with_parent(); {LIVES}"


def test_a_driver_that_asks_for_no_death_signal_is_caught(tmp_path: Path) -> None:
    """The check that nothing is left finds a driver that lives on, and not one that has asked the kernel to end it."""
    for driver, outlives in ((LIVES, True), (DIES, False)):
        mark, ready = f"orphan-{outlives}", tmp_path / f"{outlives}"
        more = {**os.environ, processes.MARK: mark}
        parent = subprocess.Popen([sys.executable, "-c", ORPHAN, driver, ready], env=more)
        while not ready.exists():
            time.sleep(0.05)
            assert parent.poll() is None
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        left = processes.alive(mark, 2)
        assert bool(left) == outlives
        for line in left:
            os.kill(int(line.split()[0]), signal.SIGKILL)
