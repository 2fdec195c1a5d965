"""Gradient-boosted trees beside the network, trained by xgboost's own Spark estimators on the same examples.

Two kinds: `binary` learns whether a candidate is acted on, over all users alike; `ranking` which of a list's candidates
come first (LambdaMART on NDCG; Burges 2010, "From RankNet to LambdaRank to LambdaMART"). Which is better differs by
log; their mean was never far from the best of them.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xgboost
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

if TYPE_CHECKING:
    from nightrec.config import Ranker

KINDS = ("binary", "ranking")
# Numbers for lists: two lists that share one are learned from as one, which is rare and harms nothing.
_LISTS = 2**31 - 1


# Trees of this session's trainings, by what they follow from: some megabytes each.
_KEPT: dict[Hashable, dict[str, bytes]] = {}
_MOST = 12


def kept(which: Hashable, examples: DataFrame, settings: Ranker, workers: int) -> dict[str, bytes]:
    """As `trained`, once per session for examples of the same name `which` and the same settings: rankers that differ
    in their network alone have the same trees."""
    own = {name: value for name, value in settings.model_dump().items() if name.startswith("tree") or name == "seed"}
    key = which, workers, tuple(own.items())
    if key not in _KEPT:
        if len(_KEPT) == _MOST:
            del _KEPT[next(iter(_KEPT))]
        _KEPT[key] = trained(examples, settings, workers)
    return _KEPT[key]


def trained(examples: DataFrame, settings: Ranker, workers: int) -> dict[str, bytes]:
    """A model of each of KINDS (xgboost's UBJSON), trained by so many barrier tasks at once on rows of RANKER_EXAMPLES.

    The same rows in the same number of workers give the same trees, in whatever order they come.
    """
    from xgboost.spark import SparkXGBClassifier, SparkXGBRanker

    number = F.pmod(F.xxhash64("cut_date", "user_id"), F.lit(_LISTS)).cast("int")
    rows = examples.select("features", "label", "user_id", "item_id", number.alias("_list"))
    # Split by list and put in order here, so that neither files nor their order decide what a worker sums up first.
    ordered = rows.repartition(workers, "_list").sortWithinPartitions("_list", "user_id", "item_id").persist()
    shape: dict[str, Any] = {
        "features_col": "features",
        "label_col": "label",
        "num_workers": workers,
        "n_estimators": settings.trees,
        "max_depth": settings.tree_depth,
        "learning_rate": settings.tree_learning_rate,
        "min_child_weight": settings.tree_leaf_weight,
        "reg_lambda": settings.tree_penalty,
        "subsample": settings.tree_rows,
        "colsample_bytree": settings.tree_features,
        "tree_method": "hist",
        "max_bin": 128,
        "random_state": settings.seed,
        "verbosity": 0,
    }
    # Else it tells of every tree.
    logging.getLogger("XGBoost-PySpark").setLevel(logging.WARNING)
    try:
        binary = SparkXGBClassifier(**shape, verbose=False).fit(ordered.select("features", "label"))
        ranking = SparkXGBRanker(**shape, qid_col="_list", objective="rank:ndcg").fit(ordered)
    finally:
        ordered.unpersist()
    return {
        kind: bytes(model.get_booster().save_raw("ubj"))
        for kind, model in zip(KINDS, (binary, ranking), strict=True)
    }


def loaded(model: bytes) -> xgboost.Booster:
    """A model of `trained`, ready to score in one thread: every core has its task."""
    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(model))
    return booster


def margins(booster: xgboost.Booster, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(N, F) features to (N,) scores: the logarithm of the odds for `binary`, of no unit for `ranking`."""
    found: npt.NDArray[np.float64] = booster.inplace_predict(features, predict_type="margin").astype(np.float64)
    return found
