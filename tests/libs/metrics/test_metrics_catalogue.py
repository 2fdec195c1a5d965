"""Coverage, novelty, diversity and reach against the definitions written out, and calibration by construction."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from pyspark.sql import SparkSession

from nightrec.metrics import reach
from nightrec.metrics.catalogue import coverage, novelty_and_diversity
from nightrec.metrics.probability import SquaredError, calibration, pooled, squared_error


def test_novelty_and_diversity_equal_the_definitions() -> None:
    rng = np.random.default_rng(5)
    share = rng.uniform(0.01, 1, 15)
    units = rng.standard_normal((15, 4)).astype(np.float32)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    units[::5] = 0  # no vector
    lists = [rng.permutation(15)[: n % 6].tolist() for n in range(40)] + [[0, 5, 1]]
    shown = np.array([ranked + [-1] * (5 - len(ranked)) for ranked in lists])
    for (novelty, diversity), top in zip(novelty_and_diversity(shown, share, units), lists, strict=True):
        if not top:
            assert math.isnan(novelty) and math.isnan(diversity)
            continue
        assert novelty == pytest.approx(np.mean([-math.log2(share[item]) for item in top]))
        pairs = list(itertools.combinations([units[item] for item in top if item % 5], 2))
        if pairs:
            assert diversity == pytest.approx(np.mean([1 - one @ other for one, other in pairs]), abs=1e-6)
        else:
            assert math.isnan(diversity)
    assert np.isnan(novelty_and_diversity(shown, share, np.zeros((15, 0), np.float32))[:, 1]).all()


def test_coverage_counts_items_of_any_list(spark: SparkSession) -> None:
    rows = [([[0, 1], [], [2]],), ([[0, 7], [5], [2, 1]],), ([[0], [], []],)]
    frame = spark.createDataFrame(rows, "lists array<array<int>>").repartition(3)
    assert coverage(frame, ["a", "b", "c"], 10) == {"a": 0.3, "b": 0.1, "c": 0.2}
    assert coverage(frame.limit(0), ["a"], 10) == {"a": 0.0} == coverage(frame.limit(0), ["a"], 0)


def test_reach_equals_a_count_by_hand(spark: SparkSession) -> None:
    draw = random.Random(6)
    items = range(30)
    users = [f"u{n}" for n in range(25)]
    truth = {user: draw.sample(items, draw.randint(1, 9)) for user in users}
    ranks = {user: {item: (draw.choice([None, *range(1, 9)]), draw.choice([None, 1, 5, 9])) for item in items}
             for user in users if user != "u0"}  # u0 has no candidates
    nominated = {
        user: {item: pair for item, pair in own.items() if pair != (None, None)} for user, own in ranks.items()
    }
    candidates = spark.createDataFrame(
        [(user, item, *pair) for user, own in nominated.items() for item, pair in own.items()],
        "user_id string, item_id int, near_rank int, far_rank int",
    )
    wanted = spark.createDataFrame([(u, i) for u, own in truth.items() for i in own], "user_id string, item_id int")
    found = reach.reach(candidates, wanted, ("near", "far"), (3, 6), 5)
    assert {n for _, n in found.values()} == {25}
    means = reach.pooled([found])
    for depth in (3, 6):
        for source, places in {"near": (0,), "far": (1,), reach.UNION: (0, 1)}.items():
            expected = np.mean([
                sum(
                    any((nominated.get(user, {}).get(item, (None, None))[n] or 99) <= depth for n in places)
                    for item in own
                ) / len(own)
                for user, own in truth.items()
            ])  # fmt: skip
            assert means[source, depth] == pytest.approx(expected)

    def ideal(hits: int) -> float:
        return sum(1 / math.log2(place + 2) for place in range(min(hits, 5)))

    oracle = [ideal(sum(i in nominated.get(u, {}) for i in own)) / ideal(len(own)) for u, own in truth.items()]
    assert means[reach.ORACLE, 5] == pytest.approx(np.mean(oracle))
    twice = reach.pooled([found, {("near", 3): (5.0, 5)}])
    assert twice["near", 3] == pytest.approx((found["near", 3][0] + 5) / 30) and twice["far", 3] == means["far", 3]
    assert set(reach.pooled([reach.reach(candidates, wanted.limit(0), ("near",), (3,), 5)]).values()) == {0.0}


def test_calibration_of_probabilities_that_are_true_or_twice_too_high(spark: SparkSession) -> None:
    rows = [(0.02, float(n < 20)) for n in range(1000)] + [(0.5, float(n < 250)) for n in range(500)]
    kind = "probability double, label double"
    true = calibration(spark.createDataFrame(rows, kind))
    assert true.error == pytest.approx(0.0, abs=1e-9)
    doubled = [(0.04, float(n < 20)) for n in range(1000)] + [(0.999, float(n < 250)) for n in range(500)]
    wrong = calibration(spark.createDataFrame(doubled, kind))
    assert wrong.error == pytest.approx((1000 * 0.02 + 500 * 0.499) / 1500)
    # Together: 1,500 rows as expected, 1,000 of them in the bin of the 1,000 that were expected twice as often.
    both = calibration(spark.createDataFrame(rows + doubled, kind))
    assert pooled([true, wrong]).error == pytest.approx(both.error)
    assert pooled([true, wrong]).log_loss == pytest.approx(both.log_loss)
    # Too high in one bin does not make up for too low in another.
    mixed = spark.createDataFrame([(0.1, 0.0)] * 10 + [(0.5, 1.0)] * 2, kind)
    assert calibration(mixed).error == pytest.approx((10 * 0.1 + 2 * 0.5) / 12)
    some = spark.createDataFrame([(0.25, 1.0), (0.25, 0.0)], kind)
    assert calibration(some).log_loss == pytest.approx(-(math.log(0.25) + math.log(0.75)) / 2)
    rated = spark.createDataFrame([(3.0, 5.0), (4.0, 4.0)], "predicted double, value double")
    assert squared_error(rated) == SquaredError(2, 4.0) and squared_error(rated).root == pytest.approx(math.sqrt(2))
    assert squared_error(rated.limit(0)).root == 0.0
    none = calibration(some.limit(0))
    assert none.error == none.log_loss == none.rows.sum() == 0.0
