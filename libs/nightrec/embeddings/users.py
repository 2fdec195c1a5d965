"""Vectors of users: what they took last, and what is known of them in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import functions as F

from nightrec.embeddings.encode import Settings, as_lists, as_matrix, encode, new_texts
from nightrec.embeddings.encoder import Vectors

if TYPE_CHECKING:
    from pyspark import Broadcast
    from pyspark.sql import DataFrame

# The weight of a recent item falls as 1 / (1 + position / HALF): the eleventh counts half as much as the newest.
HALF = 10.0


def newest_date(partitions: list[dict[str, str]], encoder: str, run_date: date) -> date:
    """The night whose text vectors can be reused: the latest of this encoder up to `run_date`, else `run_date`.

    A night that runs again finds its own; a text has the same vector in any of them.
    """
    known = (date.fromisoformat(part["run_date"]) for part in partitions if part["encoder"] == encoder)
    return max((day for day in known if day <= run_date), default=run_date)


def held_texts(embeddings: DataFrame) -> DataFrame:
    """text_hash and vector of each text in one night's user embeddings."""
    texts = embeddings.where(F.col("text_vector").isNotNull()).select("text_hash", F.col("text_vector").alias("vector"))
    return texts.dropDuplicates(["text_hash"])


def text_vectors(profiles: DataFrame, held: DataFrame, text_count: int, settings: Settings) -> DataFrame:
    """text_hash and vector of every text of the user profiles; only the `text_count` ones not in `held` are encoded."""
    if not text_count:
        return held
    return held.unionByName(encode(new_texts(profiles, held), text_count, settings))


def user_embeddings(
    profiles: DataFrame,
    items: DataFrame,
    item_vectors: DataFrame,
    texts: DataFrame,
    *,
    run_date: date,
    encoder: str,
    text_share: float,
) -> DataFrame:
    """One row per user with a text or a recent item that has a vector, in the columns of tables.USER_EMBEDDINGS.

    vector = unit((1 - s) r + s t): r the unit of the recent items' mean vector, weighted 1 / (1 + position / 10) from
    the newest on, t the text's vector, s = `text_share`. Where only one of them is known, it is the vector.
    `items` are item profiles (item_id, text_hash), `item_vectors` item embeddings, `texts` text_hash and vector.
    The item vectors, 1.5 KB each at 384 dimensions, are collected and sent once to every worker.
    """
    found = items.join(item_vectors, "text_hash").select("item_id", "vector").toArrow().combine_chunks()
    catalogue = (found["item_id"].combine_chunks(), as_matrix(found["vector"].combine_chunks()))
    shared = profiles.sparkSession.sparkContext.broadcast(catalogue)
    known = texts.select("text_hash", F.col("vector").alias("text_vector"))
    users = profiles.select("user_id", "text_hash", "recent_items").join(known, "text_hash", "left")
    mixed = users.select("user_id", "text_hash", "text_vector", "recent_items").mapInArrow(
        _mixed(shared, text_share), "user_id string, text_hash string, text_vector array<float>, vector array<float>"
    )
    return mixed.select(
        F.lit(run_date).alias("run_date"),
        F.lit(encoder).alias("encoder"),
        "user_id",
        "text_hash",
        "text_vector",
        "vector",
    )


def _mixed(
    shared: Broadcast[tuple[pa.Array, Vectors]], text_share: float
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What a task does with its Arrow batches of users."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        item_ids, matrix = shared.value
        for batch in batches:
            tastes = taste(batch.column("recent_items"), item_ids, matrix)
            vectors = mix(tastes, batch.column("text_vector"), text_share)
            known = vectors.any(axis=1)  # zero where neither a recent item nor a text is known
            kept = batch.select(["user_id", "text_hash", "text_vector"]).filter(pa.array(known))
            yield kept.append_column("vector", as_lists(vectors[known]))

    return run


def taste(recent_items: pa.ListArray, item_ids: pa.Array, matrix: Vectors) -> Vectors:
    """[U, D]: unit vector of each user's recent items, newest first in `recent_items`; zero where none has a vector."""
    from scipy.sparse import csr_array

    starts = recent_items.offsets.to_numpy()
    lengths = np.diff(starts)
    positions = np.arange(starts[-1] - starts[0]) - np.repeat(starts[:-1] - starts[0], lengths)
    users = np.repeat(np.arange(len(recent_items)), lengths)
    columns = pc.index_in(recent_items.flatten(), value_set=item_ids).fill_null(-1).to_numpy()
    known = columns >= 0
    weights = (1.0 / (1.0 + positions[known] / HALF)).astype(np.float32)
    # One sparse product instead of gathering U x 50 vectors, which would take 0.8 GB for 10,000 users.
    bounds = np.concatenate([[0], np.cumsum(np.bincount(users[known], minlength=len(recent_items)))])
    means: Vectors = csr_array((weights, columns[known], bounds), shape=(len(recent_items), len(item_ids))) @ matrix
    return unit(means)


def mix(tastes: Vectors, texts: pa.ListArray, text_share: float) -> Vectors:
    """[U, D]: unit of (1 - s) taste + s text; the one that is known where the other is not, zero where neither is."""
    has_text = texts.is_valid().to_numpy(zero_copy_only=False)
    text = as_matrix(texts.drop_null())
    # Without a single item vector D is not known from the tastes.
    mixed = tastes.copy() if tastes.shape[1] else np.zeros((len(texts), text.shape[1]), dtype=np.float32)
    if has_text.any():
        share = np.where(mixed[has_text].any(axis=1, keepdims=True), np.float32(text_share), np.float32(1.0))
        mixed[has_text] = (1 - share) * mixed[has_text] + share * text
    return unit(mixed)


def unit(vectors: npt.NDArray[np.float32]) -> Vectors:
    """Rows at unit length; zero rows stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Vectors = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return scaled
