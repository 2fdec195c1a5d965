"""Seconds of parts, against work that sleeps for a known time on the driver and in two tasks at once."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from nightrec.stopwatch import Stopwatch


def test_seconds_of_tasks_are_added_to_those_of_the_driver(spark: SparkSession) -> None:
    clock, other = Stopwatch(spark), Stopwatch(spark)

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            with clock("outer"):
                time.sleep(0.2)
                with clock("inner"):
                    time.sleep(0.4)
            yield batch

    with clock("outer"):
        time.sleep(0.1)
    spark.range(0, 2, 1, 2).mapInArrow(work, "id long").count()
    with pytest.raises(ValueError, match="broken"), clock("broken"):
        raise ValueError("broken")
    clock.add({"told": 0.3})
    seconds = clock.seconds()
    # Two tasks; what lies within counts there alone; most first.
    assert list(seconds) == ["inner", "outer", "told", "broken"]
    assert 0.8 <= seconds["inner"] < 1.2 and 0.5 <= seconds["outer"] < 0.75
    assert seconds["told"] == 0.3 and 0 <= seconds["broken"] < 0.1
    assert other.seconds() == {}
