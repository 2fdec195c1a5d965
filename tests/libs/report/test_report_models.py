"""How old the models of a night are, and that the nights after a training that failed say so until one succeeds."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from nightrec.errors import Fenced, TrainingFailed
from nightrec.night import Night
from nightrec.report.models import serving
from nightrec.store import arrow
from nightrec.tables import ALS_ITEM_FACTORS, LEDGER, NIGHT_MODELS, RANKER_MODELS

FIRST, FAILED, TONIGHT = dt.date(2026, 3, 3), dt.date(2026, 3, 9), dt.date(2026, 3, 10)
KILLED = TrainingFailed("training process 1 of 2 (pid 7 on host) died without a word")


def fails(error: Exception) -> Any:
    def job(night: Night) -> None:
        night.book("input", 5, "ranker_examples")
        raise error

    return job


def works(night: Night) -> None:
    night.book("written", 1, "ranker_models")


@pytest.fixture
def trained(night: Night) -> Night:
    """A night with models of a week before, whose training is in the books."""
    store = night.store
    as_of = {"as_of_date": FIRST}
    store.put(RANKER_MODELS, [
        {**as_of, "model_id": "ranker-20260303-a", "weights": "", "weights_sha256": "", "features": [], "settings": {},
         "data_versions": {}, "processes": 2, "best_epochs": {}, "epochs": [], "choices": {}, "calibration": []}
    ], {**as_of, "model_id": "ranker-20260303-a"})
    factors = {**as_of, "model_id": "als-20260303-b", "item_id": "i", "factors": [1.0]}
    store.put(ALS_ITEM_FACTORS, [factors], {**as_of, "model_id": "als-20260303-b"})
    pins = {"run_date": TONIGHT, "ranker_model": "ranker-20260303-a", "als_model": "als-20260303-b", "encoder": "e"}
    store.put(NIGHT_MODELS, [pins], {"run_date": TONIGHT})
    night.at(FIRST).run("ranker_model", works)
    return night


def test_a_training_that_failed_is_told_until_one_succeeds(trained: Night) -> None:
    warehouse = trained.store.warehouse
    models = (
        "Models: ranker ranker-20260303-a, trained as of 2026-03-03, 7 days before the night; "
        "item factors als-20260303-b, trained as of 2026-03-03, 7 days before the night."
    )
    assert serving(warehouse, TONIGHT).lines() == [models]
    with pytest.raises(TrainingFailed):
        trained.at(FAILED).run("ranker_model", fails(KILLED))
    said = serving(warehouse, TONIGHT)
    assert said.lines() == [
        models,
        f"The training as of 2026-03-09 failed: ranker_model: {KILLED}.",
        "Nights keep the models they have until a training succeeds.",
    ]
    told = said.as_dict()
    assert told["last_training"] == "2026-03-09" and told["failures"] == [f"ranker_model: {KILLED}"]
    assert [(model["model_id"], model["days"]) for model in told["models"]] == [
        ("ranker-20260303-a", 7), ("als-20260303-b", 7)
    ]
    # A night before it knows nothing of it, and has no models of its own here.
    assert serving(warehouse, FIRST).lines() == []
    # The same training, run again.
    trained.at(FAILED).run("ranker_model", works)
    assert serving(warehouse, TONIGHT).lines() == [models]


def test_a_past_night_that_fails_is_its_training_s_failure(trained: Night) -> None:
    warehouse, training = trained.store.warehouse, trained.at(FAILED)
    cut = training.cut(1)
    trained.at(cut.date).run("candidates", works)  # of that night itself, long before
    # What the text of any other error holds is not for the books.
    with pytest.raises(ZeroDivisionError):
        cut.run("candidates", fails(ZeroDivisionError("user u1")))
    assert serving(warehouse, TONIGHT).failures == (
        f"ranker_examples: candidates of {cut.date}: ZeroDivisionError",
    )
    books = arrow(warehouse, LEDGER, {"stage": "candidates", "run_date": cut.date}).to_pylist()
    assert [(line["fate"], line["row_count"]) for line in books] == [("written", 1)]
    training.run("ranker_examples", works)
    assert serving(warehouse, TONIGHT).failures == ()


def test_a_stage_of_the_night_and_a_fenced_attempt_are_no_failed_training(trained: Night) -> None:
    for stage, error in (("candidates", KILLED), ("ranker_model", Fenced("another attempt"))):
        with pytest.raises(type(error)):
            trained.run(stage, fails(error))
    assert serving(trained.store.warehouse, TONIGHT).trained == FIRST
