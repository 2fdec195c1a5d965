"""How evenly the tasks of Spark's stages share the work, by Spark's own metrics."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

# Stages that handle fewer rows than this share of the input are over before any imbalance could cost.
_SMALL_SHARE = 0.02


@dataclass(frozen=True)
class Skew:
    """The worst stage: rows and processor seconds of its largest task over those of its median task."""

    rows: float
    cpu: float
    stage: str


def last_stage(spark: Any) -> int:
    """Id of the newest stage so far."""
    return max((stage.stageId() for stage in _stages(spark)), default=-1)


def skew(spark: Any, since: int, rows: int) -> Skew:
    """Of the stages after `since` that read a fair part of `rows` and have 3 tasks or more; 0 where there is none."""
    worst = Skew(0.0, 0.0, "")
    for stage in _stages(spark):
        tasks = _tasks(spark, stage) if stage.stageId() > since and stage.numTasks() >= 3 else []
        if sum(read for read, _ in tasks) < _SMALL_SHARE * rows:
            continue
        read, cpu = (max(values) / max(statistics.median(values), 1) for values in zip(*tasks, strict=True))
        if read > worst.rows:
            worst = Skew(read, max(worst.cpu, cpu), f"{stage.name()} ({stage.numTasks()} tasks)")
        elif cpu > worst.cpu:
            worst = Skew(worst.rows, cpu, worst.stage)
    return worst


def _stages(spark: Any) -> list[Any]:
    time.sleep(0.5)  # metrics arrive by a queue
    context = spark.sparkContext
    quantiles = context._gateway.new_array(context._jvm.double, 0)
    found = context._jsc.sc().statusStore().stageList(None, False, False, quantiles, None)
    return [found.apply(n) for n in range(found.size())]


def _tasks(spark: Any, stage: Any) -> list[tuple[float, float]]:
    """Rows read and milliseconds of processor time of each task."""
    store = spark.sparkContext._jsc.sc().statusStore()
    found = store.taskList(stage.stageId(), stage.attemptId(), 10_000)
    tasks = []
    for task in (found.apply(n) for n in range(found.size())):
        if task.taskMetrics().isDefined():
            metrics = task.taskMetrics().get()
            read = metrics.inputMetrics().recordsRead() + metrics.shuffleReadMetrics().recordsRead()
            tasks.append((float(read), metrics.executorCpuTime() / 1e6))
    return tasks
