"""Factors of planted tastes, and that the same pairs give the same bits."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import numpy as np
import pytest
from pyspark.sql import functions as F

from nightrec.als.confidence import pair_weights, with_item_idx, with_user_idx
from nightrec.als.factorize import item_factors, ratings, trained
from nightrec.als.fold_in import user_factors
from nightrec.config import Als
from nightrec.errors import BadInput
from nightrec.tables import CLEAN_EVENTS

DAY = dt.date(2026, 3, 10)
SMALL = Als(rank=5, iterations=5, alpha=5.0, regularisation=0.05)


def planted() -> list[dict[str, Any]]:
    """24 users like 4 to 9 of the 10 items of their group, red or blue; a few also take one of the other group's."""
    rng = np.random.default_rng(3)
    events = []
    for user in range(24):
        group, other = ("red", "blue") if user % 2 else ("blue", "red")
        liked = [f"{group}{n}" for n in rng.permutation(10)[: 4 + user % 6]] + ([f"{other}0"] if user % 7 == 0 else [])
        events += [{"user_id": f"u{user}", "item_id": item, "weight": float(rng.integers(1, 6))} for item in liked]
    return events


def test_pair_weights(rows: Any) -> None:
    frame = rows(
        CLEAN_EVENTS,
        [
            {"user_id": "a", "item_id": "x", "weight": 1.0},
            {"user_id": "a", "item_id": "x", "weight": 1.0},  # the same again: a second sign, added
            {"user_id": "a", "item_id": "x", "weight": 0.0},  # seen, says nothing
            {"user_id": "a", "item_id": "y", "weight": 0.0},  # nothing but weight 0: no pair
            {"user_id": "b", "item_id": "x", "weight": 0.5},
            {"user_id": "b", "item_id": "z", "weight": 1e-9},  # below a millionth: no pair
        ],
    )
    found = {(r["user_id"], r["item_id"]): r["weight"] for r in pair_weights(frame).toArrow().to_pylist()}
    assert found == {("a", "x"): pytest.approx(math.log(3.0)), ("b", "x"): pytest.approx(math.log(1.5))}


def test_planted_tastes_come_back_bit_for_bit(rows: Any) -> None:
    events = planted()
    frame = item_factors(rows(CLEAN_EVENTS, events), SMALL, DAY, "m")
    first = frame.toArrow().sort_by("item_id")
    assert set(first["model_id"].to_pylist()) == {"m"} and set(first["as_of_date"].to_pylist()) == {DAY}
    vectors = np.array(first["factors"].to_pylist())
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = unit @ unit.T - 2 * np.eye(len(unit))
    names = first["item_id"].to_pylist()
    assert len(names) == 20
    for item, row in zip(names, near, strict=True):
        assert names[int(row.argmax())].rstrip("0123456789") == item.rstrip("0123456789"), item
    # The same pairs in another order, in more partitions, and with one event split in two.
    split = {**events[0], "weight": 0.5}
    again = [split, *reversed(events[1:]), {**events[0], "weight": events[0]["weight"] - 0.5}]
    shuffled = rows(CLEAN_EVENTS, again).repartition(5, F.col("item_id"))
    assert item_factors(shuffled, SMALL, DAY, "m").toArrow().sort_by("item_id").equals(first)


def test_users_equal_the_last_half_step_of_the_trainer(rows: Any) -> None:
    """Spark ML ends by solving the users against its final item factors: ours must be those."""
    frame = rows(CLEAN_EVENTS, planted()).persist()
    pairs = pair_weights(frame)
    index = with_index(frame)
    model = trained(ratings(pairs, index, SMALL.blocks), SMALL)
    by_idx = {r["id"]: r["features"] for r in model.userFactors.toArrow().to_pylist()}
    number = {r["user_id"]: r["user_idx"] for r in with_user_idx(with_item_idx(pairs, index)).toArrow().to_pylist()}
    assert len(set(number.values())) == len(number) == 24
    items = model.itemFactors.withColumnRenamed("id", "item_idx").withColumnRenamed("features", "factors")
    named = items.join(frame.sparkSession.createDataFrame(index), "item_idx").select("item_id", "factors")
    ours = {r["user_id"]: r["factors"] for r in user_factors(frame, named, SMALL).toArrow().to_pylist()}
    frame.unpersist()
    assert set(ours) == set(number)
    for user, factors in ours.items():
        np.testing.assert_allclose(factors, by_idx[number[user]], atol=1e-5, err_msg=user)


def with_index(frame: Any) -> Any:
    from nightrec.als.confidence import item_index

    return item_index(frame.select("item_id").toArrow()["item_id"])


def test_nothing_to_factorize(rows: Any) -> None:
    only_seen = rows(CLEAN_EVENTS, [{"user_id": "a", "item_id": "x", "weight": 0.0}])
    with pytest.raises(BadInput, match="2026-03-10: no event with weight above 0 had arrived by then"):
        item_factors(only_seen, SMALL, DAY, "m")
