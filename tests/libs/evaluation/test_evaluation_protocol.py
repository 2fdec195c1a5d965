"""How many days after each cut are judged, with which settings, and what is taken for a probability."""

from __future__ import annotations

import datetime as dt
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from contract_rows import NIGHT
from pyspark.sql import SparkSession
from synthetic import deployment

from nightrec import runner
from nightrec.config import Candidates, Config, Paths, Ranker, load
from nightrec.errors import UsageError
from nightrec.evaluation import judge, protocol
from nightrec.night import Night, decided
from nightrec.tables import RANKED_TOPK, RANKER_MODELS

FIRST = dt.date(2026, 3, 1)


def shop(root: Path, days: int, horizon: int | None) -> Config:
    """A deployment with events of so many days, and of one day that is not asked for."""
    for n in (*range(days), 400):
        (root / f"events/ingest_date={FIRST + dt.timedelta(days=n)}").mkdir(parents=True)
    # None: the horizon follows from the log.
    return Config(paths=Paths(raw=str(root)), ranker=Ranker().model_copy(update={"horizon_days": horizon}))


@pytest.mark.parametrize(
    ("days", "horizon", "cuts", "taken"),
    [
        # 3 cuts of 14 days and twice 14 before them, and the last day.
        (71, 14, 3, 14), (70, 14, 3, 7), (50, 14, 3, 7), (49, 14, 3, 3), (37, 14, 3, 1), (32, 14, 3, 1),
        (57, 14, 2, 14), (43, 14, 1, 14),
        # A horizon that goes with the log is as long as what is judged.
        (71, None, 3, 14), (70, None, 3, 7), (36, None, 3, 7), (35, None, 3, 3), (16, None, 3, 3), (15, None, 3, 1),
        # The first cut's own day and three more, by which the log decides its horizon.
        (7, None, 3, 1), (5, 1, 1, 1),
    ],
)  # fmt: skip
def test_the_most_days_that_the_log_permits(
    tmp_path: Path, days: int, horizon: int | None, cuts: int, taken: int
) -> None:
    config, last = shop(tmp_path, days, horizon), FIRST + dt.timedelta(days=days - 1)
    found, _ = protocol.days_for(config, cuts, last)
    assert found == taken
    wanted = protocol.cuts(config, cuts, taken, last)
    assert wanted == [last - dt.timedelta(days=taken * n) for n in range(cuts, 0, -1)]
    longer = next((more for more in reversed(protocol.DAYS) if more > taken), None)
    if longer:
        with pytest.raises(UsageError, match=f"{cuts} cuts of {longer} days and a training of twice "):
            protocol.cuts(config, cuts, longer, last)


def test_why_is_told(tmp_path: Path) -> None:
    last = FIRST + dt.timedelta(days=39)
    config = shop(tmp_path, 40, 14)
    assert protocol.days_for(config, 3, last) == (
        3, "The log's 40 days are too short for 3 cuts of 14 days: judged by 3 days after each."
    )  # fmt: skip
    one = last - dt.timedelta(days=8)  # 32 days
    assert protocol.days_for(config, 1, one) == (
        3, "The log's 32 days are too short for 1 cut of 14 days: judged by 3 days after it."
    )  # fmt: skip
    assert protocol.days_for(config, 3)[1] == (
        "The log's 401 days are long enough for 3 cuts of 14 days: judged by 14 days after each."
    )


def test_no_log_is_long_enough_for_anything(tmp_path: Path) -> None:
    config, last = shop(tmp_path, 31, 14), FIRST + dt.timedelta(days=30)
    for until, arrived in ((last, 31), (FIRST - dt.timedelta(days=1), 0)):
        days, _ = protocol.days_for(config, 3, until)
        assert days == 1
        with pytest.raises(UsageError, match=f"twice 14 days need 31 days before the last; the {arrived} dates of "):
            protocol.cuts(config, 3, days, until)
    with pytest.raises(UsageError, match=r"dealt out to their days by `nightrec init FILE --out FOLDER`$"):
        protocol.cuts(config, 1, 1, FIRST)  # everything came on one date


def test_a_cut_is_judged_with_what_the_log_had_decided_by_then(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a cut after 21 days it is open whether people come back to items; the days it is judged by settle that."""
    toml, made = deployment(tmp_path, users=30, items=6, days=35)
    config = protocol.apart(load(toml), "evaluation")
    config = config.model_copy(update={"candidates": Candidates()})
    # Cleaning alone: that is where the log decides.
    monkeypatch.setattr(protocol, "LISTING", protocol.LISTING[:1])
    monkeypatch.setattr(runner, "train", lambda *_: ())
    cut = made.last - dt.timedelta(days=14)
    nights = protocol.nights(spark, config, [cut], 14, lambda _: nullcontext(), lambda _: None)
    (found,) = (night for night, _ in nights)
    assert found.date == cut and found.config.candidates.repeats_allowed is None
    assert decided(config, made.last).candidates.repeats_allowed is True



def test_a_catalogue_that_has_outgrown_a_family_is_judged_without_it() -> None:
    chosen = {("EASE", True): "penalty 30", ("iALS", False): "alpha 2, penalty 0.1"}
    assert judge.of_catalogue(chosen, 5000) == chosen
    assert judge.of_catalogue(chosen, 5001) == {("iALS", False): "alpha 2, penalty 0.1"}


def test_only_what_a_ranker_ordered_has_a_probability(spark: SparkSession, night: Night, rows: Any) -> None:
    lists = {"run_date": NIGHT, "list_kind": "user", "list_key": "u", "score": 0.25, "source": "als"}
    night.store.replace(RANKED_TOPK, rows(RANKED_TOPK, [
        {**lists, "rank": 1, "item_id": "a"}, {**lists, "rank": 2, "item_id": "b", "score": 0.125},
        {**lists, "rank": 3, "item_id": "c", "source": "editorial"},
        {**lists, "rank": 4, "item_id": "d", "source": "new_items", "probability": 0.1},
    ]), {"run_date": NIGHT})  # fmt: skip
    index = spark.createDataFrame([("a", 0), ("b", 1), ("c", 2), ("d", 3)], "item_id string, item int")
    users = spark.createDataFrame([("u", 9, [0, 2])], "user_id string, events int, truth array<int>")
    log = judge.Log(4, pa.array(["a", "b", "c", "d"]), index, users)
    for weights, expected in (("r.safetensors", [(0.25, 1.0), (0.125, 0.0)]), ("", [])):
        model = {"as_of_date": NIGHT, "model_id": "r", "weights": weights}
        where = {name: model[name] for name in ("as_of_date", "model_id") if name in RANKER_MODELS.partition}
        night.store.replace(RANKER_MODELS, rows(RANKER_MODELS, [model]), where)
        past = Night(spark, night.config, NIGHT, "als", "r", night.store)
        assert [tuple(row) for row in judge._predicted(past, log).collect()] == expected
