"""Factorize what users did into item factors: ALS in Horovod processes on the executors."""

from __future__ import annotations

from datetime import date
from functools import partial
from pathlib import Path

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from nightrec.als import confidence
from nightrec.als.confidence import item_index, with_item_idx, with_user_idx
from nightrec.als.objective import Objective
from nightrec.als.train import Plan, train
from nightrec.config import Als, Horovod
from nightrec.errors import BadInput
from nightrec.launch import over_partitions


def item_factors(
    events: DataFrame, settings: Als, horovod: Horovod, as_of: date, model_id: str, checkpoint: Path | None = None
) -> tuple[DataFrame, list[float]]:
    """als_item_factors, one row per item of a pair (confidence.py), and the loss after each iteration.

    `factors` have length rank. They depend on the events and `settings`, not on how many processes share the work, nor
    on whether the training went on from what an earlier attempt left in the folder `checkpoint`.
    Raises BadInput where there is no pair.
    """
    # Kept for the training: a second pass over 200 days of events costs 1.7 s where the pairs are at hand.
    found = confidence.pairs(events, settings.feedback).persist()
    try:
        index = item_index(found.select("item_id").distinct().toArrow()["item_id"])
        if not index.num_rows:
            wanted = "rating" if settings.feedback == "explicit" else "event with weight above 0"
            raise BadInput(f"als_item_factors {as_of}: no {wanted} had arrived by then: nothing to factorize")
        plan = Plan(
            Objective.of(settings),
            index.num_rows, settings.blocks, settings.rank, settings.iterations, settings.seed,
            horovod.gathered_mb * 2**20, checkpoint,
        )  # fmt: skip
        processes = min(horovod.processes, settings.blocks)
        dealt = entries(with_user_idx(with_item_idx(found, index)), settings.blocks, processes)
        work, times = partial(train, plan), (horovod.start_timeout_s, horovod.deadline_s)
        trained = over_partitions(dealt, work, processes, *times)[0]
    finally:
        found.unpersist()
    assert trained is not None  # rank 0 has the result
    lists = pa.FixedSizeListArray.from_arrays(pa.array(trained.item_factors.ravel()), settings.rank)
    table = pa.table({"item_id": index["item_id"], "factors": lists.cast(pa.list_(pa.float32()))})
    frame = events.sparkSession.createDataFrame(table).select(
        F.lit(as_of).alias("as_of_date"), F.lit(model_id).alias("model_id"), "item_id", "factors"
    )
    return frame, trained.losses


def entries(pairs: DataFrame, blocks: int, processes: int) -> DataFrame:
    """Every pair (`user_idx`, `item_idx`, `weight`) as an entry of its user's row and of its item's: blocks.ENTRIES.

    In `processes` partitions, each with blocks that follow one another.
    """

    def entry(is_item: bool, row: str, column: str) -> Column:
        numbers = F.col(row).alias("row"), F.col(column).alias("column")
        return F.struct(F.lit(is_item).alias("is_item"), *numbers, "weight")

    # Both from one row: the users are numbered once.
    twice = F.array(entry(False, "user_idx", "item_idx"), entry(True, "item_idx", "user_idx"))
    both = pairs.select(F.inline(twice)).select(F.pmod("row", F.lit(blocks)).alias("block"), "*")
    return both.repartitionById(processes, (F.col("block") * processes / blocks).cast("int"))
