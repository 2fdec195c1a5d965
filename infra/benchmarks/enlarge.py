"""Enlarge a real log and keep its shape: a randomised Kronecker expansion of its user-item matrix, on Spark.

    python infra/benchmarks/enlarge.py --source var/demo/raw --out big/raw --events 5000000

Belletti et al. 2019, "Scalable Realistic Recommendation Datasets through Fractal Expansions": the source's matrix B of
event counts (U x I) is laid out m x n times; the copy in shard r and column block c keeps each event with the
probability A[r, c], where A (m x n) is made of B's own leading singular vectors, reduced. So users' and items' activity
keep their inequality and the result's singular values are about the products of A's and B's.

One user permutation per shard and one item permutation per column block: an id becomes the hash of the id and its shard
(or block), 64 bits in hex. Whether an event is kept is a hash too, of the event, shard, block and seed. Nothing is
drawn, so nothing depends on the order of rows or on the number of partitions, and nothing that grows with events or
users passes through the driver (the items' singular vectors do: I x min(m, n) numbers).
"""

from __future__ import annotations

import argparse
import gzip
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark import cloudpickle
from pyspark.sql import functions as F
from scipy import sparse

from nightrec import raw
from nightrec.raw_files import is_blank, timestamp

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

# This folder is on the driver's path only: the workers get the functions themselves.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

Matrix = npt.NDArray[np.float64]

# Mean share of a copy's events that is kept. The same for every size, so that users x items grows as the events do.
KEPT = 0.4
# Shards per column block: logs grow faster in users than in items.
USERS_TO_ITEMS = 2.5
# Sums over users are taken in so many parts, whatever the number of partitions: the same bits.
_PARTS = 8
_ROUNDS = 6


@dataclass(frozen=True)
class Expansion:
    """What was written: events, and the thinning matrix A (shards x column blocks)."""

    events: int
    thinning: Matrix


def enlarge(spark: SparkSession, source: str, out: Path, events: int, seed: int = 17) -> Expansion:
    """Write a raw root of about `events` events (of expectation `events`) into `out`, made of the raw root `source`.

    Every line that names a user, an item and a readable time is an event of the source; others are left out. An event
    keeps its ingest date, its day and what it says; its time moves by half an hour at most, all of a user's day alike.
    Copies of an event stay copies. Catalogue and user snapshots come along, a title with its block's number.
    Files: part-0.jsonl.gz in each ingest date, with the same bytes for the same source, size and seed.
    """
    links = source_events(spark, source).persist()
    try:
        count = links.count()
        shards, blocks = shape(events / count)
        thinning = reduced(links, shards, blocks, events / count, seed)
        frames = [copies(links, thinning, seed)]
        frames += [
            snapshot
            for kind, number in (("items", blocks), ("users", shards))
            for day in raw.ingest_dates(source, kind)
            if (snapshot := snapshots(spark, source, kind, day, number, seed)) is not None
        ]
        written = 0
        for frame in frames:
            told = _laid_out(frame).mapInArrow(partial(_files, str(out)), "folder string, lines long").toArrow()
            written += sum(row["lines"] for row in told.to_pylist() if row["folder"].startswith("events/"))
    finally:
        links.unpersist()
    return Expansion(written, thinning)


def shape(factor: float) -> tuple[int, int]:
    """Shards and column blocks of which KEPT of the events makes `factor` times the source's."""
    cells = factor / KEPT
    blocks = max(1, round((cells / USERS_TO_ITEMS) ** 0.5))
    return max(1, round(cells / blocks)), blocks


def source_events(spark: SparkSession, source: str) -> DataFrame:
    """One row per event of the source: folder, user_id, item_id, key (the event's hash), has_id, at (seconds), rest.

    `rest` is the JSON of what stays as it is.
    """
    lines = raw.events(spark, source, raw.ingest_dates(source, "events"))
    at = F.unix_seconds(timestamp(F.col("event_ts")))
    usable = lines.where(~is_blank(F.col("user_id")) & ~is_blank(F.col("item_id")) & at.isNotNull())
    has_id = ~is_blank(F.col("event_id"))
    return usable.select(
        F.concat(F.lit("events/ingest_date="), F.col("ingest_date").cast("string")).alias("folder"),
        "user_id",
        "item_id",
        F.xxhash64(F.when(has_id, F.col("event_id")).otherwise(F.col("raw"))).alias("key"),
        has_id.alias("has_id"),
        at.alias("at"),
        F.to_json(F.struct("event_type", "value", "text", "context")).alias("rest"),
    )


