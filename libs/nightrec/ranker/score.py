"""Score candidates with a trained ranker on the executors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf

from nightrec.errors import NightrecError
from nightrec.features import FEATURES
from nightrec.ranker import model
from nightrec.ranker.heads import Given
from nightrec.ranker.members import Members, unpacked
from nightrec.ranker.texts import latest
from nightrec.stopwatch import Clock

# Rankers this process has loaded, by the fingerprint of their weights: a Spark worker serves many tasks.
_LOADED: dict[str, tuple[npt.NDArray[np.float64] | None, Members]] = {}

# Rows that a head scores at once: 4,096 times 384 doubles are 13 MB, of users and of items each.
_ROWS = 4_096
_LIST = ("list_kind", "list_key")


@dataclass(frozen=True)
class Texts:
    """The night's text vectors, of the encoder with the id `encoder`: `items` with item_id and vector; `users` with
    user_id, vector and recent_items, newest first."""

    encoder: str
    items: DataFrame
    users: DataFrame


def scored(
    candidates: DataFrame, weights: str, sha256: str, feature_names: Sequence[str], settings: Mapping[str, str],
    values: Mapping[str, float], texts: Callable[[], Texts], clock: Clock = nullcontext,
) -> DataFrame:
    """The candidates that have features, without them, with `score`: the ranker's probability of an action, in (0, 1),
    or, with `values` by kind of event, the expected value.

    `weights` is the safetensors file, `sha256`, `feature_names` and `settings` what ranker_models records of it. The
    driver reads and checks the file and sends it along, so executors need not reach it. `texts` are asked for where the
    ranker's head reads vectors. `clock` is told what "scoring" takes.
    Raises NightrecError where the file is missing, other or broken, or the model was trained on other features, or on
    vectors of another encoder, or without an event of a kind of `values`.
    """
    if list(feature_names) != list(FEATURES):
        gone, new = sorted(set(feature_names) - set(FEATURES)), sorted(set(FEATURES) - set(feature_names))
        names = f"gone: {', '.join(gone) or 'none'}; new: {', '.join(new) or 'none'}"
        differ = names if gone or new else "in another order"
        raise NightrecError(
            f"the ranker {weights} was trained on other features than this version computes ({differ}); train it again"
        )
    blob = model.read(Path(weights), sha256)
    _, members = _loaded(blob, sha256)
    if (width := members.feature_count) not in (0, len(FEATURES)):
        expected = f"expected {len(FEATURES)} features, found {width}"
        raise NightrecError(f"the ranker's weights {weights}: {expected}; train it again")
    if unknown := sorted(set(values) - set(members.kinds)):
        raise NightrecError(
            f"ranker.kind_values names {', '.join(unknown)}, but the ranker {weights} learned from "
            f"{', '.join(sorted(members.kinds)) or 'no kind of event'}; leave that out, or train it again"
        )
    known = candidates.where(F.col("features").isNotNull())
    if not members.vector_width:
        return with_score(known, blob, sha256, values, clock).drop("features")
    night = texts()
    if night.encoder != settings["encoder"]:
        raise NightrecError(
            f"the ranker {weights} reads vectors of the encoder {settings['encoder']}, the night has those of "
            f"{night.encoder}; train it again"
        )
    return with_score_by_list(known, blob, sha256, values, night, int(settings["attention"]), clock).drop("features")


def with_score(
    examples: DataFrame, weights: bytes, sha256: str, values: Mapping[str, float], clock: Clock = nullcontext
) -> DataFrame:
    """`examples` with `score`: what the ranker of these weights gives to their `features` (see Members.scores)."""

    sent = examples.sparkSession.sparkContext.broadcast(weights)  # trees take megabytes

    def scores(batch: pa.Array) -> pa.Array:
        given = batch.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
        with clock("scoring"):
            _, members = _loaded(sent.value, sha256)
            return pa.array(members.scores(given.reshape(len(batch), len(FEATURES)), None, values))

    # Only the features travel to Python and only the scores back; the other columns stay where they are.
    score = arrow_udf(scores, "double")  # type: ignore[call-overload]  # pyspark's stubs want a deprecated argument
    return examples.withColumn("score", score("features"))


def with_score_by_list(
    candidates: DataFrame, weights: bytes, sha256: str, values: Mapping[str, float], texts: Texts, recent: int,
    clock: Clock = nullcontext,
) -> DataFrame:  # fmt: skip
    """`candidates` with `score` by a ranker whose head reads vectors too.

    A list becomes one row beside its user's vector and `recent` latest items, which would else be repeated with each of
    its candidates. What is read of the items' vectors is collected and sent once to every worker: 64 bytes an item and
    network of an attention, else whole vectors, 1.5 KB each at 384 dimensions.
    """
    keys, members = _loaded(weights, sha256)
    of_items = (texts.items if keys is None else with_keys(texts.items, keys)).toArrow().combine_chunks()
    vectors = np.zeros((of_items.num_rows + 1, members.vector_width), np.float32)
    vectors[1:] = of_items["vector"].combine_chunks().flatten().to_numpy().reshape(of_items.num_rows, -1)
    ids = of_items["item_id"].combine_chunks().cast(pa.string())
    sent = candidates.sparkSession.sparkContext.broadcast((weights, ids, vectors))

    def scores(items: pa.Array, features: pa.Array, users: pa.Array, latest_items: pa.Array) -> pa.Array:
        blob, known, rows = sent.value
        places = latest(latest_items, known, max(recent, 1)) + 1
        with clock("scoring"):
            return by_list(_loaded(blob, sha256)[1], values, known, rows, items, features, users, places)

    score = arrow_udf(scores, "array<double>")  # type: ignore[call-overload]  # as above
    others = [name for name in candidates.columns if name not in _LIST]
    # An attention reads nothing of the user but the latest items.
    own = F.col("vector") if keys is None else F.lit(None).cast("array<float>")
    users = texts.users.select("user_id", own.alias("vector"), "recent_items")
    lists = (
        candidates.groupBy(*_LIST)
        .agg(F.collect_list(F.struct(*others)).alias("_rows"))
        .join(users, F.col("list_key") == F.col("user_id"), "left")
    )
    found = lists.withColumn("_scores", score("_rows.item_id", "_rows.features", "vector", "recent_items"))
    rows = found.select(*_LIST, F.inline(F.arrays_zip(F.col("_rows").alias("row"), F.col("_scores").alias("score"))))
    return rows.select(*_LIST, "row.*", "score").select(*candidates.columns, "score")


def with_keys(items: DataFrame, keys: npt.NDArray[np.float64]) -> DataFrame:
    """`items` with `keys` (W, D) times their `vector` in its place."""

    def short(batch: pa.Array) -> pa.Array:
        vectors = batch.flatten().to_numpy().astype(np.float64).reshape(len(batch), -1)
        # Not by a matrix product: its last bits depend on how many rows come at once.
        found = np.einsum("nd,wd->nw", vectors, keys).astype(np.float32)
        return pa.FixedSizeListArray.from_arrays(pa.array(found.reshape(-1)), len(keys)).cast(pa.list_(pa.float32()))

    project = arrow_udf(short, "array<float>")  # type: ignore[call-overload]  # as above
    return items.withColumn("vector", project("vector"))


def by_list(
    members: Members, values: Mapping[str, float], known: pa.Array, vectors: npt.NDArray[np.float32],
    items: pa.ListArray, features: pa.ListArray, users: pa.ListArray, recent: npt.NDArray[np.int64],
) -> pa.ListArray:
    """Per list (L) the score of each of its candidates, from their `items` (ids) and `features` (F floats each),
    the user's vector, null where there is none, and the rows (L, R) of `recent` items. `vectors` (M + 1, D) are a row
    of zeros, for none, and those of the items `known`."""
    bounds = np.concatenate([[0], np.cumsum(items.value_lengths().to_numpy())])
    width = vectors.shape[1]
    own = np.zeros((len(items), width), np.float64)
    own[users.is_valid().to_numpy(zero_copy_only=False)] = users.drop_null().flatten().to_numpy().reshape(-1, width)
    given = features.flatten().flatten().to_numpy().astype(np.float32, copy=False).reshape(-1, len(FEATURES))
    rows = pc.index_in(items.flatten(), value_set=known).fill_null(-1).to_numpy() + 1
    found, first = [np.empty(0)], 0
    while first < len(items):
        # Whole lists, one at least.
        last = max(first + 1, int(np.searchsorted(bounds, bounds[first] + _ROWS, side="right")) - 1)
        block = slice(bounds[first], bounds[last])
        lists = np.repeat(np.arange(last - first), np.diff(bounds[first : last + 1]))
        inputs, of_users = (torch.from_numpy(part.astype(np.float64)) for part in (given[block], own[first:last]))
        read = Given.of(inputs, vectors, rows[block], lists, of_users, recent[first:last])
        found.append(members.scores(given[block], read, values))
        first = last
    return pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), pa.array(np.concatenate(found)))


def _loaded(weights: bytes, sha256: str) -> tuple[npt.NDArray[np.float64] | None, Members]:
    """The ranker of these weights (see Members.by_keys), unpacked once per process."""
    if sha256 not in _LOADED:
        _LOADED.clear()
        _LOADED[sha256] = unpacked(weights).by_keys()
    return _LOADED[sha256]
