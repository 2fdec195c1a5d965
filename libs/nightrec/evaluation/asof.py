"""What the log says as of a cut and what users did after it: a row per user, and the item side gathered from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from scipy import sparse

from nightrec.evaluation.baselines import WINDOWS, Histories, Items
from nightrec.seen import hides

# What is learned from whole histories is learned from so many users at most, by hash of their ids.
REFERENCES = 50_000
# Of each item: users of each window and ever, and events.
_COUNTS = len(WINDOWS) + 2


def users(events: DataFrame, index: DataFrame, cut: date, days: int, *, repeats_allowed: bool) -> DataFrame:
    """One row per user of `events` (clean events that arrived up to `days` after the cut).

    user_id; `events`: how many with weight above 0 up to the cut; `items`, `counts`, `ages`: those of items on offer,
    ascending by their number in `index` (item_id, item), with the events of each and days since the last; `truth`: the
    distinct items with weight above 0 in the `days` after the cut, -1 for each that is not on offer; `masked`: items on
    offer that no list may hold, by what had arrived by the cut (nightrec.seen).

    Truth is only what arrived in those days and also happened then. Where repeats are not allowed, items that no list
    might hold are left out.
    """
    arrived, acted = F.col("ingest_date") <= F.lit(cut), F.col("weight") > 0
    past = arrived & acted & (F.col("event_date") <= F.lit(cut))
    after = ~arrived & acted & (F.col("event_date") > F.lit(cut))
    pairs = (
        events.where(F.col("ingest_date") <= F.lit(cut + timedelta(days=days)))
        # By user alone: the grouping by user that follows needs no further shuffle.
        .repartition("user_id")
        .groupBy("user_id", "item_id")
        .agg(
            F.count_if(past).cast("int").alias("count"),
            F.date_diff(F.lit(cut), F.max(F.when(past, F.col("event_date")))).alias("age"),
            F.bool_or(after).alias("_after"),
            F.bool_or(arrived & hides(repeats_allowed=repeats_allowed)).alias("_masked"),
        )
    )
    wanted = F.col("_after") if repeats_allowed else F.col("_after") & ~F.col("_masked")
    own = F.when((F.col("count") > 0) & F.col("item").isNotNull(), F.struct("item", "count", "age"))
    return (
        pairs.join(F.broadcast(index), "item_id", "left")
        .groupBy("user_id")
        .agg(
            F.sum("count").alias("events"),
            F.sort_array(F.collect_list(own)).alias("_own"),
            F.sort_array(F.collect_list(F.when(wanted, F.coalesce("item", F.lit(-1))))).alias("truth"),
            F.sort_array(F.collect_list(F.when(F.col("_masked"), F.col("item")))).alias("masked"),
        )
        .select(
            "user_id", "events", F.col("_own.item").alias("items"), F.col("_own.count").alias("counts"),
            F.col("_own.age").alias("ages"), "truth", "masked",
        )
    )  # fmt: skip


def items(users: DataFrame, item_id: pa.Array) -> Items:
    """The item side of the baselines, from the histories in `users` (as of the function of that name, and perhaps with
    their `segment`).

    What is gathered grows with items, and with users only up to REFERENCES.
    """
    width = len(item_id)
    known = users.where(F.size("items") > 0).select("user_id", "items", "counts", "ages")
    parts = known.mapInArrow(_counting(width), "counts array<bigint>").toArrow()["counts"]
    counts = _flat(parts).reshape(len(parts), _COUNTS, width).sum(0).astype(np.float64)
    people = known.count()
    user = F.xxhash64("user_id")
    # Hashes are spread evenly: those below this share of their range.
    chosen = known if people <= REFERENCES else known.where(user < int(2**64 * REFERENCES / people) - 2**63)
    narrow = chosen.select(user.alias("_user"), "items", "counts", "ages").toArrow().sort_by("_user")
    references = Histories.of(narrow.to_batches(), width)
    names, by_segment = _by_segment(users, width) if "segment" in users.columns else (pa.array([], pa.string()), ())
    return Items(item_id, people, counts[:-1].T, counts[-1], references, names, by_segment)


def _by_segment(users: DataFrame, width: int) -> tuple[pa.Array, Sequence[Any]]:
    """The segments in order, and per one of WINDOWS their users of each item (S x N, sparse)."""
    own = users.where("segment IS NOT NULL").select("segment", F.inline(F.arrays_zip("items", "ages")))
    inside = (F.count_if(F.col("ages") < days).alias(f"_{days}") for days in WINDOWS)
    found = own.groupBy("segment", "items").agg(*inside).toArrow()
    names = pc.unique(found["segment"]).cast(pa.string()).sort()
    at = pc.index_in(found["segment"].cast(pa.string()), value_set=names).to_numpy(), found["items"].to_numpy()
    shape = (len(names), width)
    return names, [sparse.csr_matrix((found[f"_{days}"].to_numpy().astype(np.float32), at), shape) for days in WINDOWS]


def _counting(width: int) -> Any:
    """To one row: _COUNTS x N, one after the other."""

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        totals = np.zeros((_COUNTS, width), np.int64)
        for batch in batches:
            ages, numbers = batch["ages"].flatten().to_numpy(), batch["items"].flatten().to_numpy()
            for row, days in enumerate(WINDOWS):
                totals[row] += np.bincount(numbers[ages < days], minlength=width)
            totals[-2] += np.bincount(numbers, minlength=width)
            totals[-1] += np.bincount(numbers, batch["counts"].flatten().to_numpy(), width).astype(np.int64)
        whole = pa.ListArray.from_arrays(pa.array([0, totals.size], pa.int32()), pa.array(totals.ravel()))
        yield pa.RecordBatch.from_arrays([whole], ["counts"])

    return work


def _flat(lists: pa.ChunkedArray) -> npt.NDArray[np.number]:
    flat: npt.NDArray[np.number] = lists.combine_chunks().flatten().to_numpy()
    return flat