def copies(links: DataFrame, thinning: Matrix, seed: int) -> DataFrame:
    """The expansion's events: folder, order, line."""
    cells = [
        (r, c, int(share * 2**53)) for r, row in enumerate(thinning) for c, share in enumerate(row.tolist())
    ]
    table = links.sparkSession.createDataFrame(cells, "shard int, block int, below long")
    chance = F.shiftrightunsigned(F.xxhash64("key", "shard", "block", F.lit(seed)), 11)
    # The join's own condition thins: what is not kept is never put together.
    kept = links.join(F.broadcast(table), chance < F.col("below"))
    day = F.col("at") - F.pmod("at", F.lit(86400))
    shift = F.pmod(F.xxhash64("user_id", "shard", day, F.lit(seed)), F.lit(3601)) - 1800
    moved = day + F.greatest(F.lit(0), F.least(F.lit(86399), F.pmod("at", F.lit(86400)) + shift))
    event_id = F.when(F.col("has_id"), _id(F.col("key"), F.struct("shard", "block"), seed))
    changed = F.struct(
        event_id.alias("event_id"),
        _id(F.col("user_id"), F.col("shard"), seed).alias("user_id"),
        _id(F.col("item_id"), F.col("block"), seed).alias("item_id"),
        F.date_format(F.timestamp_seconds(moved), "yyyy-MM-dd'T'HH:mm:ss'Z'").alias("event_ts"),
    )
    return kept.select("folder", moved.alias("order"), _line(changed, F.col("rest")))


def snapshots(spark: SparkSession, source: str, kind: str, day: Any, number: int, seed: int) -> DataFrame | None:
    """The expansion's catalogue or users of an ingest date: folder, order, line. None where the source has none."""
    found = (raw.items if kind == "items" else raw.users)(spark, source, day)
    if found is None:
        return None
    each = found.rows.join(spark.range(number).select(F.col("id").cast("int").alias("copy")))
    key = "item_id" if kind == "items" else "user_id"
    if kind == "items":
        each = each.withColumn("title", F.format_string("%s, series %d", "title", F.col("copy") + 1))
    changed = F.struct(_id(F.col(key), F.col("copy"), seed).alias(key))
    if kind == "users":
        # Nothing is known of the blocked item's block: it is the user's own number among the blocks it has.
        each = each.withColumn("blocked_items", F.transform("blocked_items", lambda item: _id(item, F.lit(0), seed)))
    rest = F.to_json(F.struct(*(name for name in found.rows.columns if name != key)))
    folder = F.lit(f"{kind}/ingest_date={day}")
    return each.select(folder.alias("folder"), F.lit(0).cast("long").alias("order"), _line(changed, rest))


def _id(value: Column, copy: Column, seed: int) -> Column:
    """The id of a copy: 64 bits in hex."""
    return F.lower(F.lpad(F.hex(F.xxhash64(value, copy, F.lit(seed))), 16, "0"))


def _line(changed: Column, rest: Column) -> Column:
    """Two JSON objects as one line."""
    first = F.to_json(changed)
    joined = F.concat(F.substring(first, 1, F.length(first) - 1), F.lit(","), F.substring(rest, 2, 2**30))
    return F.when(rest == "{}", first).otherwise(joined).alias("line")


def _laid_out(frame: DataFrame) -> DataFrame:
    """A folder's lines side by side in one partition, in an order of their own."""
    return frame.repartition("folder").sortWithinPartitions("folder", "order", "line").select("folder", "line")


