"""Intervals against numpy's own resampling, and that they depend on nothing but users and figures."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from nightrec.metrics.bootstrap import RESAMPLES, Interval, draws, pooled, resampled


def means(rows: DataFrame, names: list[str]) -> dict[str, Interval | None]:
    found = resampled(rows.select("user_id", F.array(*names).alias("figures")), names)
    return {name: found.interval(name) for name in names}


def test_draws_are_poisson_of_mean_one_and_independent() -> None:
    users = np.random.default_rng(1).integers(0, 2**63, 5000).astype(np.uint64)
    every = np.zeros((5000, RESAMPLES))
    draws(users, every)
    alone, summed = every[0], every.sum(0)
    assert set(alone) <= set(range(9)) and abs(alone.mean() - 1) < 0.15 and abs(alone.var() - 1) < 0.25
    # Sums of 5,000 draws: mean and variance 5,000.
    assert abs(summed.mean() - 5000) < 10 and abs(summed.var() / 5000 - 1) < 0.2


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
    assert means(difference.limit(0), ["ours"]) == {"ours": None}


def test_a_user_of_two_cuts_is_drawn_once(spark: SparkSession) -> None:
    """Every figure twice says nothing more: the interval stays, where rows drawn one by one would narrow it."""
    rng = np.random.default_rng(3)
    rows = [(f"u{n}", float(value)) for n, value in enumerate(rng.random(500))]
    once = means(spark.createDataFrame(rows, "user_id string, x double"), ["x"])["x"]
    twice = means(spark.createDataFrame(rows * 2, "user_id string, x double"), ["x"])["x"]
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high), abs=1e-9)


def test_a_difference_is_paired_and_gaps_are_left_out(spark: SparkSession) -> None:
    rng = np.random.default_rng(4)
    ours = rng.random(300)
    theirs = ours - 0.1 + rng.normal(0, 0.01, 300)
    # Every third user is not in the slice: NULL, or what Spark writes as NaN.
    inside = [None if n % 6 == 0 else float("nan") if n % 6 == 3 else float(value) for n, value in enumerate(ours)]
    rows = [(f"u{n}", [float(ours[n]), float(theirs[n]), inside[n]]) for n in range(300)]
    frame = spark.createDataFrame(rows, "user_id string, figures array<double>")
    found = resampled(frame, ["ours", "theirs", "slice"])
    gain, alone = found.interval("ours", minus="theirs"), found.interval("ours")
    assert gain.mean == pytest.approx((ours - theirs).mean())
    explicit = means(frame.selectExpr("user_id", "figures[0] - figures[1] AS gain"), ["gain"])["gain"]
    assert (gain.low, gain.high) == pytest.approx((explicit.low, explicit.high), abs=1e-12)
    assert gain.high - gain.low < (alone.high - alone.low) / 5
    kept = [n for n in range(300) if n % 3]
    part = found.interval("slice")
    assert part.users == 200 and part.mean == pytest.approx(ours[kept].mean())
    of_kept = spark.createDataFrame([(f"u{n}", float(ours[n])) for n in kept], "user_id string, x double")
    only = means(of_kept, ["x"])["x"]
    assert (part.low, part.high) == pytest.approx((only.low, only.high), abs=1e-12)


def test_cuts_pool_to_what_all_rows_together_give(spark: SparkSession) -> None:
    rng = np.random.default_rng(5)
    rows = [(f"u{n % 130}", [float(x), float(y)]) for n, (x, y) in enumerate(rng.random((260, 2)))]
    schema = "user_id string, figures array<double>"
    once = resampled(spark.createDataFrame(rows, schema), ["x", "y"])
    # The second cut knows its figures in another order, and one more.
    second = [(user, [y, x, x]) for user, (x, y) in rows[130:]]
    parts = [
        resampled(spark.createDataFrame(rows[:130], schema), ["x", "y"]),
        resampled(spark.createDataFrame(second, schema), ["y", "x", "new"]),
    ]
    found = pooled(parts)
    for name in ("x", "y"):
        one, other = found.interval(name), once.interval(name)
        assert (one.mean, one.low, one.high, one.users) == pytest.approx(
            (other.mean, other.low, other.high, other.users), abs=1e-12
        )
    assert found.interval("new").mean == pytest.approx(np.mean([x for _, (x, _) in rows[130:]]))


def test_resamples_that_draw_nobody_say_nothing(spark: SparkSession) -> None:
    found = means(spark.createDataFrame([("u", -0.43)], "user_id string, x double"), ["x"])["x"]
    assert (found.low, found.mean, found.high) == pytest.approx((-0.43, -0.43, -0.43)) and found.users == 1
