"""What every benchmark measures with: repeated runs side by side, checks of equal work, goals, fresh processes.

A benchmark is a module of this folder with `run(report, smoke)`. It puts its figures into the report; `bench.py` prints
and keeps them. With `smoke` it does the same on data so small that it ends in seconds: its figures then mean nothing.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """What one contestant needed for one case: `values` of all runs in `unit`, and what else was seen (peak memory)."""

    case: str
    contestant: str
    unit: str
    values: list[float]
    facts: dict[str, float | str] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True)
class Check:
    """Whether the contestants of a case did equal work, and how that was seen."""

    case: str
    holds: bool
    seen: str


@dataclass(frozen=True)
class Goal:
    """A figure to reach: `ratio` at least `goal`, or at most where `at_most`. `why` explains a miss by its profile."""

    name: str
    case: str
    ratio: float
    goal: float
    at_most: bool = False
    why: str = ""


@dataclass
class Report:
    """What one benchmark found; printed while it grows, for a benchmark takes minutes."""

    figures: list[Figure] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def figure(self, case: str, contestant: str, unit: str, values: list[float], **facts: float | str) -> Figure:
        """Keep what a contestant needed."""
        found = Figure(case, contestant, unit, values, dict(facts))
        self.figures.append(found)
        told = "".join(f", {name.replace('_', ' ')} {_short(value)}" for name, value in facts.items())
        spread = f"{_short(min(values))} to {_short(max(values))}, {len(values)} runs"
        print(f"  {case}: {contestant} {_short(found.median)} {unit} ({spread}){told}", flush=True)
        return found

    def check(self, case: str, holds: bool, seen: str) -> None:
        """Keep whether the work of a case was equal."""
        self.checks.append(Check(case, bool(holds), seen))
        print(f"  {case}: {'equal work' if holds else 'WORK NOT EQUAL'}: {seen}", flush=True)

    def goal(
        self, name: str, case: str, ratio: float, goal: float, *, at_most: bool = False, why: str = ""
    ) -> None:
        """Keep a ratio beside its goal; `case` names the checks that it rests on."""
        self.goals.append(Goal(name, case, ratio, goal, at_most, why))

    def note(self, line: str) -> None:
        """Keep a sentence about the method or about what was seen."""
        self.notes.append(line)
        print(f"  {line}", flush=True)

    def outcome(self, goal: Goal) -> str:
        """met or missed; a ratio between contestants that did not do equal work says nothing."""
        if any(not check.holds for check in self.checks if check.case == goal.case):
            return "missed, for the work was not equal"
        met = goal.ratio <= goal.goal if goal.at_most else goal.ratio >= goal.goal
        return "met" if met else "missed"

    def lines(self) -> list[str]:
        """One line per goal."""
        return [
            f"goal {goal.name}: ratio {_short(goal.ratio)}, goal {'at most ' if goal.at_most else ''}"
            f"{_short(goal.goal)}, {self.outcome(goal)}"
            for goal in self.goals
        ]

    def plain(self) -> dict[str, Any]:
        """Everything, for JSON."""
        goals = [{**asdict(goal), "outcome": self.outcome(goal)} for goal in self.goals]
        figures = [{**asdict(figure), "median": figure.median} for figure in self.figures]
        return {"goals": goals, "figures": figures, "checks": [asdict(one) for one in self.checks], "notes": self.notes}


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes, by the wall."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def side_by_side(contestants: Mapping[str, Callable[[], object]], runs: int) -> dict[str, list[float]]:
    """Seconds of each contestant in each of `runs` rounds, in turn: a busy neighbour slows all of them alike."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(runs):
        for name, work in contestants.items():
            found[name].append(seconds(work))
    return found


@dataclass(frozen=True)
class Fresh:
    """What a function did in a process of its own: its result, seconds, peak resident memory in bytes."""

    result: Any
    seconds: float
    peak: int


def fresh(function: Callable[..., Any], *arguments: Any, threads: int | None = None) -> Fresh:
    """Call `function` in a new process, where nothing is warm and its peak memory is its own.

    `threads` bounds what BLAS, OpenMP, numba and torch may start there.
    """
    before = dict(os.environ)
    if threads:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
        os.environ.update(dict.fromkeys(names, str(threads)))
    try:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_answer, args=(there, function, arguments))
        process.start()
        there.close()
        try:
            found: Fresh | Exception = here.recv()
        except EOFError:
            found = RuntimeError(f"{function.__name__} left its process without an answer")
        process.join()
    finally:
        os.environ.clear()
        os.environ.update(before)
    if isinstance(found, Exception):
        raise found
    return found


def _answer(pipe: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        start = time.perf_counter()
        result = function(*arguments)
        pipe.send(Fresh(result, time.perf_counter() - start, peak_memory()))
    except Exception as error:
        pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))


def peak_memory(process: int | str = "self") -> int:
    """Most resident memory a process, by default this one, ever held, in bytes."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": models[0].split(":")[1].strip() if models else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory:.0f} GiB",
        "python": platform.python_version(),
    }


def versions(*packages: str) -> dict[str, str]:
    """Versions of installed packages."""
    return {package: version(package) for package in packages}


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
