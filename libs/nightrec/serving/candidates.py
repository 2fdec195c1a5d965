"""Nominate items for every list: users, segments, similar items and everyone, all by `nominate.py`.

The item side (factors, embeddings, neighbours, popularity) is gathered once and sent to every worker; nothing that
grows with users passes through the driver. Item vectors that outgrow a worker's share of memory go to every host as a
file instead, and lists meet them block by block.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from nightrec import scratch
from nightrec.config import RECENT_DAYS, Candidates
from nightrec.serving import attributes, neighbour_users, new_items, nominate, similar
from nightrec.serving.catalogue import Catalogue
from nightrec.serving.histories import user_counts
from nightrec.serving.vectors import Vectors
from nightrec.serving.vouched import PAIRS, of_groups
from nightrec.stopwatch import Clock
from nightrec.tables import CANDIDATES, SOURCES

# What the kernel is told of a list; ids as strings, `recent`, `masked` and `own` as item numbers.
LISTS = (
    "list_kind string, list_key string, als_vector array<float>, text_vector array<float>, recent array<int>, "
    "segment string, blocked_items array<string>, masked array<int>, own array<int>, own_days array<int>, "
    "own_age array<int>, own_span array<int>, event_count bigint, item_count bigint, days_since_last int, "
    "weekday_share double, categories array<string>, category_shares array<double>, seed bigint"
)


@dataclass(frozen=True)
class Inputs:
    """The tables one night's candidates rest on, each already narrowed to its night, model or encoder."""

    events: DataFrame
    item_profiles: DataFrame
    user_profiles: DataFrame
    als_item_factors: DataFrame
    als_user_factors: DataFrame
    item_embeddings: DataFrame
    user_embeddings: DataFrame


def counts(settings: Candidates, k: int, run_date: date) -> dict[str, int]:
    """Items each source nominates, 0 = off. Popularity nominates K at least, so that a list falls short only where
    fewer than K items may be shown.
    """
    return {
        "als": settings.als,
        "neighbour_users": settings.neighbour_users,
        "cooccurrence": settings.cooccurrence,
        "bm25": settings.bm25,
        "linear": settings.linear,
        "transitions": settings.transitions,
        "text": settings.text,
        "keywords": settings.keywords,
        "attributes": settings.attributes,
        "habit": settings.habit if settings.repeats_allowed else 0,
        "newcomers": settings.newcomers,
        "segment": settings.segment,
        "trending": settings.trending,
        "popularity": max(settings.popularity, k) if settings.popularity else 0,
        "new_items": settings.new_items,
        "editorial": len(settings.picks(run_date)),
    }


def item_rows(inputs: Inputs, *, vectors: bool = True) -> pa.Table:
    """The night's items in id order, gathered: counts, times, texts, values, price, factors and text vector of each.
    Without `vectors` that is null: texts then nominate nothing and tell nothing."""
    factors = inputs.als_item_factors.select("item_id", "factors")
    encoded = inputs.item_embeddings.select("text_hash", "vector")
    rows = inputs.item_profiles.select(
        "item_id",
        "is_available",
        "recent_user_count",
        "user_count",
        "event_count",
        "window_user_counts",
        # Lists are read on the day after the night.
        F.get("weekday_user_days", F.weekday(F.date_add("run_date", 1))).alias("weekday_days"),
        F.aggregate("weekday_user_days", F.lit(0).cast("bigint"), lambda some, more: some + more).alias("all_days"),
        "repeat_user_count",
        "repeat_gap_days",
        F.date_diff("run_date", F.to_date("first_event_ts")).alias("age"),
        F.date_diff("run_date", F.to_date("last_event_ts")).alias("idle"),
        "categories",
        attributes.values().alias("values"),
        attributes.price().alias("price"),
        "text",
        "text_hash",
    )
    known = encoded if vectors else encoded.limit(0)
    joined = rows.join(factors, "item_id", "left").join(known, "text_hash", "left").drop("text_hash")
    return joined.toArrow().sort_by("item_id")


