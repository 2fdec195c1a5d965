"""Texts to vectors on Spark's workers, and which texts need it at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from nightrec.embeddings.encoder import Vectors, loaded, verify

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class Settings:
    """Which encoder, and how texts are given to it; plain values that travel to the workers."""

    folder: Path
    revision: str
    batch_tokens: int
    max_tokens: int


def new_texts(profiles: DataFrame, held: DataFrame) -> DataFrame:
    """text_hash and text of `profiles`, each once, whose hash is not in `held`; profiles without a text have none."""
    distinct = profiles.select("text_hash", "text").na.drop(subset=["text_hash"]).dropDuplicates(["text_hash"])
    return distinct.join(held.select("text_hash"), "text_hash", "left_anti")


def count_texts(profiles: DataFrame, held: DataFrame) -> tuple[int, int]:
    """How many distinct texts of `profiles` are new, and how many are in `held`."""
    from pyspark.sql import functions as F

    distinct = profiles.select("text_hash").na.drop().distinct()
    marked = distinct.join(held.select("text_hash").distinct().withColumn("_held", F.lit(True)), "text_hash", "left")
    row = marked.agg(F.count_if(F.col("_held").isNull()), F.count_if("_held")).first()
    assert row is not None  # an aggregate without keys has one row
    return int(row[0]), int(row[1])


def encode(texts: DataFrame, text_count: int, settings: Settings) -> DataFrame:
    """text_hash and vector (array<float>, unit length) of each row of text_hash and text.

    `text_count`, the rows of `texts`, only sets the number of tasks: one per batch of the longest texts, at most
    Spark's default parallelism, so that small inputs occupy every core and ten texts do not load the model everywhere.
    A vector differs from that of float32 arithmetic by a cosine of at least 0.9995.
    Raises UsageError here, before any task, where the weights are missing or not those of the revision.
    """
    verify(settings.folder, settings.revision)
    batches = -(-text_count * settings.max_tokens // settings.batch_tokens)
    tasks = min(batches, texts.sparkSession.sparkContext.defaultParallelism)
    # By number alone: texts already shuffled by their hash would stay where they are, 1,661 of them in one task.
    spread = texts.select("text_hash", "text").repartition(max(tasks, 1))
    return spread.mapInArrow(_encoded(settings), "text_hash string, vector array<float>")


def _encoded(settings: Settings) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """What a task does with its Arrow batches."""

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        from pyspark import TaskContext

        task = TaskContext.get()
        # Spark runs one task per spark.task.cpus: more threads than that would fight with the neighbours'.
        threads = task.cpus() if task else 1
        for batch in batches:
            if batch.num_rows:
                encoder = loaded(settings.folder, settings.revision, settings.max_tokens, threads)
                vectors = encoder.encode(batch.column("text").to_pylist(), settings.batch_tokens)
                yield pa.record_batch({"text_hash": batch.column("text_hash"), "vector": as_lists(vectors)})

    return run


def as_lists(vectors: Vectors) -> pa.ListArray:
    """A matrix as an Arrow array of lists, one per row."""
    count, width = vectors.shape
    return pa.ListArray.from_arrays(np.arange(count + 1, dtype=np.int32) * width, vectors.reshape(-1))


def as_matrix(lists: pa.Array) -> Vectors:
    """Lists of one length, none of them NULL, as a matrix."""
    values = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    matrix: Vectors = values.reshape(len(lists), -1) if len(lists) else values.reshape(0, 0)
    return matrix
