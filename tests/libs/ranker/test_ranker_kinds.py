"""Probabilities by kind of event, on examples whose odds were planted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pyspark.sql import functions as F

from nightrec.errors import NightrecError
from nightrec.features import FEATURES
from nightrec.metrics import probability
from nightrec.ranker import heads, kinds, members, model
from nightrec.ranker.blend import Blend, platt, sigmoid
from nightrec.ranker.dataset import Split
from nightrec.ranker.kinds import Kind
from nightrec.ranker.score import scored
from nightrec.tables import CANDIDATES, EVENT_TYPES

WIDTH = len(FEATURES)
VIEW, CLICK, PURCHASE = (1 << EVENT_TYPES.index(name) for name in ("view", "click", "purchase"))


def planted(seed: int, size: int = 40_000) -> tuple[Split, np.ndarray, np.ndarray]:
    """Acted on by the first feature; of the actions all are views, and those of a high second feature purchases too;
    with the true probabilities of an action and of a purchase."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(size, WIDTH)).astype(np.float32)
    any_action = sigmoid(features[:, 0].astype(float) - 2)
    purchase = any_action * sigmoid(2 * features[:, 1].astype(float) - 1)
    drawn = rng.random((2, size))
    acted = drawn[0] < any_action
    bought = acted & (drawn[1] < sigmoid(2 * features[:, 1].astype(float) - 1))
    split = Split(
        first=0, folds=np.zeros(size, np.int32), lists=(np.arange(size) // 20).astype(np.int32),
        items=np.zeros(size, np.int32), labels=acted.astype(np.float32),
        kinds=(acted * VIEW + bought * PURCHASE).astype(np.int32),
        ratings=np.full(size, np.nan, np.float32), features=features,
    )
    return split, any_action, purchase


def test_a_kind_s_probability_is_calibrated_and_orders_by_its_own_features() -> None:
    (train, _, _), (valid, any_action, purchase) = planted(1), planted(2)
    too_sure = sigmoid(2 * (np.log(any_action) - np.log1p(-any_action)) + 1)
    found, lines = kinds.learned(train, valid, sigmoid(np.log(any_action) - np.log1p(-any_action)), too_sure)
    assert list(found) == ["view", "purchase"] and [line["kind"] for line in lines] == ["any", "view", "purchase"]
    bought = found["purchase"].probabilities(valid.features, any_action)
    assert np.abs(bought - purchase).mean() < 0.01 and np.corrcoef(bought, any_action)[0, 1] < 0.8
    np.testing.assert_allclose(found["view"].probabilities(valid.features, any_action), any_action, atol=0.02)
    by_kind = {line["kind"]: line for line in lines}
    assert by_kind["any"]["positives"] == by_kind["view"]["positives"] == valid.labels.sum()
    assert by_kind["purchase"]["positives"] == (valid.kinds & PURCHASE > 0).sum()
    assert by_kind["any"]["error_before"] > 0.05
    assert all(line["error_after"] < 0.01 for line in lines)
    assert by_kind["any"]["error_before"] == probability.calibrated(too_sure, valid.labels).error


def test_the_error_after_is_of_a_sigmoid_the_lists_did_not_fit() -> None:
    # In lists of odd number higher scores act, in the others lower ones: what one half teaches is wrong for the other.
    lists = np.repeat(np.arange(1000), 4).astype(np.int32)
    scores = np.tile([-1.0, 1.0], 2000)
    labels = ((scores > 0) == (lists % 2 == 1)).astype(np.float32)
    line = kinds._line("any", labels, np.full(4000, 0.5), scores, lists)
    assert line["error_before"] == 0
    assert line["error_after"] > 0.4
    assert platt(scores, labels)[0] < 0.02


def test_the_regression_is_the_penalised_optimum_and_survives_what_never_varies() -> None:
    rng = np.random.default_rng(3)
    given = np.column_stack([rng.normal(5, 3, 500), np.full(500, 7.0), rng.normal(0, 1e-3, 500)])
    labels = (rng.random(500) < sigmoid(0.5 * given[:, 0] - 2)).astype(float)
    found = kinds.logistic(given, labels)
    spread = given.std(0)

    def cost(weights: np.ndarray) -> float:
        odds = given @ weights[:-1] + weights[-1]
        moved = weights[:-1] * np.where(spread > 1e-6, spread, 1)
        return float((np.logaddexp(0, odds) - labels * odds).sum() + 5 * (moved**2).sum())

    for step in np.vstack([np.eye(4), -np.eye(4)]):
        assert cost(found) < cost(found + 1e-3 * step)
    assert kinds.logistic(given, np.ones(500)).tolist() == [0, 0, 0, pytest.approx(np.log(500.5 / 0.5))]


def test_the_error_is_that_of_the_evaluation(spark: Any) -> None:
    rng = np.random.default_rng(5)
    predicted = rng.beta(0.3, 3, 500).clip(1e-6, 1 - 1e-6)
    labels = (rng.random(500) < predicted**2).astype(np.float32)
    rows = spark.createDataFrame([*zip(predicted.tolist(), labels.astype(float).tolist(), strict=True)],
                                 "probability double, label double")
    assert probability.calibrated(predicted, labels).error == pytest.approx(probability.calibration(rows).error)


def test_lists_order_by_what_items_are_worth(rows: Any, tmp_path: Any) -> None:
    """Two items: the first is clicked on more likely, the second, less likely acted on at all, is bought."""
    network = heads.Network(model.torch.zeros(WIDTH), model.torch.ones(WIDTH), model.torch.tensor(0.0), (2,))
    for weight in network.parameters():
        weight.data.zero_()
    click, purchase = np.zeros(WIDTH + 1), np.zeros(WIDTH + 1)
    click[0], purchase[0], purchase[-1] = 2.0, -2.0, -0.5
    learned = {"click": Kind(click, 1.5, 0.25), "purchase": Kind(purchase)}
    ranker = members.packed({"network_a": model.dumped(network)}, {}, Blend({"network_a": 1.0}, 1.0, -0.5), learned)
    found = members.unpacked(ranker).kinds
    assert {name: kind.slope for name, kind in found.items()} == {"click": 1.5, "purchase": 1.0}
    file = tmp_path / "model.safetensors"
    sha256 = model.write(ranker, file)
    given = np.zeros((2, WIDTH))
    given[:, 0] = [1, -1]
    candidates = rows(CANDIDATES, [
        {"list_kind": "user", "list_key": "u", "item_id": item, "features": values.tolist()}
        for item, values in zip("ab", given, strict=True)
    ])

    def scores(values: dict[str, float]) -> list[float]:
        frame = scored(candidates, str(file), sha256, FEATURES, {}, values, lambda: None)  # type: ignore[arg-type]
        return [row["score"] for row in frame.orderBy(F.col("item_id")).collect()]

    one = 1 / (1 + np.exp(0.5))  # the blend's probability of any action, of either

    def odds(p: np.ndarray) -> np.ndarray:
        return np.log(p) - np.log1p(-p)

    clicked = sigmoid(1.5 * odds(one * sigmoid(np.array([2.0, -2.0]))) + 0.25)
    bought = one * sigmoid(np.array([-2.5, 1.5]))
    assert scores({}) == pytest.approx([one, one])
    assert scores({"click": 1.0}) == pytest.approx(clicked.tolist(), abs=1e-6) and clicked[0] > clicked[1]
    worth = scores({"click": 0.5, "purchase": 30.0})
    assert worth == pytest.approx((0.5 * clicked + 30 * bought).tolist(), abs=1e-5) and worth[1] > worth[0] > 1
    with pytest.raises(NightrecError, match=r"names rating, but the ranker .* learned from click, purchase;"):
        scores({"rating": 1.0, "click": 1.0})
