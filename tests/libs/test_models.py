"""A night keeps the models it used first."""

from __future__ import annotations

import datetime as dt

import pytest

from nightrec import models
from nightrec.config import Als, Config
from nightrec.errors import UsageError
from nightrec.night import Night
from nightrec.store import arrow, version
from nightrec.tables import ALS_ITEM_FACTORS, NIGHT_MODELS, RANKER_MODELS

NIGHT = dt.date(2026, 3, 10)
SUNDAY, MONDAY = dt.date(2026, 3, 8), dt.date(2026, 3, 9)


def train(night: Night, as_of: dt.date, als: str, ranker: str) -> None:
    """What a training leaves behind, as little of it as a night asks for."""
    factors = {"as_of_date": as_of, "model_id": als, "item_id": "i", "factors": [1.0]}
    night.store.put(ALS_ITEM_FACTORS, [factors], {"as_of_date": as_of, "model_id": als})
    model = {
        "as_of_date": as_of,
        "model_id": ranker,
        "weights": "w",
        "weights_sha256": "0",
        "features": [],
        "settings": [],
        "data_versions": [],
        "processes": 2,
        "best_epochs": {},
        "epochs": [],
        "choices": {},
        "calibration": [],
    }
    night.store.put(RANKER_MODELS, [model], {"as_of_date": as_of, "model_id": ranker})


def test_models_are_pinned_when_a_night_first_asks(night: Night) -> None:
    with pytest.raises(UsageError, match=r"no item factors trained as of 2026-03-10.*nightrec train"):
        _ = night.als_model
    assert version(night.store.warehouse, NIGHT_MODELS) == -1, "an error pins nothing"
    train(night, SUNDAY, "als-1", "ranker-1")
    # a model of a later date is none of this night's
    train(night, dt.date(2026, 3, 11), "als-9", "ranker-9")
    first = night.at(NIGHT)
    assert (first.als_model, first.ranker_model) == ("als-1", "ranker-1")
    train(night, MONDAY, "als-2", "ranker-2")
    again = night.at(NIGHT)
    assert (again.als_model, again.ranker_model) == ("als-1", "ranker-1"), "a newer training changes nothing"
    pinned = version(night.store.warehouse, NIGHT_MODELS)
    assert night.at(dt.date(2026, 3, 11)).als_model == "als-9"
    # naming a model pins the night anew, and only what is named
    named = night.at(NIGHT, "als-2")
    assert (named.als_model, named.ranker_model) == ("als-2", "ranker-1")
    assert night.at(NIGHT).als_model == "als-2"
    rows = arrow(night.store.warehouse, NIGHT_MODELS, {"run_date": NIGHT}).to_pylist()
    assert rows == [
        {"run_date": NIGHT, "als_model": "als-2", "ranker_model": "ranker-1", "encoder": night.config.encoder.id}
    ]
    assert version(night.store.warehouse, NIGHT_MODELS) == pinned + 2, "asking again commits nothing"


def test_same_date_is_the_factorization_of_the_night_itself(night: Night) -> None:
    assert night.at(MONDAY, "same-date").als_model == models.als_model_id(MONDAY, night.config)


def test_ids_follow_from_date_and_settings() -> None:
    config = Config()
    assert models.als_model_id(NIGHT, config) == models.als_model_id(NIGHT, Config())
    assert models.als_model_id(NIGHT, config).startswith("als-20260310-")
    other = config.model_copy(update={"als": Als(rank=7)})
    assert models.als_model_id(NIGHT, other) != models.als_model_id(NIGHT, config)
    assert models.ranker_model_id(NIGHT, other) == models.ranker_model_id(NIGHT, config)


def test_newest_where_there_is_nothing(config: Config) -> None:
    assert models.newest(config.paths.warehouse, "als", NIGHT) is None
