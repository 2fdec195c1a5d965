"""Score candidates with a trained ranker on the executors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf

from nightrec.errors import NightrecError
from nightrec.features import FEATURES
from nightrec.ranker import model
from nightrec.ranker.members import Members, unpacked

# Rankers this process has loaded, by the fingerprint of their weights: a Spark worker serves many tasks.
_LOADED: dict[str, Members] = {}

# Probabilities are rounded, so that the last bits of a sum, which depend on the processor, cannot decide between two
# items that are alike; and kept off 0 and 1.
_DIGITS = 7
_SMALLEST = 10.0**-_DIGITS


def scored(candidates: DataFrame, weights: str, sha256: str, feature_names: Sequence[str]) -> DataFrame:
    """The candidates that have features, without them, with `score`, the ranker's probability of an action, in (0, 1).

    `weights` is the safetensors file, `sha256` and `feature_names` what ranker_models records of it. The driver reads
    and checks the file and sends it along, so executors need not reach it.
    Raises NightrecError where the file is missing, other or broken, or the model was trained on other features.
    """
    if list(feature_names) != list(FEATURES):
        gone, new = sorted(set(feature_names) - set(FEATURES)), sorted(set(FEATURES) - set(feature_names))
        names = f"gone: {', '.join(gone) or 'none'}; new: {', '.join(new) or 'none'}"
        differ = names if gone or new else "in another order"
        raise NightrecError(
            f"the ranker {weights} was trained on other features than this version computes ({differ}); train it again"
        )
    blob = model.read(Path(weights), sha256)
    if (width := len(model.loaded(blob).mean)) != len(FEATURES):
        expected = f"expected {len(FEATURES)} features, found {width}"
        raise NightrecError(f"the ranker's weights {weights}: {expected}; train it again")

    return with_score(candidates.where(F.col("features").isNotNull()), blob, sha256).drop("features")


def with_score(examples: DataFrame, weights: bytes, sha256: str) -> DataFrame:
    """`examples` with `score`: the probability that the ranker of these weights gives to their `features`."""

    sent = examples.sparkSession.sparkContext.broadcast(weights)  # trees take megabytes

    def probabilities(batch: pa.Array) -> pa.Array:
        return probability(_members(sent.value, sha256), batch)

    # Only the features travel to Python and only the scores back; the other columns stay where they are.
    score = arrow_udf(probabilities, "double")  # type: ignore[call-overload]  # pyspark's stubs want a deprecated argument
    return examples.withColumn("score", score("features"))


def probability(members: Members, batch: pa.Array) -> pa.Array:
    """(B,) probabilities of an Arrow list array of B rows of F floats, in double precision."""
    values = batch.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    scores = members.probabilities(values.reshape(len(batch), len(members.network.mean)))
    return pa.array(scores.round(_DIGITS).clip(_SMALLEST, 1 - _SMALLEST), pa.float64())


def _members(weights: bytes, sha256: str) -> Members:
    """The ranker of these weights, unpacked once per process."""
    if sha256 not in _LOADED:
        _LOADED.clear()
        _LOADED[sha256] = unpacked(weights)
    return _LOADED[sha256]
