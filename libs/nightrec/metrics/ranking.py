"""How good ranked lists are, user by user."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]

FIGURES = ("ndcg", "recall", "precision", "f1", "hit", "average_precision", "debiased_ndcg")
_COUNTS = ("hit_count", "truth_count")
_PER_USER = f"user_id string, {', '.join(f'{name} double' for name in FIGURES)}, hit_count bigint, truth_count bigint"


def figures(shown: Ints, starts: Ints, wanted: Ints, weights: Doubles, k: int) -> Doubles:
    """U x 9, in the order of FIGURES, hit_count, truth_count: each user's list, cut at k, against what the user did.

    `shown` (U x L) has item numbers best first, below 0 where there is none; user u then acted on the distinct items
    wanted[starts[u]:starts[u + 1]], at least one, each with its weight above 0 (1 for every item alike). A number below
    0 in `wanted` is an item that no list can hold.

    Relevance is binary. DCG sums 1/log2(rank + 1) over the hits within k and is divided by the best that
    min(k, truth_count) hits could give (Järvelin & Kekäläinen 2002, "Cumulated gain-based evaluation of IR
    techniques"); debiased_ndcg does so with the weights as gains. Recall is hit_count over truth_count, also where
    truth_count is above k; precision is hit_count over k, also where the list is shorter; f1 is their harmonic mean.
    average_precision sums the precision at each hit and is divided by min(k, truth_count); its mean is MAP@k. hit is 1
    where anything was. An item listed twice counts once, at its better rank.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, found {k}")
    found = np.zeros((len(shown), len(FIGURES) + len(_COUNTS)))
    _figures(shown[:, :k], starts, wanted, weights, k, found)
    return found


@njit(cache=True, nogil=True)
def _figures(shown: Any, starts: Any, wanted: Any, weights: Any, k: int, found: Any) -> None:
    discounts = 1 / np.log2(np.arange(2.0, k + 2))
    for user in range(len(shown)):
        own, gains = wanted[starts[user] : starts[user + 1]], weights[starts[user] : starts[user + 1]]
        dcg, weighted, hits, precisions = 0.0, 0.0, 0, 0.0
        for place in range(shown.shape[1]):
            item = shown[user, place]
            if item < 0 or (shown[user, :place] == item).any():
                continue
            for at in range(len(own)):
                if own[at] == item:
                    hits += 1
                    dcg += discounts[place]
                    weighted += discounts[place] * gains[at]
                    precisions += hits / (place + 1)
                    break
        most = min(k, len(own))
        best = np.sort(gains)[::-1][:most]
        precision, recall = hits / k, hits / len(own)
        found[user, 0] = dcg / discounts[:most].sum()
        found[user, 1] = recall
        found[user, 2] = precision
        found[user, 3] = 2 * precision * recall / (precision + recall) if hits else 0.0
        found[user, 4] = 1.0 if hits else 0.0
        found[user, 5] = precisions / most
        found[user, 6] = weighted / (best * discounts[:most]).sum()
        found[user, 7] = hits
        found[user, 8] = len(own)


@njit(cache=True, nogil=True)
def recall_of(shown: Any, starts: Any, wanted: Any, members: Any, k: int) -> Any:
    """U x C: the recall at k of each user's items of each of C classes (`members`, items x C); NaN without any.

    The rest as in `figures`; an item that no list can hold is in no class.
    """
    hits = np.zeros((len(shown), members.shape[1]))
    there = np.zeros_like(hits)
    for user in range(len(shown)):
        for item in wanted[starts[user] : starts[user + 1]]:
            if item < 0:
                continue
            is_shown = (shown[user, :k] == item).any()
            for one in range(members.shape[1]):
                if members[item, one]:
                    there[user, one] += 1
                    hits[user, one] += is_shown
    return np.where(there > 0, hits / np.maximum(there, 1), np.nan)


def per_user(lists: DataFrame, truth: DataFrame, k: int) -> DataFrame:
    """`figures` of each user's list: one row per user of `truth`, with user_id and a column per figure.

    `lists` has user_id, item_id and the 1-based rank, unique in its list; `truth` user_id and item_id, duplicates
    counting once, and perhaps `weight`. A user with truth and without a list scores 0; one without truth has no row.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, found {k}")
    weight = F.max("weight").cast("double") if "weight" in truth.columns else F.lit(1.0)
    wanted = truth.groupBy("user_id", "item_id").agg(weight.alias("weight")).groupBy("user_id")
    shown = lists.where(F.col("rank") <= k).groupBy("user_id")
    users = wanted.agg(F.collect_list("item_id").alias("_wanted"), F.collect_list("weight").alias("_weights")).join(
        shown.agg(F.collect_list("item_id").alias("_items"), F.collect_list("rank").alias("_ranks")), "user_id", "left"
    )
    return users.mapInArrow(_per_user(k), _PER_USER)


def _per_user(k: int) -> Any:
    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            wanted, items = batch["_wanted"].flatten(), batch["_items"].flatten()
            numbers = pa.concat_arrays([wanted, items]).dictionary_encode().indices.to_numpy()
            starts = np.concatenate([[0], np.cumsum(batch["_wanted"].value_lengths().to_numpy())])
            lengths = pc.fill_null(batch["_items"].value_lengths(), 0).to_numpy()
            shown = np.full((batch.num_rows, k), -1)
            places = batch["_ranks"].flatten().to_numpy() - 1
            shown[np.repeat(np.arange(batch.num_rows), lengths), places] = numbers[len(wanted) :]
            weights = batch["_weights"].flatten().to_numpy()
            found = figures(shown, starts, numbers[: len(wanted)], weights, k)
            columns = dict(zip((*FIGURES, *_COUNTS), found.T, strict=True))
            counts = {name: pa.array(columns[name].astype(np.int64)) for name in _COUNTS}
            yield pa.RecordBatch.from_pydict(
                {"user_id": batch["user_id"], **{name: pa.array(columns[name]) for name in FIGURES}, **counts}
            )

    return work
