"""Coverage, novelty and diversity against the definitions written out, and calibration by construction."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from nightrec.metrics.catalogue import coverage, per_list
from nightrec.metrics.probability import calibration_error, log_loss, root_mean_squared_error

LISTS = "user_id string, item_id string, rank int"


def test_novelty_and_diversity_equal_the_definitions(spark: SparkSession) -> None:
    rng = np.random.default_rng(5)
    names = [f"i{n}" for n in range(15)]
    share = dict(zip(names, rng.uniform(0.01, 1, 15), strict=True))
    vectors = {name: None if n % 5 == 0 else rng.standard_normal(4) for n, name in enumerate(names)}
    units = {name: None if v is None else v / np.linalg.norm(v) for name, v in vectors.items()}
    lists = {f"u{n}": [names[i] for i in rng.permutation(15)[: 1 + n % 8]] for n in range(40)}
    lists["few vectors"] = ["i0", "i5", "i1"]
    frame = spark.createDataFrame([(u, i, n + 1) for u, ranked in lists.items() for n, i in enumerate(ranked)], LISTS)
    items = pa.table({
        "item_id": names, "share": list(share.values()),
        "vector": pa.array([None if v is None else v.tolist() for v in units.values()], pa.list_(pa.float32())),
    })
    found = {row.user_id: row for row in per_list(frame.repartition(3), items, 5).collect()}
    assert set(found) == set(lists)
    for user, ranked in lists.items():
        top = ranked[:5]
        assert found[user].novelty == pytest.approx(np.mean([-math.log2(share[item]) for item in top]))
        pairs = list(itertools.combinations([units[item] for item in top if units[item] is not None], 2))
        expected = np.mean([1 - one @ other for one, other in pairs]) if pairs else None
        assert found[user].diversity == (None if expected is None else pytest.approx(expected, abs=1e-6))
    assert found["few vectors"].diversity is None


def test_coverage_counts_items_within_k(spark: SparkSession) -> None:
    lists = spark.createDataFrame([("u", "a", 1), ("u", "b", 2), ("v", "a", 1), ("v", "gone", 2), ("v", "c", 3)], LISTS)
    items = spark.createDataFrame([("a",), ("b",), ("c",), ("d",)], "item_id string")
    assert coverage(lists, items, 2) == 0.5 and coverage(lists, items, 3) == 0.75
    assert coverage(lists, items.limit(0), 3) == 0.0


def test_calibration_of_probabilities_that_are_true_or_twice_too_high(spark: SparkSession) -> None:
    rows = [(0.02, float(n < 20)) for n in range(1000)] + [(0.5, float(n < 250)) for n in range(500)]
    kind = "probability double, label double"
    assert calibration_error(spark.createDataFrame(rows, kind)) == pytest.approx(0.0, abs=1e-9)
    doubled = [(0.04, float(n < 20)) for n in range(1000)] + [(0.999, float(n < 250)) for n in range(500)]
    expected = (1000 * 0.02 + 500 * 0.499) / 1500
    assert calibration_error(spark.createDataFrame(doubled, kind)) == pytest.approx(expected)
    some = spark.createDataFrame([(0.25, 1.0), (0.25, 0.0)], kind)
    assert log_loss(some) == pytest.approx(-(math.log(0.25) + math.log(0.75)) / 2)
    rated = spark.createDataFrame([(3.0, 5.0), (4.0, 4.0)], "predicted double, value double")
    assert root_mean_squared_error(rated) == pytest.approx(math.sqrt(2))
    assert calibration_error(some.limit(0)) == log_loss(some.limit(0)) == 0.0