def catalogue(
    rows: pa.Table, histories: DataFrame, user_profiles: DataFrame, settings: Candidates, *, run_date: date,
    partitions: int, recent_days: int = RECENT_DAYS, clock: Clock = nullcontext, least: int = 1,
) -> Catalogue:  # fmt: skip
    """The item side of the night: `rows` of `item_rows`, neighbours and segments from the users' histories. Trends are
    of about `recent_days`, and of a quarter of them. `least` users are wanted behind what is told of a segment, and of
    pairs of items for lists of nobody in particular.

    `clock` is told what each source's part takes, here and in `candidates`.
    """
    counted = user_counts(histories, user_profiles)
    users, days, first = (
        np.bincount(counted["item_idx"].to_numpy(), counted[name].to_numpy(), rows.num_rows).astype(np.int64)
        for name in ("basket", "days", "first")
    )
    with clock("new_items"):
        drawn = new_items.pool(rows, settings.new_item_events, run_date)
    neighbours = similar.neighbours(rows, histories, users, days, settings, partitions, clock, least)
    shared = neighbours.pop(PAIRS, None)
    with clock("segment"):
        by_segment = segments(counted, rows, settings.segment_prior, least)
    with clock("neighbour_users"):
        references = neighbour_users.sample(histories, settings.reference_users if settings.neighbour_users else 0)
    cold = pc.less_equal(rows["event_count"], settings.new_item_events)
    for name, column in {"newcomer_count": pa.array(first), "is_new": pa.array(drawn), "is_cold": cold}.items():
        rows = rows.append_column(name, column)
    picks = [pick.item for pick in settings.picks(run_date)]
    found = Catalogue.of(rows, neighbours, by_segment, picks, references, settings.nearest_users, recent_days)
    return found.sharing(shared)


def segments(counted: pa.Table, rows: pa.Table, prior: float, least: int = 1) -> pa.Table:
    """`segment`, `item_idx`, `users`: the segment's recent users of each of its items, `least` of them at least, shrunk
    towards everybody's.

    The most popular item counts as `prior` more users in every segment, the others in proportion: small segments are
    noisy. MovieLens, newcomers of 6 cuts: NDCG@10 .518 with 50, .483 without, .516 for popularity alone.
    """
    own = counted.filter(pc.and_(pc.is_valid(counted["segment"]), pc.greater_equal(counted["recent"], least)))
    recent = rows["recent_user_count"].to_numpy()
    shares = recent / max(recent.max(initial=0), 1)
    users = own["recent"].to_numpy() + prior * shares[own["item_idx"].to_numpy()]
    return own.select(["segment", "item_idx"]).append_column("users", pa.array(users, pa.float64()))


def lists(inputs: Inputs, histories: DataFrame, recent_items: int, *, users_only: bool = False) -> DataFrame:
    """Every list of the night as the kernel reads it: eligible users, their segments, catalogue items, everyone.

    The latest `recent_items` of a user speak for the user's taste. `users_only` leaves the others out: a past night
    that is replayed for training teaches by its users alone.
    """
    users = (
        inputs.user_profiles.where("is_eligible")
        .select(
            "user_id",
            "segment",
            "blocked_items",
            "event_count",
            "item_count",
            "days_since_last",
            F.map_keys("category_shares").alias("categories"),
            F.map_values("category_shares").alias("category_shares"),
        )
        .join(inputs.als_user_factors.select("user_id", F.col("factors").alias("als_vector")), "user_id", "left")
        .join(inputs.user_embeddings.select("user_id", F.col("vector").alias("_vector")), "user_id", "left")
        # Attributes alone are no taste: texts near "gender: F" served newcomers NDCG@10 .09 where popularity had .51.
        .withColumn("text_vector", F.when(F.col("event_count") > 0, F.col("_vector")))
        .join(
            histories.select(
                "user_id",
                "masked",
                F.slice("basket", 1, recent_items).alias("recent"),
                F.col("basket").alias("own"),
                "own_days",
                "own_age",
                "own_span",
                "weekday_share",
            ),
            "user_id",
            "left",
        )
        .withColumnRenamed("user_id", "list_key")
    )
    if users_only:
        return _kind("user", users)
    segments = (
        users.where(F.col("segment").isNotNull()).select("segment").distinct().withColumn("list_key", F.col("segment"))
    )
    items = inputs.item_profiles.where("in_catalogue").select(
        F.col("item_id").alias("list_key"), F.array("item_id").alias("blocked_items")
    )
    everyone = users.sparkSession.range(1).select(F.lit("everyone").alias("list_key"))
    return (
        _kind("user", users)
        .unionByName(_kind("segment", segments))
        .unionByName(_kind("item", items))
        .unionByName(_kind("everyone", everyone))
    )


