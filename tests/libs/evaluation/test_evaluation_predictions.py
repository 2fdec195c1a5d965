"""Ratings predicted by planted factors and a planted network, against those that arrived after the night."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from nightrec.evaluation import predictions
from nightrec.features import FEATURES
from nightrec.models import als_model_id
from nightrec.night import Night
from nightrec.ranker import heads, members, model
from nightrec.ranker.blend import Blend
from nightrec.tables import ALS_ITEM_FACTORS, ALS_USER_FACTORS, CANDIDATES, CLEAN_EVENTS, RANKER_MODELS

DAY = dt.date(2026, 3, 10)


def later(days: int) -> dt.date:
    return DAY + dt.timedelta(days=days)


def rated(key: str, user: str, item: str, value: float | None, arrived: dt.date, kind: str = "rating") -> Any:
    moment = dt.datetime(arrived.year, arrived.month, arrived.day, 12, tzinfo=dt.UTC)
    return {
        "event_key": key, "user_id": user, "item_id": item, "value": value, "ingest_date": arrived,
        "event_date": arrived, "event_ts": moment, "event_type": kind,
    }  # fmt: skip


def test_ratings_of_the_days_after_against_the_product_of_factors(rows: Any, night: Night, spark: Any) -> None:
    config = night.config.model_copy(update={"als": night.config.als.model_copy(update={"feedback": "explicit"})})
    explicit = Night(spark, config, DAY, als_model_id(DAY, config), "none", night.store)
    model = explicit.als_model
    factors = {"as_of_date": DAY, "model_id": model}
    night.store.replace(ALS_ITEM_FACTORS, rows(ALS_ITEM_FACTORS, [
        {**factors, "item_id": "a", "factors": [1.0, 2.0]}, {**factors, "item_id": "b", "factors": [0.5, 0.0]},
    ]), {"as_of_date": DAY, "model_id": model})  # fmt: skip
    own = {"run_date": DAY, "als_model": model}
    night.store.replace(
        ALS_USER_FACTORS, rows(ALS_USER_FACTORS, [{**own, "user_id": "u", "factors": [2.0, 1.0]}]), own
    )

    night.store.append(CLEAN_EVENTS, rows(CLEAN_EVENTS, [
        # Of two ratings the later: 5 where 2 + 2 = 4 was predicted; 4 where 1 was.
        rated("1", "u", "a", 1.0, later(1)), rated("2", "u", "a", 5.0, later(2)), rated("3", "u", "b", 4.0, later(7)),
        # Before the night, after the days, no rating, a user and an item without factors.
        rated("4", "u", "a", 1.0, DAY), rated("5", "u", "b", 1.0, later(8)),
        rated("6", "u", "b", 9.0, later(3), "view"), rated("7", "v", "a", 1.0, later(1)),
        rated("8", "u", "c", 1.0, later(1)),
        # Given before the night, though it arrived after it.
        {**rated("9", "u", "b", 1.0, later(7)), "event_date": DAY, "event_ts": dt.datetime(2026, 3, 28, tzinfo=dt.UTC)},
    ]))  # fmt: skip
    found = predictions.squared_errors(explicit, 7)["factors"]
    assert found.rows == 2 and found.total == pytest.approx(1 + 9)
    # Where weights were learned nothing predicts a rating.
    assert predictions.squared_errors(night, 7) == {}


def test_ratings_that_were_candidates_against_the_network(rows: Any, night: Night, spark: Any) -> None:
    """A network that says 3 and the first feature, of every candidate."""
    ranker = night.config.ranker.model_copy(update={"loss": "squared"})
    config = night.config.model_copy(update={"ranker": ranker})
    squared = Night(spark, config, DAY, "als", "ranker", night.store)
    width = len(FEATURES)
    network = heads.Network(model.torch.zeros(width), model.torch.ones(width), model.torch.tensor(0.0), (2,))
    for weight in network.parameters():
        weight.data.zero_()
    network.layers[0].weight.data[0, 0] = network.output.weight.data[0, 0] = 1.0
    network.constant.data.fill_(3.0)
    blob = members.packed({"network_squared": model.dumped(network)}, {}, Blend({"network_squared": 1.0}, 1.0, 0.0), {})
    sha256 = model.write(blob, Path(config.paths.models) / "ranker/model.safetensors")
    night.store.put(RANKER_MODELS, [{
        "as_of_date": DAY, "model_id": "ranker", "features": list(FEATURES), "settings": [], "data_versions": [],
        "processes": 1, "weights": "ranker/model.safetensors", "weights_sha256": sha256, "best_epochs": {},
        "epochs": [], "choices": [], "calibration": [],
    }], {"as_of_date": DAY, "model_id": "ranker"})  # fmt: skip
    mine = {"run_date": DAY, "als_model": "als", "list_kind": "user", "source": "als"}
    night.store.replace(CANDIDATES, rows(CANDIDATES, [
        {**mine, "list_key": user, "item_id": item, "features": [first] + [0.0] * (width - 1)}
        for user, item, first in (("u", "a", 1.0), ("u", "b", 0.5), ("v", "a", 0.0))
    ]), {"run_date": DAY, "als_model": "als"})  # fmt: skip
    night.store.append(CLEAN_EVENTS, rows(CLEAN_EVENTS, [
        # 5 where 4 was said, 3 where 3.5 was; the last was no candidate.
        rated("1", "u", "a", 5.0, later(1)), rated("2", "u", "b", 3.0, later(1)), rated("3", "u", "c", 3.0, later(1)),
    ]))  # fmt: skip
    found = predictions.squared_errors(squared, 7)["network"]
    assert found.rows == 2 and found.total == pytest.approx(1.25)
