"""Factorize what users did into item factors: implicit-feedback ALS in Horovod processes on the executors."""

from __future__ import annotations

from datetime import date
from functools import partial

import pyarrow as pa
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from nightrec.als.confidence import item_index, pair_weights, with_item_idx, with_user_idx
from nightrec.als.kernel import Objective
from nightrec.als.train import Plan, train
from nightrec.config import Als, Horovod
from nightrec.errors import BadInput
from nightrec.launch import over_partitions


def item_factors(
    events: DataFrame, settings: Als, horovod: Horovod, as_of: date, model_id: str
) -> tuple[DataFrame, list[float]]:
    """als_item_factors, one row per item with an event of weight above 0, and the loss after each iteration.

    `factors` have length rank. They depend on the events and `settings`, not on how many processes share the work.
    Raises BadInput where there is no such event.
    """
    # Kept for the training: a second pass over 200 days of events costs 1.7 s where the pairs are at hand.
    pairs = pair_weights(events).persist()
    try:
        index = item_index(pairs.select("item_id").distinct().toArrow()["item_id"])
        if not index.num_rows:
            raise BadInput(
                f"als_item_factors {as_of}: no event with weight above 0 had arrived by then: nothing to factorize"
            )
        plan = Plan(
            Objective.of(settings),
            index.num_rows, settings.blocks, settings.rank, settings.iterations, settings.seed,
        )  # fmt: skip
        processes = min(horovod.processes, settings.blocks)
        dealt = entries(pairs, index, settings.blocks, processes)
        trained = over_partitions(dealt, partial(train, plan), processes, horovod.start_timeout_s)[0]
    finally:
        pairs.unpersist()
    assert trained is not None  # rank 0 has the result
    lists = pa.FixedSizeListArray.from_arrays(pa.array(trained.item_factors.ravel()), settings.rank)
    found = pa.table({"item_id": index["item_id"], "factors": lists.cast(pa.list_(pa.float32()))})
    frame = events.sparkSession.createDataFrame(found).select(
        F.lit(as_of).alias("as_of_date"), F.lit(model_id).alias("model_id"), "item_id", "factors"
    )
    return frame, trained.losses


def entries(pairs: DataFrame, index: pa.Table, blocks: int, processes: int) -> DataFrame:
    """Every pair as an entry of its user's row and of its item's, `processes` partitions with whole blocks each."""
    indexed = with_user_idx(with_item_idx(pairs, index))

    def entry(is_item: bool, row: str, column: str) -> Column:
        numbers = F.col(row).alias("row"), F.col(column).alias("column")
        return F.struct(F.lit(is_item).alias("is_item"), *numbers, "weight")

    # Both from one row: the users are numbered once.
    twice = F.array(entry(False, "user_idx", "item_idx"), entry(True, "item_idx", "user_idx"))
    both = indexed.select(F.inline(twice)).select(F.pmod("row", F.lit(blocks)).alias("block"), "*")
    return both.repartitionById(processes, F.pmod("block", F.lit(processes)))
