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
from nightrec.serving.pairs import SUMS, adding, shared

# What is learned from pairs of users, and by factorizing, is learned from so many users at most, by hash of their ids.
REFERENCES = 50_000
# Items of a user that count for pairs of items, the latest: one robot of 20,000 items would take 5 GB.
_BASKET = 1000


def users(events: DataFrame, index: DataFrame, cut: date, days: int, *, repeats_allowed: bool) -> DataFrame:
    """One row per user of `events` (clean events that arrived up to `days` after the cut).

    user_id; `events`: how many with weight above 0 up to the cut; `items`, `counts`, `ages`: those of items on offer,
    ascending by their number in `index` (item_id, item), with the events of each and days since the last; `truth`: the
    distinct items with weight above 0 in the `days` after the cut, -1 for each that is not on offer.

    Truth is only what arrived in those days and also happened then. Where repeats are not allowed, items with any
    event that had arrived by the cut are left out.
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
            F.bool_or(arrived).alias("_known"),
        )
    )
    wanted = F.col("_after") if repeats_allowed else F.col("_after") & ~F.col("_known")
    own = F.when((F.col("count") > 0) & F.col("item").isNotNull(), F.struct("item", "count", "age"))
    return (
        pairs.join(F.broadcast(index), "item_id", "left")
        .groupBy("user_id")
        .agg(
            F.sum("count").alias("events"),
            F.sort_array(F.collect_list(own)).alias("_own"),
            F.sort_array(F.collect_list(F.when(wanted, F.coalesce("item", F.lit(-1))))).alias("truth"),
        )
        .select(
            "user_id", "events", F.col("_own.item").alias("items"), F.col("_own.count").alias("counts"),
            F.col("_own.age").alias("ages"), "truth",
        )
    )  # fmt: skip


def items(users: DataFrame, item_id: pa.Array) -> Items:
    """The item side of the baselines, from the histories in `users` (as of the function of that name, and perhaps with
    their `segment`).

    What is gathered grows with items and with pairs of items, and with users only up to REFERENCES.
    """
    width = len(item_id)
    known = users.where(F.size("items") > 0).select("user_id", "items", "counts", "ages")
    found = known.mapInArrow(_gathering(width), SUMS).toArrow()
    rows = np.repeat(found["item_idx"].to_numpy(), np.asarray(pc.list_value_length(found["neighbour_idx"])))
    columns, values = (_flat(found[name]) for name in ("neighbour_idx", "weights"))
    shape = (width + len(WINDOWS) + 2, width)
    counted = sparse.csr_matrix((values, (rows, columns)), shape)
    by_item = counted[width:].toarray()
    together, ever = counted[:width], by_item[len(WINDOWS)]
    # Bounded baskets leave the diagonal short.
    together = together + sparse.diags(ever - together.diagonal())
    people = known.count()
    user = F.xxhash64("user_id")
    # Hashes are spread evenly: those below this share of their range.
    chosen = known if people <= REFERENCES else known.where(user < int(2**64 * REFERENCES / people) - 2**63)
    narrow = chosen.select(user.alias("_user"), "items", "counts", "ages").toArrow().sort_by("_user")
    references = Histories.of(narrow.to_batches(), width)
    names, by_segment = _by_segment(users, width) if "segment" in users.columns else (pa.array([], pa.string()), ())
    return Items(
        item_id, people, by_item[: len(WINDOWS) + 1].T, by_item[-1], sparse.csr_matrix(together), references,
        names, by_segment,
    )  # fmt: skip


def _by_segment(users: DataFrame, width: int) -> tuple[pa.Array, Sequence[Any]]:
    """The segments in order, and per one of WINDOWS their users of each item (S x N, sparse)."""
    own = users.where("segment IS NOT NULL").select("segment", F.inline(F.arrays_zip("items", "ages")))
    inside = (F.count_if(F.col("ages") < days).alias(f"_{days}") for days in WINDOWS)
    found = own.groupBy("segment", "items").agg(*inside).toArrow()
    names = pc.unique(found["segment"]).cast(pa.string()).sort()
    at = pc.index_in(found["segment"].cast(pa.string()), value_set=names).to_numpy(), found["items"].to_numpy()
    shape = (len(names), width)
    return names, [sparse.csr_matrix((found[f"_{days}"].to_numpy().astype(np.float32), at), shape) for days in WINDOWS]


def _gathering(width: int) -> Any:
    """To SUMS: users who share two items; below the items a row for each window, ever, and events of any user."""

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        totals = np.zeros((len(WINDOWS) + 2, width), np.int64)

        def baskets() -> Iterator[pa.RecordBatch]:
            for batch in batches:
                ages, numbers = batch["ages"].flatten().to_numpy(), batch["items"].flatten().to_numpy()
                for row, days in enumerate(WINDOWS):
                    totals[row] += np.bincount(numbers[ages < days], minlength=width)
                totals[-2] += np.bincount(numbers, minlength=width)
                totals[-1] += np.bincount(numbers, batch["counts"].flatten().to_numpy(), width).astype(np.int64)
                yield pa.RecordBatch.from_pydict({"basket": _latest(batch["items"], ages)})

        yield from adding(width, shared)(baskets())
        own = [np.flatnonzero(row) for row in totals]
        values = [row[at].tolist() for row, at in zip(totals, own, strict=True)]
        numbered = pa.array(range(width, width + len(totals)), pa.int32())
        items = pa.array([at.tolist() for at in own], pa.list_(pa.int32()))
        weights = pa.array(values, pa.list_(pa.float64()))
        yield pa.RecordBatch.from_arrays([numbered, items, weights], ["item_idx", "neighbour_idx", "weights"])

    return work


def _latest(lists: pa.ListArray, ages: npt.NDArray[np.int32]) -> pa.ListArray:
    """Each user's _BASKET youngest items, in their order; of one age those of smaller number."""
    lengths = lists.value_lengths().to_numpy()
    if lengths.max(initial=0) <= _BASKET:
        return lists
    rows = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((np.arange(len(rows)), ages, rows))
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    kept = np.sort(order[np.arange(len(rows)) - np.repeat(starts, lengths) < _BASKET])
    offsets = np.concatenate([[0], np.cumsum(np.minimum(lengths, _BASKET))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), lists.flatten().take(pa.array(kept)))


def _flat(lists: pa.ChunkedArray) -> npt.NDArray[np.number]:
    flat: npt.NDArray[np.number] = lists.combine_chunks().flatten().to_numpy()
    return flat
