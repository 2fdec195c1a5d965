"""Skew, by Spark's own task metrics: one user has half of the events, and one item has half of them too."""

from __future__ import annotations

import datetime as dt
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from nightrec import raw
from nightrec.config import Config, Events
from nightrec.events.clean import classified, clean_events, fate_counts

DAY = dt.date(2026, 3, 10)
FILES, LINES = 8, 500


@pytest.fixture
def many_tasks(spark: SparkSession) -> Iterator[SparkSession]:
    """16 tasks to a shuffle, however little there is: with 2 or 4 no task could be 5 times the median."""
    before = spark.conf.get("spark.sql.shuffle.partitions")
    spark.conf.set("spark.sql.shuffle.partitions", "16")
    spark.conf.set("spark.sql.adaptive.coalescePartitions.enabled", "false")
    yield spark
    spark.conf.set("spark.sql.shuffle.partitions", str(before))
    spark.conf.unset("spark.sql.adaptive.coalescePartitions.enabled")


def rows_read(spark: SparkSession, after: int) -> dict[int, list[int]]:
    """Rows that each task read, by stage, of the stages after stage `after`."""
    time.sleep(1)  # metrics arrive by a queue
    context: Any = spark.sparkContext
    store = context._jsc.sc().statusStore()
    stages = store.stageList(None, False, False, context._gateway.new_array(context._jvm.double, 0), None)
    found = {}
    for stage in (stages.apply(n) for n in range(stages.size())):
        if stage.stageId() > after:
            tasks = store.taskList(stage.stageId(), stage.attemptId(), 1000)
            metrics = [tasks.apply(n).taskMetrics() for n in range(tasks.size())]
            found[stage.stageId()] = [
                one.get().inputMetrics().recordsRead() + one.get().shuffleReadMetrics().recordsRead()
                for one in metrics
                if one.isDefined()
            ]
    return found


def test_no_task_reads_much_more_than_the_others(many_tasks: SparkSession, tmp_path: Path) -> None:
    folder = tmp_path / "events" / f"ingest_date={DAY}"
    folder.mkdir(parents=True)
    for file in range(FILES):
        lines = []
        for n in range(file * LINES, (file + 1) * LINES):
            user, item = ("busy" if n % 2 else f"u{n}"), ("popular" if n // 2 % 2 else f"i{n}")
            when = dt.datetime.combine(DAY, dt.time(n % 24, n // 24 % 60, n // 1440))
            lines.append({"user_id": user, "item_id": item, "event_type": "view", "event_ts": f"{when.isoformat()}Z"})
        (folder / f"part-{file}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    newest = max(rows_read(many_tasks, -1), default=-1)
    config = Config(events=Events(robot_events_per_hour=50))  # the busy user is one: both robots' plans are run
    with classified(
        raw.events(many_tasks, str(tmp_path), [DAY]), None, config.events, config.event_weights()
    ) as found:
        counts = {row["fate"]: row["row_count"] for row in fate_counts(found).toArrow().to_pylist()}
        kept = clean_events(found.events).toArrow().num_rows
    assert counts == {"read": FILES * LINES, "accepted": FILES * LINES // 2, "rejected": FILES * LINES // 2}
    assert kept == FILES * LINES // 2
    stages = rows_read(many_tasks, newest)
    heavy = {stage: tasks for stage, tasks in stages.items() if len(tasks) > 2 and sum(tasks) > 0.1 * FILES * LINES}
    assert heavy, "no stage read the lines"
    assert all(max(tasks) <= 5 * statistics.median(tasks) for tasks in heavy.values()), heavy
