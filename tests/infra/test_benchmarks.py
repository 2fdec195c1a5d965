"""Every benchmark runs on tiny data, its contestants do equal work, and goals are judged as they should be."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from spark_commands import environment

BENCHMARKS = Path(__file__).resolve().parents[2] / "infra/benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import bench  # noqa: E402
import growth  # noqa: E402
from measure import Report  # noqa: E402

from nightrec.pipeline import STAGES  # noqa: E402

# A minute, or three to five for two or three whole nights each.
LONG = ("cleaning", "cluster", "growth", "nights")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.soak] if name in LONG else []) for name in bench.BENCHMARKS]
)
def test_a_benchmark_runs_on_tiny_data(name: str) -> None:
    told = subprocess.run(
        [sys.executable, str(BENCHMARKS / "bench.py"), "--smoke", "--only", name],
        capture_output=True, text=True, timeout=1100, check=False, env=environment(CI="true"),
    )  # fmt: skip
    assert told.returncode == 0, told.stdout[-3000:] + told.stderr[-3000:]
    goals = [line for line in told.stdout.splitlines() if line.startswith("goal ")]
    assert goals and all(re.fullmatch(r"goal .+: ratio \S+, goal (at most )?\S+, (met|missed)", line) for line in goals)


def test_goals_are_judged_on_their_side_and_only_where_the_work_was_equal() -> None:
    report = Report()
    report.check("fair", True, "the same")
    report.check("unfair", False, "another loss")
    report.goal("reached", "fair", 2.0, 2.0)
    report.goal("not reached", "fair", 1.99, 2.0)
    report.goal("kept below", "fair", 1.05, 1.1, at_most=True)
    report.goal("above", "fair", 1.11, 1.1, at_most=True)
    report.goal("no ratio", "unfair", 100.0, 2.0)
    assert report.lines() == [
        "goal reached: ratio 2, goal 2, met",
        "goal not reached: ratio 1.99, goal 2, missed",
        "goal kept below: ratio 1.05, goal at most 1.1, met",
        "goal above: ratio 1.11, goal at most 1.1, missed",
        "goal no ratio: ratio 100, goal 2, missed, for the work was not equal",
    ]


def test_the_exponent_of_growth_is_judged_for_every_stage() -> None:
    """Seconds that grow as the square of the events, and for one stage as their root."""
    found = {size: {stage.name: growth.Seen(seconds=size**2) for stage in STAGES} for size in (1.0, 5.0, 25.0)}
    for size, stages in found.items():
        stages["candidates"].seconds = 3 * size**0.5
    report = Report()
    growth._exponents(report, found)
    assert {goal.name: round(goal.ratio, 6) for goal in report.goals if "candidates" in goal.name} == {
        "growth candidates": 0.5, "growth candidates above 5 M": 0.5,
    }  # fmt: skip
    assert len(report.goals) == 2 * len(STAGES)
    assert [report.outcome(goal) for goal in report.goals].count("met") == 2


def test_an_unknown_benchmark_names_those_there_are() -> None:
    told = subprocess.run(
        [sys.executable, str(BENCHMARKS / "bench.py"), "--only", "none"], capture_output=True, text=True, check=False
    )
    assert told.returncode == 2 and f"there are {', '.join(bench.BENCHMARKS)}" in told.stderr
