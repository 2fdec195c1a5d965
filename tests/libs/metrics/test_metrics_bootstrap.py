"""Intervals against numpy's own resampling, and that they depend on nothing but users and figures."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.sql import SparkSession

from nightrec.metrics.bootstrap import RESAMPLES, add_resamples, means


def test_draws_are_poisson_of_mean_one_and_independent() -> None:
    users = np.random.default_rng(1).integers(0, 2**63, 5000).astype(np.uint64)
    alone = np.zeros((2, RESAMPLES))
    add_resamples(users[:1], np.ones((1, 1)), alone)
    assert set(alone[0]) <= set(range(9)) and abs(alone[0].mean() - 1) < 0.15 and abs(alone[0].var() - 1) < 0.25
    every = np.zeros((2, RESAMPLES))
    add_resamples(users, np.ones((5000, 1)), every)
    # Sums of 5,000 draws: mean and variance 5,000.
    assert abs(every[0].mean() - 5000) < 10 and abs(every[0].var() / 5000 - 1) < 0.2
    assert (every[1] == every[0]).all()


def test_an_interval_is_that_of_resampled_users(spark: SparkSession) -> None:
    rng = np.random.default_rng(2)
    first = rng.beta(0.3, 2, 800)
    rows = [(f"u{n}", float(value), float(value * 0.8 + rng.normal(0, 0.05))) for n, value in enumerate(first)]
    frame = spark.createDataFrame(rows, "user_id string, ours double, theirs double")
    difference = frame.selectExpr("user_id", "ours", "ours - theirs AS gain")
    found = means(difference, ["ours", "gain"])
    values = np.array([[ours, ours - theirs] for _, ours, theirs in rows])
    resampled = np.array([values[rng.integers(0, 800, 800)].mean(0) for _ in range(4000)])
    for name, column, drawn in zip(("ours", "gain"), values.T, resampled.T, strict=True):
        low, high = np.percentile(drawn, [2.5, 97.5])
        assert found[name].mean == pytest.approx(column.mean()) and found[name].users == 800
        assert found[name].low == pytest.approx(low, abs=0.15 * (high - low))
        assert found[name].high == pytest.approx(high, abs=0.15 * (high - low))
    again = means(difference.repartition(5, "gain"), ["ours", "gain"])
    assert again["gain"].low == pytest.approx(found["gain"].low, abs=1e-12)
    assert means(difference.limit(0), ["ours"]) == {}


def test_a_user_of_two_cuts_is_drawn_once(spark: SparkSession) -> None:
    """Every figure twice says nothing more: the interval stays, where rows drawn one by one would narrow it."""
    rng = np.random.default_rng(3)
    rows = [(f"u{n}", float(value)) for n, value in enumerate(rng.random(500))]
    once = means(spark.createDataFrame(rows, "user_id string, x double"), ["x"])["x"]
    twice = means(spark.createDataFrame(rows * 2, "user_id string, x double"), ["x"])["x"]
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high), abs=1e-9)