def _files(out: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Write each folder's lines into its file; a row per folder. A task that is tried again writes the same file."""
    for folder, chunks in groupby(_chunks(batches), key=lambda chunk: chunk[0]):
        target = Path(out) / folder
        target.mkdir(parents=True, exist_ok=True)
        hidden, lines = target / "_part-0", 0
        # No time and no name in the header: the same bytes whenever they are written.
        with hidden.open("wb") as file, gzip.GzipFile("", "wb", 1, file, mtime=0) as packed:
            for _, chunk in chunks:
                packed.write(("\n".join(chunk.to_pylist()) + "\n").encode())
                lines += len(chunk)
        hidden.rename(target / "part-0.jsonl.gz")
        yield pa.RecordBatch.from_pydict({"folder": [folder], "lines": [lines]})


def _chunks(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[str, pa.Array]]:
    """Each batch's lines, folder by folder."""
    for batch in batches:
        runs, start = pc.run_end_encode(batch["folder"]), 0
        for folder, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            yield folder, batch["line"].slice(start, end - start)
            start = end


def reduced(links: DataFrame, shards: int, blocks: int, factor: float, seed: int) -> Matrix:
    """The thinning matrix A (shards x blocks): its sum is `factor`, every shard and every block alike in sum.

    As in the paper: the leading singular vectors of B averaged over `shards` groups of users and `blocks` of items, the
    nearest orthonormal vectors to these put together again by B's singular values, absolute values taken. Then rows and
    columns are balanced (Sinkhorn): a shard of heavier users would make users more unequal than the source's are.
    """
    width = min(shards, blocks)
    left, spectrum, right = _singular(links, width, shards, blocks, seed)
    entries = np.abs(_orthonormal(left) * spectrum @ _orthonormal(right).T) + 1e-9
    for _ in range(500):
        entries *= shards**-1 / entries.sum(axis=1, keepdims=True)
        entries *= blocks**-1 / entries.sum(axis=0, keepdims=True)
    entries *= factor / entries.sum()
    mean, top = entries.mean(), entries.max()
    if mean > 1:
        raise ValueError(f"{shards} x {blocks} copies hold at most {shards * blocks} times the source, not {factor}")
    if top > 1:  # flattened towards the mean, as little as needed
        entries = mean + (entries - mean) * (1 - mean) / (top - mean)
    return np.round(entries, 6)


def _orthonormal(vectors: Matrix) -> Matrix:
    """The nearest matrix with orthonormal columns."""
    u, _, v = np.linalg.svd(vectors, full_matrices=False)
    return u @ v


def _singular(links: DataFrame, width: int, shards: int, blocks: int, seed: int) -> tuple[Matrix, Matrix, Matrix]:
    """B's leading `width` singular vectors, of users averaged over `shards` groups, of items over `blocks`; B's values.

    By subspace iteration: B'B times the items' vectors, summed over _PARTS parts of the users.
    """
    names = np.sort(links.select(F.xxhash64("item_id").alias("i")).distinct().toArrow()["i"].to_numpy())
    pairs = (
        links.groupBy(F.xxhash64("user_id").alias("user"), F.xxhash64("item_id").alias("item"))
        .agg(F.count("*").alias("n"))
        .select(F.pmod("user", F.lit(_PARTS)).cast("int").alias("part"), "*")
        .repartition("part").sortWithinPartitions("part", "user", "item").persist()
    )  # fmt: skip
    try:
        vectors = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(names), width)))[0]
        for _ in range(_ROUNDS):
            vectors = np.linalg.qr(_summed(pairs, partial(_turned, names, vectors), len(names)))[0]
        product = _summed(pairs, partial(_turned, names, vectors), len(names))
        values, turn = np.linalg.eigh(vectors.T @ product)
        order = np.argsort(-values)
        vectors = vectors @ turn[:, order]
        left = _summed(pairs, partial(_grouped, names, vectors, shards), shards)
    finally:
        pairs.unpersist()
    right = np.zeros((blocks, width))
    np.add.at(right, names % blocks, vectors)
    return left, np.sqrt(np.maximum(values[order], 0)), right


def _summed(pairs: DataFrame, function: Any, rows: int) -> Matrix:
    """The sum over the parts of what `function` makes of each, in the order of the parts."""

    def of_part(table):  # type: ignore[no-untyped-def]  # Spark would read the types
        return function(table)

    found = pairs.groupBy("part").applyInArrow(of_part, "part int, matrix binary").toArrow().sort_by("part")
    parts = [np.frombuffer(part.as_py(), np.float64).reshape(rows, -1) for part in found["matrix"]]
    return np.sum(parts, axis=0)


def _counts(names: npt.NDArray[np.int64], table: pa.Table) -> tuple[sparse.csr_matrix, npt.NDArray[np.int64]]:
    """A part's users x items counts, and the users."""
    table = table.sort_by([("user", "ascending"), ("item", "ascending")])
    users, rows = np.unique(table["user"].to_numpy(), return_inverse=True)
    columns = np.searchsorted(names, table["item"].to_numpy())
    return sparse.csr_matrix((table["n"].to_numpy().astype(float), (rows, columns)), (len(users), len(names))), users


def _turned(names: npt.NDArray[np.int64], vectors: Matrix, table: pa.Table) -> pa.Table:
    counts, _ = _counts(names, table)
    return _told(table, counts.T @ (counts @ vectors))


def _grouped(names: npt.NDArray[np.int64], vectors: Matrix, shards: int, table: pa.Table) -> pa.Table:
    counts, users = _counts(names, table)
    sums = np.zeros((shards, vectors.shape[1]))
    np.add.at(sums, users % shards, counts @ vectors)
    return _told(table, sums)


def _told(table: pa.Table, matrix: Matrix) -> pa.Table:
    return pa.table({"part": table["part"][:1], "matrix": [np.ascontiguousarray(matrix).tobytes()]})


def main() -> None:
    """Command line."""
    from nightrec.config import Spark
    from nightrec.session import session

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", required=True, metavar="FOLDER", help="raw root of a real log")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="raw root to write")
    parser.add_argument("--events", required=True, type=int, help="about how many")
    parser.add_argument("--seed", default=17, type=int)
    asked = parser.parse_args()
    spark = session(Spark(master="local[2]", partitions=16, driver_memory="2g"), "enlarge")
    made = enlarge(spark, asked.source, asked.out, asked.events, asked.seed)
    print(f"{made.events} events in {asked.out}; thinned by\n{np.round(made.thinning, 3)}")
    spark.stop()


if __name__ == "__main__":
    main()
