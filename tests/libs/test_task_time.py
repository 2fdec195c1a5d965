"""Seconds in which tasks ran, against tasks that sleep for a known time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pyarrow as pa
from pyspark.sql import SparkSession

from nightrec.task_time import TaskClock, _union


def slept(spark: SparkSession, seconds: float) -> None:
    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        time.sleep(seconds)
        yield from batches

    spark.range(0, 2, 1, 2).mapInArrow(work, "id long").count()


def test_only_what_the_clock_has_seen_counts_and_jobs_side_by_side_count_once(spark: SparkSession) -> None:
    slept(spark, 0.5)
    clock, started = TaskClock(spark), time.monotonic()
    assert clock.seconds() == 0
    side_by_side = [threading.Thread(target=slept, args=(spark, 1.0)) for _ in range(2)]
    for thread in side_by_side:
        thread.start()
    for thread in side_by_side:
        thread.join()
    time.sleep(1.5)
    took = time.monotonic() - started
    assert 1.0 <= clock.seconds() <= took - 1.5


def test_intervals_that_overlap_count_once() -> None:
    assert _union([]) == 0
    assert _union([(5, 9), (0, 3), (1, 2), (2, 4), (20, 21)]) == 4 + 4 + 1