def _kind(kind: str, frame: DataFrame) -> DataFrame:
    """`frame` with the columns of LISTS, null where it has none."""
    columns = [part.split(" ") for part in LISTS.split(", ")]
    given = {"list_kind": F.lit(kind), **{name: F.col(name) for name in frame.columns}}
    return frame.select(*(given.get(name, F.lit(None)).cast(type_).alias(name) for name, type_ in columns))


def candidates(
    lists: DataFrame, items: Catalogue, settings: Candidates, *, k: int, run_date: date, als_model: str,
    partitions: int, clock: Clock = nullcontext, users: npt.NDArray[np.integer] | None = None, least: int = 1,
) -> DataFrame:  # fmt: skip
    """The rows of `candidates`: what each source nominated for each list.

    Lists of users get `counts` of each source. All others are cut by the ladder alone, in the order of the sources' own
    ranks: whatever a source ranks behind K has K before it, so K of each source publish the same lists (MovieLens: 270
    thousand rows where full counts wrote 600 thousand). Picks by hand are not cut: any of them may be pinned. These
    lists rest on `least` users (see vouched.py; `users` are those of each item ever).
    """
    full = counts(settings, k, run_date)
    few = {source: count if source == "editorial" else min(count, k) for source, count in full.items()}
    held = within(items, settings.item_memory_mb * 2**20, lists.sparkSession)
    groups = held if users is None else of_groups(held, users, least)
    sent = lists.sparkSession.sparkContext.broadcast((held, groups))

    def nominated(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            is_user = pc.equal(batch.column("list_kind"), "user")
            own, others = batch.filter(is_user), batch.filter(pc.invert(is_user))
            yield from nominate.candidates(own, sent.value[0], full, of_users=True, clock=clock)
            yield from nominate.candidates(others, sent.value[1], few, of_users=False, clock=clock)

    scores = ", ".join(f"{source}_score float, {source}_rank int" for source in SOURCES)
    schema = (
        f"list_kind string, list_key string, item_id string, {scores}, source string, because_item_id string, "
        "features array<float>"
    )
    # A number of partitions of its own: left to itself Spark puts so few bytes into one task and one core.
    # What chance decides follows from night and list.
    seeded = lists.withColumn("seed", F.xxhash64(F.lit(run_date.isoformat()), "list_kind", "list_key"))
    rows = seeded.repartition(partitions, "list_kind", "list_key").mapInArrow(nominated, schema)
    return rows.select(F.lit(run_date).alias("run_date"), F.lit(als_model).alias("als_model"), "*").select(
        CANDIDATES.names
    )


def within(items: Catalogue, limit: int, spark: SparkSession) -> Catalogue:
    """The catalogue as a worker can hold it: as it is where its vectors and their indexes take at most `limit` bytes.

    Else its vectors lie in files that Spark lays beside every worker, and a worker holds about half of `limit` of each
    at a time. The files stay until this process ends, as executors fetch them with their first task.
    """
    if items.worker_bytes <= limit:
        return items
    folder = scratch.lasting()
    # Spark knows files by their names alone: that of the folder makes them this night's.

    def laid(vectors: Vectors, kind: str) -> Vectors:
        name = folder / f"{folder.name}-{kind}.npy"
        in_file = vectors.in_file(name, limit // 2)
        spark.sparkContext.addFile(str(name))
        return in_file

    return replace(
        items,
        factors=laid(items.factors, "factors"),
        rising=laid(items.rising, "rising"),
        vectors=laid(items.vectors, "texts"),
    )
