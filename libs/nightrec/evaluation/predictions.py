"""Ratings as they were predicted, against those that users then gave: where squared error is what was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from nightrec.features import FEATURES
from nightrec.metrics import probability
from nightrec.models import ranker_row
from nightrec.past.pieces import Where
from nightrec.ranker import kernel, model
from nightrec.ranker.members import unpacked
from nightrec.tables import ALS_ITEM_FACTORS, ALS_USER_FACTORS, CANDIDATES, CLEAN_EVENTS
from nightrec.weights import placed

if TYPE_CHECKING:
    from nightrec.night import Night


def squared_errors(night: Night, days: int) -> dict[str, probability.SquaredError]:
    """By what predicted them, of the ratings given in the `days` after the night; empty where nothing predicts ratings.

    "factors" with als.feedback = "explicit": of users and items that have some. "network" with ranker.loss = "squared"
    and a network over features: of what was a candidate.
    """
    found = {}
    given = ratings(night.store.read(CLEAN_EVENTS), night, days)
    if night.config.als.feedback == "explicit":
        found["factors"] = probability.squared_error(by_factors(night, given))
    ranker = night.config.ranker
    if ranker.loss == "squared" and not ranker.reads_vectors and (predicted := by_network(night, given)) is not None:
        found["network"] = probability.squared_error(predicted)
    return found


def ratings(events: DataFrame, night: Night, days: int) -> DataFrame:
    """user_id, item_id, value: the latest rating of each pair that was given and arrived in the `days` after it."""
    last = night.date + timedelta(days=days)
    arrived = (F.col("ingest_date") > F.lit(night.date)) & (F.col("ingest_date") <= F.lit(last))
    after = arrived & (F.col("event_date") > F.lit(night.date))
    rated = events.where(after & (F.col("event_type") == "rating") & F.col("value").isNotNull())
    latest = F.max_by("value", F.struct("event_ts", "value")).alias("value")
    return rated.groupBy("user_id", "item_id").agg(latest)


def by_factors(night: Night, given: DataFrame) -> DataFrame:
    """value, predicted: the product of the factors of user and item."""
    user: Where = {"run_date": night.date, "als_model": night.als_model}
    users = night.store.read(ALS_USER_FACTORS, user).select("user_id", F.col("factors").alias("_user"))
    items = night.store.read(ALS_ITEM_FACTORS, {"model_id": night.als_model}).select("item_id", "factors")
    products = F.zip_with("_user", "factors", lambda one, other: one.cast("double") * other)
    total = F.aggregate(products, F.lit(0.0), lambda sum_, product: sum_ + product)
    return given.join(users, "user_id").join(items, "item_id").select("value", total.alias("predicted"))


def by_network(night: Night, given: DataFrame) -> DataFrame | None:
    """value, predicted: the network's score of the candidate; None where there is no ranker."""
    row = ranker_row(night.store.warehouse, night.ranker_model)
    if not row["weights"]:
        return None
    blob = model.read(placed(night.config.paths.models, row["weights"]), row["weights_sha256"])
    network = unpacked(blob).networks["network_squared"]
    assert isinstance(network, kernel.Compiled)
    rows = night.store.read(CANDIDATES, {"run_date": night.date, "als_model": night.als_model})
    known = rows.where("list_kind = 'user' AND features IS NOT NULL")
    nominated = known.select(F.col("list_key").alias("user_id"), "item_id", "features")
    return given.join(nominated, ["user_id", "item_id"]).select("value", "features").mapInArrow(
        _scoring(network), "value double, predicted double"
    )


def _scoring(network: kernel.Compiled) -> Any:
    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            features = batch["features"].flatten().to_numpy().astype(np.float32).reshape(-1, len(FEATURES))
            predicted = pa.array(network.logits(features))
            yield pa.RecordBatch.from_pydict({"value": batch["value"], "predicted": predicted})

    return work
