"""spark-submit of one job with a mark on its processes, and what is left of it when it is ended at a point."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import processes
from spark_commands import BIN, CHECKOUT, environment

# From the JVM's start to behind the commit: how far a job is when it is ended. The first two before it opens a table.
POINTS = ("jvm", "driver", "candidates.before_commit", "candidates.after_commit", "ledger.after_commit")


@dataclass(frozen=True)
class Stopped:
    """One job that was ended: by what, at which point, and what was alive 10 s later."""

    signal: str
    point: str
    passed: tuple[str, ...]
    alive: tuple[str, ...]
    seconds_to_end: float


class Submitted:
    """A spark-submit of jobs/candidates.py, which uses Python workers, for one night of a deployment."""

    def __init__(self, deployment: Path, night: str, mark: str, log: Path) -> None:
        self.mark, self._log = mark, log
        log.write_text("")
        words = ["jobs/candidates.py", "--config", str(deployment / "nightrec.toml"), "--date", night]
        more = environment(NIGHTREC_FAILPOINT_LOG=str(log), **{processes.MARK: mark})
        # spark-submit makes a folder before there is a driver: killed, it leaves that.
        more["SPARK_SUBMIT_OPTS"] += f' "-Djava.io.tmpdir={log.parent}"'
        with log.with_suffix(".said").open("wb") as out:
            self.process = subprocess.Popen(
                [str(BIN / "spark-submit"), "--master", "local[2]", "--conf", "spark.driver.memory=1g", *words],
                cwd=CHECKOUT, env=more, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip

    def passed(self) -> tuple[str, ...]:
        """The places it has passed."""
        return tuple(line.split()[1] for line in self._log.read_text().splitlines() if " " in line)

    def reached(self, point: str) -> bool:
        """Wait until it is at a point; False where it ends before."""
        while self.process.poll() is None:
            commands = processes.marked(self.mark).values()
            is_there = {
                "jvm": any("SparkSubmit" in command for command in commands),
                "driver": any("python" in command and "jobs/candidates.py" in command and "SparkSubmit" not in command
                              for command in commands),
            }  # fmt: skip
            if is_there.get(point, point in self.passed()):
                return True
            time.sleep(0.01)
        return False


def stopped(job: Submitted, point: str, with_signal: signal.Signals, draw: random.Random) -> Stopped:
    """End spark-submit itself, the process that was started, up to a second after a point. It must be running then."""
    assert job.reached(point), f"it ended before {point}"
    # The last points lie a moment before its end.
    time.sleep(draw.random() * (1.0 if point in POINTS[:2] else 0.05))
    assert job.process.poll() is None, f"it ended by itself after {point}"
    at = time.monotonic()
    job.process.send_signal(with_signal)
    job.process.wait(timeout=60)
    alive = processes.alive(job.mark)
    return Stopped(with_signal.name, point, job.passed(), tuple(alive), time.monotonic() - at)
