"""Gradient-boosted trees beside the network, by xgboost, on the same examples and in the same processes.

Two kinds: `binary` learns whether a candidate is acted on, over all users alike; `ranking` which of a list's candidates
come first (LambdaMART on NDCG; Burges 2010, "From RankNet to LambdaRank to LambdaMART"). Which is better differs by
log; their mean was never far from the best of them.

xgboost's own Spark estimators would start a barrier job per model, two Python processes per worker, and a second parent
of workers that loads torch again: see teams.py for how the processes that train the network do it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xgboost

from nightrec.failpoint import reach
from nightrec.lifeline import progress

if TYPE_CHECKING:
    from nightrec.config import Ranker
    from nightrec.ranker.dataset import Split

# Of each kind its objective.
_OBJECTIVES = {"binary": "binary:logistic", "ranking": "rank:ndcg"}
KINDS = tuple(_OBJECTIVES)
_BINS = 128


def trained(kind: str, examples: Split, settings: Ranker) -> bytes:
    """A model (xgboost's UBJSON) of one of KINDS, in one thread.

    Where xgboost's collective runs, its processes train one model together, each on lists of its own, and all get it.
    Left without any, a process takes part all the same.
    """
    data = xgboost.QuantileDMatrix(
        examples.features, examples.labels, qid=examples.lists, max_bin=_BINS, nthread=1
    )
    shape = {
        "objective": _OBJECTIVES[kind],
        "max_depth": settings.tree_depth,
        "learning_rate": settings.tree_learning_rate,
        "min_child_weight": settings.tree_leaf_weight,
        "reg_lambda": settings.tree_penalty,
        "subsample": settings.tree_rows,
        "colsample_bytree": settings.tree_features,
        "tree_method": "hist",
        "max_bin": _BINS,
        "seed": settings.seed,
        "nthread": 1,
        "verbosity": 0,
    }
    return bytes(xgboost.train(shape, data, settings.trees, callbacks=[_Growing()]).save_raw("ubj"))


class _Growing(xgboost.callback.TrainingCallback):
    """Says after each tree that the training gets on."""

    def after_iteration(self, *_: Any) -> bool:
        """False: do not stop."""
        progress()
        reach("ranker_model.tree")
        return False


def loaded(model: bytes) -> xgboost.Booster:
    """A model of `trained`, ready to score in one thread: every core has its task."""
    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(model))
    return booster


def margins(booster: xgboost.Booster, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(N, F) features to (N,) scores: the logarithm of the odds for `binary`, of no unit for `ranking`."""
    found: npt.NDArray[np.float64] = booster.inplace_predict(features, predict_type="margin").astype(np.float64)
    return found
