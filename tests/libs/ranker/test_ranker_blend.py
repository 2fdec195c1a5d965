"""Blends of scores: what is chosen, and that what comes out is a probability in the same order."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nightrec.ranker.blend import POPULAR, RARITIES, Blend, chosen, learned, platt, rarer, sigmoid


def test_the_mean_is_weighted_and_its_sigmoid_a_probability() -> None:
    blend = Blend({"network_b": 2.0, "binary": 0.5}, slope=3.0, offset=-1.0)
    scores = {"network_b": np.array([1.0, -1.0]), "binary": np.array([4.0, 0.0]), "ranking": np.array([9.0, 9.0])}
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


@pytest.mark.parametrize(
    ("noise", "expected"),
    [
        ({"network_b": 1.0, "binary": 1.0, "ranking": 1.0}, ("network_b", "binary", "ranking")),
        ({"network_b": 0.1, "binary": 9.0, "ranking": 9.0}, ("network_b",)),
        ({"network_b": 9.0, "binary": 0.1, "ranking": 0.1}, ("binary", "ranking")),
        ({"network_b": 9.0, "binary": 9.0, "ranking": 9.0, "habit_share": 0.1}, ("habit_share",)),
    ],
)
def test_the_mean_of_all_serves_unless_another_is_clearly_better(
    noise: dict[str, float], expected: tuple[str, ...]
) -> None:
    rng = np.random.default_rng(2)
    truth = rng.normal(size=4000)
    labels = (truth > 1.5).astype(np.float32)
    scores = {name: 7 * (truth + size * rng.normal(size=4000)) for name, size in noise.items()}

    def worth(mean: np.ndarray) -> np.ndarray:
        """One figure for each of 40 users."""
        return np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(np.split(mean, 40), np.split(truth, 40), strict=True)])

    blend, choices = chosen(scores, labels, worth)
    assert tuple(blend.weight) == expected
    assert set(choices) == {"network", "trees", "all"} | (set(noise) & {"habit_share"})
    # What is asked for serves, whatever is best.
    for name, asked in learned(scores).items():
        assert tuple(chosen(scores, labels, worth, name)[0].weight) == asked
    # Without trees there is one choice.
    assert set(chosen({"network_b": scores["network_b"]}, labels, worth)[1]) == {"network"}


def test_better_by_chance_is_not_enough() -> None:
    scores = {name: np.full(4, float(n)) for n, name in enumerate(("network_b", "binary", "ranking"))}
    labels = np.array([0, 1, 0, 1], np.float32)
    # The network alone is ahead by .01 in the mean of two users, who differ by .04.
    figures = iter([np.array([0.5, 0.5]), np.array([0.53, 0.49]), np.array([0.4, 0.4])])
    assert tuple(chosen(scores, labels, lambda _: next(figures))[0].weight) == ("network_b", "binary", "ranking")
    figures = iter([np.array([0.5, 0.5]), np.array([0.53, 0.51]), np.array([0.4, 0.4])])
    assert tuple(chosen(scores, labels, lambda _: next(figures))[0].weight) == ("network_b",)


def test_networks_of_every_loss_are_members() -> None:
    every = ("network_binary", "network_listwise", "binary", "ranking", "habit_share")
    assert learned(every) == {"all": every[:4], "network": every[:2], "trees": every[2:4]}
    assert learned(every[:1]) == {"network": every[:1]}


def test_as_much_is_taken_off_the_popular_as_costs_no_more_than_asked() -> None:
    rng = np.random.default_rng(4)
    popular = rng.random(20_000)
    labels = (rng.random(20_000) < sigmoid(2 * popular - 3)).astype(np.float32)
    scores = {"network_b": 2 * popular - 3, POPULAR: popular}
    blend = Blend({"network_b": 1.0}, 1.0, 0.0)
    seen: dict[float, float] = {}

    def worth(mean: np.ndarray) -> np.ndarray:
        """What is left of the network's slope: 1 - a half of what is taken off, of each of two users."""
        left = float(np.polyfit(popular, mean, 1)[0]) / 2
        seen[round(1 - left, 6)] = left
        return np.array([left, left])

    # A tenth of its worth buys a rarity of 0.2, for 2 popular - 0.2 popular = 0.9 x 2 popular; all of it the largest.
    for price, rarity in ((0.101, 0.2), (0.06, 0.1), (1.0, RARITIES[0])):
        found, told = rarer(blend, scores, labels, worth, price)
        assert found.weight == {"network_b": 1.0, POPULAR: -rarity}
        assert told == {f"rarer by {rarity}": pytest.approx(1 - rarity / 2)}
        # Still a probability: of the labels as many as there are.
        assert found.probabilities(scores).mean() == pytest.approx(labels.mean(), rel=1e-6)
    # In logits, whatever the blend's own scale.
    assert rarer(Blend({"network_b": 1.0}, 4.0, 0.0), scores, labels, worth, 0.026)[0].weight[POPULAR] == -0.2 / 4
    # Nothing so cheap, or nothing given: as it was.
    assert rarer(blend, scores, labels, worth, 0.01) == (blend, {}) == rarer(blend, scores, labels, worth, 0.0)
    # What is popular is no tree.
    assert learned(("network_b", POPULAR)) == {"network": ("network_b",)}
