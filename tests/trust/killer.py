"""A seeded killer of whole process trees: `nightrec run` as a person starts it, killed at random, and run again.

Each run is to be killed once: after a random number of places (see nightrec.failpoint) that it passes, and a random
part of a second later, one of its processes gets SIGKILL. The same seed draws the same targets and moments. Every kill
is written down with its time, its step and what it hit; one that hit nothing is a failure.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import processes
from spark_commands import BIN, environment

END_S = 600.0
GRACE_S = 10.0


@dataclass(frozen=True)
class Kill:
    """One kill: what was hit after which place, when, how the run then ended and what was alive 10 s later."""

    number: int
    target: str
    pid: int
    command: str
    step: str
    passed: int
    at: float
    code: int
    seconds: float
    alive: tuple[str, ...]
    said: str

    @property
    def complaints(self) -> list[str]:
        """What is wrong with how it went: it hit nothing, or something of the run lived on."""
        found = [] if self.pid else [f"kill {self.number} of {self.target} hit nothing: the run ended with {self.code}"]
        if self.pid and self.target in ("driver", "jvm") and not self.code:
            found.append(f"kill {self.number}: the run ended well without its {self.target}")
        late = f"still alive after {GRACE_S:.0f} s"
        return found + [f"kill {self.number} of {self.target}: {late}: {one}" for one in self.alive]

    def as_dict(self) -> dict[str, Any]:
        """For a result file."""
        return {**asdict(self), "said": self.said[-200:] if self.code not in (0, -signal.SIGKILL) else ""}


Find = Callable[[Mapping[int, str], "Run"], Sequence[int]]


def _jvms(running: Mapping[int, str], run: Run) -> list[int]:
    return [pid for pid, command in running.items() if "org.apache.spark.deploy.SparkSubmit" in command]


def _daemons(running: Mapping[int, str], run: Run) -> list[int]:
    """What Python workers are forked from; they carry its command line."""
    found = _pythons(running)
    return [pid for pid in found if parent(pid) not in found]


def _workers(running: Mapping[int, str], run: Run) -> list[int]:
    found = _pythons(running)
    return [pid for pid in found if parent(pid) in found]


def _pythons(running: Mapping[int, str]) -> set[int]:
    return {pid for pid, command in running.items() if "nightrec.workers" in command or "pyspark.daemon" in command}


def _executors(running: Mapping[int, str], run: Run) -> list[int]:
    return [pid for pid, command in running.items() if "CoarseGrainedExecutorBackend" in command]


def _ranks(running: Mapping[int, str], run: Run) -> list[int]:
    """The training process that has just passed a place of its own."""
    return [pid for pid, _ in run.passed() if pid != run.process.pid][-1:]


# What may be hit, and how its processes are known.
TARGETS: dict[str, Find] = {
    "driver": lambda processes, run: [run.process.pid],
    "jvm": _jvms, "worker": _workers, "daemon": _daemons, "rank": _ranks, "executor": _executors,
}  # fmt: skip


def parent(pid: int) -> int:
    """Who started a process; 0 where it is gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except (OSError, IndexError):
        return 0


class Run:
    """One `nightrec run`, from a stage `since` on or from where the night stands: all its processes carry a mark, and a
    log has the places that they pass. Their temporary files lie in a folder of the machine's, or in `temporary`."""

    def __init__(
        self, deployment: Path, night: str, mark: str, log: Path, since: str = "", temporary: str = ""
    ) -> None:
        self.mark, self.log, self.started = mark, log, time.monotonic()
        log.write_text("")
        self._said = log.with_suffix(".said")
        more = environment(NIGHTREC_FAILPOINT_LOG=str(log), **{processes.MARK: mark})
        more |= {"TMPDIR": temporary} if temporary else {}
        command = [str(BIN / "nightrec"), "run", "--config", str(deployment / "nightrec.toml"), "--date", night]
        command += ["--from", since] if since else []
        with self._said.open("wb") as out:
            self.process = subprocess.Popen(
                command, env=more, cwd=deployment, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )

    def passed(self) -> list[tuple[int, str]]:
        """The places passed so far, each with the process that passed it."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [(int(line[0]), line[1]) for line in lines if len(line) == 2]

    def places(self, of_ranks: bool = False) -> list[str]:
        """Names of the places passed so far, by training processes or by the driver."""
        return [place for pid, place in self.passed() if (pid != self.process.pid) == of_ranks]

    def reached(self, count: int, of_ranks: bool) -> bool:
        """Wait until so many places are passed; False where the run ends before."""
        deadline = time.monotonic() + END_S
        while time.monotonic() < deadline:
            if len(self.places(of_ranks)) >= count:
                return True
            if self.process.poll() is not None:
                return False
            time.sleep(0.01)
        raise AssertionError(f"nothing got on for {END_S:.0f} s: {self.said()[-2000:]}")

    def said(self) -> str:
        """What it printed."""
        return self._said.read_text(errors="replace")

    def end(self) -> int:
        """Its exit code, when it has ended; one that hangs is ended with 124."""
        try:
            return self.process.wait(timeout=END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return 124


def kill(run: Run, number: int, target: str, draw: random.Random, ahead: int) -> Kill:
    """Kill one process of a run after up to `ahead` places; the run must be running.

    A training process after up to 40 places of its own, at once: two of them pass some 50 in factorizing, in a second.
    """
    of_ranks = target == "rank"
    went_on = run.reached(draw.randint(1, 40 if of_ranks else max(ahead, 1)), of_ranks)
    time.sleep(0.0 if of_ranks else 0.7 * draw.random())
    hit, command, at = 0, "", time.time()
    deadline = time.monotonic() + 30
    while went_on and not hit and run.process.poll() is None and time.monotonic() < deadline:
        running = {} if of_ranks else processes.marked(run.mark)  # its log names it: to look around takes too long
        found = sorted(TARGETS[target](running, run))
        if found:
            hit = draw.choice(found)
            command, at = running.get(hit, target)[:120], time.time()
            try:
                os.kill(hit, signal.SIGKILL)
            except ProcessLookupError:
                hit = 0
        else:
            time.sleep(0.02)  # no worker yet: the next one
    last, passed = run.passed()[-1:], len(run.places())
    code = run.end()
    alive = processes.alive(run.mark, GRACE_S)
    step = last[0][1] if last else ""
    seconds = time.monotonic() - run.started
    return Kill(number, target, hit, command, step, passed, at, code, seconds, tuple(alive), run.said())
