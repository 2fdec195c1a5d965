"""How long Spark's tasks ran, so that a stage's time can be told from what Spark itself needed around them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from py4j.protocol import Py4JJavaError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class TaskClock:
    """Counts the seconds, from its making on, in which at least one task of the session was running.

    The rest of the wall time went by without work on rows: analysing, planning and compiling queries, opening and
    committing tables, and the driver's own Python. It is taken from when each Spark stage launched its first task and
    when it was complete; executors' own counts do not serve, for those of a local session count all of their life.
    """

    def __init__(self, spark: SparkSession) -> None:
        context: Any = spark.sparkContext._jsc
        self._spark: Any = context.sc()
        self._first = self._stages()

    def _stages(self) -> int:
        """How many Spark stages there have been."""
        return int(self._spark.dagScheduler().nextStageId())

    def seconds(self) -> float:
        """Length of the union of the stages' intervals."""
        with suppress(Py4JJavaError):  # not within 10 s on a busy cluster: then the last ones are left out
            self._spark.listenerBus().waitUntilEmpty()
        intervals = []
        for stage in range(self._first, self._stages()):
            with suppress(Py4JJavaError):  # skipped stages, whose shuffle was there already, are not in the store
                data = self._spark.statusStore().lastStageAttempt(stage)
                begin, end = data.firstTaskLaunchedTime(), data.completionTime()
                if begin.isDefined() and end.isDefined():
                    intervals.append((begin.get().getTime(), end.get().getTime()))
        return _union(intervals) / 1000


def _union(intervals: list[tuple[int, int]]) -> int:
    """Length of what the intervals cover together."""
    covered, reached = 0, 0
    for begin, end in sorted(intervals):
        covered += max(0, end - max(begin, reached))
        reached = max(reached, end)
    return covered
