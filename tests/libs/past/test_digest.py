"""The digest of rows: blind to order and partitions, and to nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from pyspark.sql import DataFrame, SparkSession

from nightrec.past.digest import digest

DDL = "a string, b string, n double, m map<string,int>, l array<struct<x:string,y:float>>, t timestamp"
WHEN = "2026-03-10 01:02:03.000004"
ROWS: list[tuple[Any, ...]] = [
    ("1", None, 0.1, {"k": 1, "j": 2}, [("x", 0.5), ("y", None)], WHEN),
    (None, "1", 0.2, None, [], WHEN),
    ("1", "1", None, {}, None, None),
    ("1", "1", None, {}, None, None),  # twice: a row counts as often as it is there
]


def frame(spark: SparkSession, rows: list[tuple[Any, ...]], parts: int = 1) -> DataFrame:
    made = spark.createDataFrame(rows, DDL.replace("timestamp", "string"))
    return made.withColumn("t", made["t"].cast("timestamp")).repartition(parts)


def test_order_partitions_and_columns_places_do_not_count(spark: SparkSession) -> None:
    first = digest(frame(spark, ROWS))
    assert first[0] == 4
    assert digest(frame(spark, ROWS[::-1], parts=3)) == first
    turned = [(row[0], row[1], row[2], row[3] and dict(reversed(row[3].items())), *row[4:]) for row in ROWS]
    assert digest(frame(spark, turned, parts=2).select("t", "n", "m", "l", "b", "a")) == first
    assert digest(frame(spark, [])) == (0, "0" * 30)


@pytest.mark.parametrize(
    "other",
    [
        ROWS[:3],
        [*ROWS, ROWS[0], ROWS[0]],  # an even number more: XOR would not see it
        [("1", "", *ROWS[0][2:]), *ROWS[1:]],
        [("1", "null", *ROWS[0][2:]), *ROWS[1:]],
        [(None, "1", *ROWS[0][2:]), *ROWS[1:]],
        [(*ROWS[0][:2], 0.1 + 1e-16 * 2, *ROWS[0][3:]), *ROWS[1:]],
        [(*ROWS[0][:4], [("y", None), ("x", 0.5)], WHEN), *ROWS[1:]],
        [(*ROWS[0][:5], "2026-03-10 01:02:03.000005"), *ROWS[1:]],
    ],
    ids=["less", "two more", "empty", "null as text", "another column", "last bit", "order in a list", "microsecond"],
)
def test_whatever_differs_is_seen(spark: SparkSession, other: list[tuple[Any, ...]]) -> None:
    assert digest(frame(spark, other)) != digest(frame(spark, ROWS))
