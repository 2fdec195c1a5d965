"""NDCG and recall against a brute-force oracle, and against the figure used while training."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from nightrec.metrics.ranking import figures, per_user, recall_of
from nightrec.ranker.train import ndcg

LISTS, TRUTH = "user_id string, item_id string, rank int", "user_id string, item_id string"


def oracle(ranked: list[str], truth: dict[str, float], k: int) -> dict[str, float]:
    """From the definitions, place by place; `truth` gives each item's weight."""
    hits = [item in truth for item in ranked[:k]]

    def dcg(gains: list[float]) -> float:
        return sum(gain / math.log2(place + 2) for place, gain in enumerate(gains[:k]))

    found, precision, recall = sum(hits), sum(hits) / k, sum(hits) / len(truth)
    at_hits = [sum(hits[: place + 1]) / (place + 1) for place, hit in enumerate(hits) if hit]
    return {
        "ndcg": dcg([float(hit) for hit in hits]) / dcg([1.0] * len(truth)),
        "recall": recall,
        "precision": precision,
        "f1": 2 * precision * recall / (precision + recall) if found else 0.0,
        "hit": float(found > 0),
        "average_precision": sum(at_hits) / min(k, len(truth)),
        "debiased_ndcg": dcg([truth.get(item, 0.0) for item in ranked]) / dcg(sorted(truth.values(), reverse=True)),
        "hit_count": found,
        "truth_count": len(truth),
    }


def test_random_lists_equal_the_oracle(spark):
    rng = random.Random(11)
    items = [f"i{n}" for n in range(12)]
    weights = {item: 1 / math.sqrt(n + 1) for n, item in enumerate(items)}
    lists = {f"u{n}": rng.sample(items, rng.randint(0, 12)) for n in range(200)}
    # some users' truth is longer than k, some has nothing in common with the list
    truth = {user: set(rng.sample(items, rng.randint(1, 8))) for user in lists}
    frame = spark.createDataFrame([(u, i, n + 1) for u, ranked in lists.items() for n, i in enumerate(ranked)], LISTS)
    done = spark.createDataFrame(
        [(u, i, weights[i]) for u, acted in truth.items() for i in acted], f"{TRUTH}, weight double"
    )
    for k in (1, 5):
        found = {row.user_id: row.asDict() for row in per_user(frame, done, k).collect()}
        plain = {row.user_id: row.asDict() for row in per_user(frame, done.drop("weight"), k).collect()}
        assert set(found) == set(truth)
        for user, row in found.items():
            expected = oracle(lists[user], {item: weights[item] for item in truth[user]}, k)
            assert row == {"user_id": user, **{name: pytest.approx(value) for name, value in expected.items()}}
            assert plain[user]["debiased_ndcg"] == pytest.approx(expected["ndcg"])


def test_edge_cases(spark):
    lists = spark.createDataFrame([
        ("no truth", "a", 1),
        ("beyond k", "x", 1), ("beyond k", "y", 2), ("beyond k", "a", 3),
        ("listed twice", "a", 1), ("listed twice", "a", 2),
        ("perfect", "a", 1), ("perfect", "b", 2),
    ], LISTS)
    truth = spark.createDataFrame([
        ("no list", "a"), ("beyond k", "a"), ("listed twice", "a"),
        # more truth than places, and one of it twice
        ("perfect", "a"), ("perfect", "b"), ("perfect", "c"), ("perfect", "a"),
    ], TRUTH)
    names = ["ndcg", "recall", "average_precision", "hit_count", "truth_count"]
    found = {row.user_id: tuple(row[name] for name in names) for row in per_user(lists, truth, 2).collect()}
    assert found == {
        "no list": (0.0, 0.0, 0.0, 0, 1),
        "beyond k": (0.0, 0.0, 0.0, 0, 1),
        "listed twice": (1.0, 1.0, 1.0, 1, 1),
        "perfect": (1.0, 2 / 3, 1.0, 2, 3),
    }
    assert per_user(lists, truth.limit(0), 2).collect() == []
    with pytest.raises(ValueError, match="k must be at least 1, found 0"):
        per_user(lists, truth, 0)


def test_the_trainer_s_ndcg_is_this_one(spark):
    rng = np.random.default_rng(4)
    size, k = 600, 10
    # users of 1 to some 30 candidates, in no order; few score values, so ties abound; some users without a positive
    users = rng.integers(0, 40, size)
    scores = rng.integers(0, 12, size).astype(np.float32) / 4
    labels = (rng.random(size) < 0.1).astype(np.float32)
    # the rank of equal scores is the order of the rows, as the trainer has them
    order = sorted(range(size), key=lambda n: (users[n], -scores[n], n))
    ranks = {n: int(sum(users[m] == users[n] for m in order[: place + 1])) for place, n in enumerate(order)}
    lists = spark.createDataFrame([(str(users[n]), str(n), ranks[n]) for n in range(size)], LISTS)
    truth = spark.createDataFrame([(str(users[n]), str(n)) for n in range(size) if labels[n]], TRUTH)
    expected = per_user(lists, truth, k).agg({"ndcg": "avg"}).first()[0]
    assert ndcg(users, scores, labels, k).mean() == pytest.approx(expected, abs=1e-12)


def test_the_trainer_s_ndcg_without_a_positive_is_of_nobody():
    assert len(ndcg(np.array([1, 1]), np.array([0.5, 0.4], np.float32), np.zeros(2, np.float32), 10)) == 0


def test_recall_of_classes_counts_each_class_alone():
    rng = random.Random(12)
    members = np.array([[item % 2 == 1, item < 3, False] for item in range(10)])
    truth = [rng.sample(range(-1, 10), rng.randint(1, 6)) for _ in range(60)]
    shown = np.array([rng.sample(range(10), 6) for _ in truth])
    shown[::4, 2:] = -1  # short lists
    starts = np.cumsum([0, *map(len, truth)])
    found = recall_of(shown, starts, np.concatenate(truth), members, 4)
    for row, (ranked, own) in enumerate(zip(shown.tolist(), truth, strict=True)):
        for one in range(3):
            there = [item for item in own if item >= 0 and members[item, one]]
            expected = sum(item in ranked[:4] for item in there) / len(there) if there else math.nan
            assert found[row, one] == pytest.approx(expected, nan_ok=True)


def test_what_no_list_can_hold_still_counts_as_missed():
    found = figures(np.array([[3, -1]]), np.array([0, 3]), np.array([3, -1, -1]), np.array([0.5, 1.0, 1.0]), 2)[0]
    best = 1 + 1 / math.log2(3)
    assert found[0] == pytest.approx(1 / best) and found[1] == pytest.approx(1 / 3)
    assert found[6] == pytest.approx(0.5 / best) and found[-2:].tolist() == [1, 3]
