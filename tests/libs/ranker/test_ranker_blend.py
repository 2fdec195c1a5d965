"""Blends of scores: what is chosen, and that what comes out is a probability in the same order."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nightrec.ranker.blend import Blend, chosen, platt, sigmoid


def test_the_mean_is_weighted_and_its_sigmoid_a_probability() -> None:
    blend = Blend({"network": 2.0, "binary": 0.5}, slope=3.0, offset=-1.0)
    scores = {"network": np.array([1.0, -1.0]), "binary": np.array([4.0, 0.0]), "ranking": np.array([9.0, 9.0])}
    assert blend.mean(scores).tolist() == [4.0, -2.0]
    assert blend.probabilities(scores) == pytest.approx([1 / (1 + math.exp(-11)), 1 / (1 + math.exp(7))])
    assert sigmoid(np.array([-1e9, 1e9])).tolist() == [0.0, 1.0]


def test_platt_finds_the_odds_that_made_the_labels() -> None:
    rng = np.random.default_rng(1)
    scores = rng.normal(size=200_000)
    labels = (rng.random(len(scores)) < sigmoid(1.5 * scores - 2)).astype(np.float32)
    slope, offset = platt(scores, labels)
    assert (slope, offset) == pytest.approx((1.5, -2), abs=0.05)
    assert sigmoid(slope * scores + offset).mean() == pytest.approx(labels.mean(), rel=1e-6)
    # Scores that are worse than none do not turn the order around.
    backwards, _ = platt(-scores, labels)
    assert 0 < backwards < 0.1


@pytest.mark.parametrize(("good", "expected"), [("network", "network"), ("trees", "trees"), ("both", "all")])
def test_the_best_on_the_valid_split_is_chosen(good: str, expected: str) -> None:
    rng = np.random.default_rng(2)
    truth = rng.normal(size=4000)
    labels = (truth > 1.5).astype(np.float32)
    noise = {name: rng.normal(size=4000) for name in ("network", "binary", "ranking")}
    size = {"network": {"network": 0.1}, "trees": {"binary": 0.1, "ranking": 0.1}, "both": dict.fromkeys(noise, 1.0)}
    scores = {name: 7 * (truth + size[good].get(name, 9.0) * noise[name]) for name in noise}

    def worth(mean: np.ndarray) -> float:
        return float(np.corrcoef(mean, truth)[0, 1])

    blend, choices = chosen(scores, labels, worth)
    members = {"network": ("network",), "trees": ("binary", "ranking"), "all": ("network", "binary", "ranking")}
    assert tuple(blend.weight) == members[expected] and max(choices, key=lambda name: choices[name]) == expected
    # What is asked for serves, whatever is best.
    for name, weights in members.items():
        assert tuple(chosen(scores, labels, worth, name)[0].weight) == weights
    # Without trees there is one choice.
    assert set(chosen({"network": scores["network"]}, labels, worth)[1]) == {"network"}
