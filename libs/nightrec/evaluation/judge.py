"""What every method's lists were worth after each cut: baselines tuned on the window before it, paired differences."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from nightrec import raw
from nightrec.evaluation import asof, baselines, predictions
from nightrec.evaluation.baselines import Items
from nightrec.evaluation.lists import ITEM_SLICES, OURS, Judging, Method, Shelf, item_figures
from nightrec.metrics import bootstrap, catalogue, probability, reach
from nightrec.models import ranker_row
from nightrec.past.pieces import Where
from nightrec.privacy import pseudonyms
from nightrec.profiles.items import item_profiles
from nightrec.profiles.users import user_profiles
from nightrec.store import arrow
from nightrec.tables import (
    CANDIDATES,
    CLEAN_EVENTS,
    ITEM_EMBEDDINGS,
    ITEM_PROFILES,
    RANKED_TOPK,
    SOURCES,
    USER_PROFILES,
)

if TYPE_CHECKING:
    from nightrec.night import Night

# Items up to which all pairs count, for EASE and item cosine: N x N takes 100 MB for each setting. Beyond it EASE is
# not run, and of an item's neighbours the nearest count.
SQUARE_ITEMS = 5000
_NEAREST = 200
# Segments with a slice of their own, the largest.
SEGMENTS = 8
DEPTHS = (100, 500)


@dataclass(frozen=True)
class Cut:
    """What was found at one cut, in sums that can be pooled. `settings` are those the window before chose."""

    date: date
    methods: tuple[str, ...]
    settings: Mapping[str, str]
    figures: bootstrap.Resampled  # names: Judging.columns
    slices: tuple[str, ...]
    coverage: Mapping[str, float]
    reach: Mapping[tuple[str, int], tuple[float, int]]
    calibration: probability.Calibration
    squared: Mapping[str, probability.SquaredError]  # by what predicted the ratings
    costs: Mapping[str, float]  # seconds of the night's candidates, by source and what else they took


def families(items: int) -> dict[str, dict[str, baselines.Method]]:
    """The baselines for a catalogue of so many items: per family, its settings."""
    near = items if items <= SQUARE_ITEMS else _NEAREST
    windows = {f"popularity of {days} day{'s' if days > 1 else ''}": n for n, days in enumerate(baselines.WINDOWS)}
    found: dict[str, dict[str, baselines.Method]] = {
        **{name: {"": baselines.popularity(n)} for name, n in windows.items()},
        "popularity ever": {"": baselines.popularity(baselines.EVER)},
        baselines.BY_SEGMENT: {
            f"{baselines.WINDOWS[n]} days, prior {prior}": baselines.segment_popularity(n, float(prior))
            for n in (2, 3)
            for prior in (5, 50)
        },
        "habit": {f"half-life {days} days": baselines.habit(float(days)) for days in (14, 60, 1000)},
        "item cosine": {f"shrink {shrink}": baselines.cosine(float(shrink), near) for shrink in (0, 10, 100)},
        "item BM25": {f"nearest {nearest}": baselines.bm25(nearest) for nearest in (20, _NEAREST)},
        "neighbour users": {f"nearest {nearest}": baselines.neighbours(nearest) for nearest in (50, 200)},
        "iALS": {
            f"alpha {alpha}, penalty {penalty}": baselines.ials(float(alpha), penalty)
            for alpha, penalty in ((10, 0.05), (10, 0.2), (2, 0.1))
        },
    }
    if items <= SQUARE_ITEMS:
        found["EASE"] = {f"penalty {penalty}": baselines.ease(float(penalty)) for penalty in (30, 200, 1000)}
    return found


def judge(night: Night, days: int, costs: Mapping[str, float]) -> Cut:
    """The lists that the night of a cut made, down to DEEP, and the baselines', by the `days` of clean events after it;
    `costs` is what its candidates took."""
    shelves = offered(night)
    chosen = of_catalogue(_tuned(night.at(night.date - timedelta(days=days)), days), shelves.num_rows)
    people = night.store.read(USER_PROFILES, {"run_date": night.date}).select("user_id", "segment")
    log = Log.of(night, days, shelves["item_id"].combine_chunks(), people)
    judging = log.judging(
        [Method(family, setting, trend) for (family, trend), setting in chosen.items()],
        Shelf.of(log.items, _vectors(night, shelves["text_hash"])),
        everyone=log.numbers(_everyone(night)),
        segments=_segments(night),
    )
    users = _judged_users(night, log).persist()
    rows = judging.judged(_spread(night, users)).persist()
    try:
        return Cut(
            night.date,
            tuple(judging.names),
            {OURS: "", **{Method(family, setting, trend).name: setting for (family, trend), setting in chosen.items()}},
            bootstrap.resampled(rows, judging.columns),
            tuple(judging.slices),
            catalogue.coverage(rows, judging.names, len(log.items.item_id)),
            reach.reach(_nominated(night, log, users), _truth(users), SOURCES, DEPTHS, judging.k),
            probability.calibration(_predicted(night, log)),
            predictions.squared_errors(night, days),
            costs,
        )
    finally:
        for frame in (rows, users, log.users):
            frame.unpersist()


def of_catalogue(chosen: Mapping[tuple[str, bool], str], items: int) -> dict[tuple[str, bool], str]:
    """What was chosen on the window before, without the families that a catalogue of so many items has outgrown."""
    known = families(items)
    return {(family, trend): setting for (family, trend), setting in chosen.items() if family in known}


def _tuned(night: Night, days: int) -> dict[tuple[str, bool], str]:
    """Of each family, without and with trend, the setting of highest NDCG on the `days` after the night; ties to the
    first. The night lies so many days before a cut: the window ends with the cut."""
    events = night.store.read(CLEAN_EVENTS).where(F.col("ingest_date") <= F.lit(night.date))
    snapshot = raw.items(night.spark, night.config.paths.raw, night.date)
    settings = night.config.profiles
    profiles = item_profiles(snapshot.rows if snapshot else None, events, night.date, settings.recent)
    available = profiles.where("is_available").select("item_id").toArrow().sort_by("item_id")
    people = raw.users(night.spark, night.config.paths.raw, night.date, pseudonyms.of(night.config.privacy))
    users = user_profiles(
        people.rows if people else None, events, profiles, night.date,
        recent_days=settings.recent, recent_items=settings.recent_items,
        segment_attribute=settings.segment_attribute, eligible_days=settings.eligible_days,
    )  # fmt: skip
    log = Log.of(night, days, available["item_id"].combine_chunks(), users.select("user_id", "segment"))
    known = families(len(log.items.item_id))
    methods = [
        Method(family, setting, trend)
        for family, settings in known.items()
        for setting in settings
        if len(settings) > 1
        for trend in (False, True)
    ]
    judging = log.judging(methods, Shelf.of(log.items))
    asked = _spread(night, log.users.where(F.size("truth") > 0))
    # Every setting is a method of its own here; two of a family share the name.
    found = bootstrap.resampled(judging.judged(asked), range(len(judging.columns)))
    log.users.unpersist()
    width = len(judging.columns) // max(len(methods), 1)
    worth = {method: found.totals[n * width] for n, method in enumerate(judging.methods)}

    def ndcg(family: str, trend: bool, setting: str) -> float:
        return float(worth.get(Method(family, setting, trend), 0.0))

    return {
        (family, trend): max(settings, key=partial(ndcg, family, trend))
        for family, settings in known.items()
        for trend in (False, True)
    }


@dataclass(frozen=True)
class Log:
    """What is known as of a night and came after it: item side, and one row per user (asof.users, in Spark's cache)."""

    k: int
    item_id: pa.Array
    index: DataFrame  # item_id, item
    users: DataFrame

    @classmethod
    def of(cls, night: Night, days: int, item_id: pa.Array, segments: DataFrame | None = None) -> Log:
        """As of the night's date; `days` after it are the truth. `item_id`: what was on offer, sorted. `segments`:
        user_id and segment, where they are asked for."""
        allowed = bool(night.config.candidates.repeats_allowed)
        numbers = pa.table({"item_id": item_id, "item": pa.array(range(len(item_id)), pa.int32())})
        index = night.spark.createDataFrame(numbers)
        events = night.store.read(CLEAN_EVENTS)
        users = asof.users(events, index, night.date, days, repeats_allowed=allowed)
        if segments is not None:
            users = users.join(segments, "user_id", "left")
        return cls(night.config.lists.k, item_id, index, users.persist())

    @cached_property
    def items(self) -> Items:
        """What the baselines learn from."""
        return asof.items(self.users, self.item_id)

    def judging(
        self,
        methods: Sequence[Method],
        shelf: Shelf,
        everyone: Sequence[int] | None = None,
        segments: Sequence[str] = (),
    ) -> Judging:
        """The pass over the users, each family learned once per setting."""
        known = families(len(self.items.item_id))
        wanted = dict.fromkeys((method.family, method.setting) for method in methods)
        learned = {}
        for family, setting in wanted:
            score = known[family][setting](self.items)
            by_segment = family == baselines.BY_SEGMENT
            learned[family, setting] = score if by_segment else baselines.for_everyone(score, self.items)
        ordered = [method for key in wanted for method in methods if (method.family, method.setting) == key]
        return Judging(self.k, shelf, self.items.trend, ordered, learned, everyone, tuple(segments))

    def numbers(self, item_ids: pa.ChunkedArray) -> list[int]:
        """Numbers of items, -1 for those not on offer."""
        return list(pc.index_in(item_ids, value_set=self.item_id).fill_null(-1).to_pylist())


def offered(night: Night) -> pa.Table:
    """item_id, text_hash, event_count of what the night could list, by item_id."""
    columns = ["item_id", "text_hash", "event_count", "is_available"]
    profiles = arrow(night.store.warehouse, ITEM_PROFILES, {"run_date": night.date}, columns)
    offered = profiles.filter(profiles["is_available"])
    types = (pa.string(), pa.string(), pa.int64())
    return pa.table({n: offered[n].cast(type_) for n, type_ in zip(columns, types, strict=False)}).sort_by("item_id")


def _spread(night: Night, users: DataFrame) -> DataFrame:
    """With `_user`, over all cores: a few thousand users are little to shuffle, and much to score."""
    return users.repartition(night.config.spark.partitions, "user_id").withColumn("_user", F.xxhash64("user_id"))


def _everyone(night: Night) -> pa.ChunkedArray:
    """Items of the list for users without one, in order."""
    where: Where = {"run_date": night.date, "list_kind": "everyone"}
    rows = arrow(night.store.warehouse, RANKED_TOPK, where, ["rank", "item_id"]).sort_by("rank")
    return rows["item_id"].cast(pa.string())


def _vectors(night: Night, hashes: pa.ChunkedArray) -> np.ndarray:
    """N x D: each item's text vector, 0 where it has none."""
    known = arrow(night.store.warehouse, ITEM_EMBEDDINGS, {"encoder": night.config.encoder.id}, ["text_hash", "vector"])
    places = pc.index_in(hashes, value_set=known["text_hash"].cast(pa.string()).combine_chunks())
    has = np.asarray(places.is_valid())
    flat = known["vector"].combine_chunks().flatten().to_numpy().astype(np.float32)
    table = flat.reshape(known.num_rows, -1) if known.num_rows else np.zeros((0, 0), np.float32)
    rows = np.zeros((len(has), table.shape[1]), np.float32)
    rows[has] = table[np.asarray(places.drop_null())]
    return rows


def ndcg(
    night: Night, log: Log, name: Hashable, slices: npt.NDArray[np.bool_] | None = None
) -> bootstrap.Resampled:  # fmt: skip
    """The NDCG at K of the lists that the night made, as the figure of that name, and of `slices` (N x ITEM_SLICES)
    their recall, as (name, one of item_figures); without anything beside them."""
    count = len(log.item_id)
    # Every item alike: what needs to know them is not asked for.
    ones, members = np.ones(count), np.zeros((count, len(ITEM_SLICES)), np.bool_) if slices is None else slices
    shelf = Shelf(ones, ones, np.zeros((count, 0), np.float32), members)
    trend = np.zeros(count, np.float32)
    judging = Judging(log.k, shelf, trend, [], {}, log.numbers(_everyone(night)))
    rows = judging.judged(_spread(night, _judged_users(night, log)))
    places = (judging.columns.index((OURS, kind)) for kind in ("ndcg", *item_figures(log.k)))
    figures = F.array(*(F.get("figures", F.lit(place)) for place in places))
    return bootstrap.resampled(rows.select("user_id", figures.alias("figures")), ndcg_names(name, log.k))


def ndcg_names(name: Hashable, k: int) -> list[Hashable]:
    """What `ndcg` calls its figures."""
    return [name, *((name, kind) for kind in item_figures(k))]


def _segments(night: Night) -> list[str]:
    """The largest segments of the night, ties by name."""
    counted = night.store.read(USER_PROFILES, {"run_date": night.date}).where("segment IS NOT NULL").groupBy("segment")
    largest = counted.count().orderBy(F.col("count").desc(), "segment").limit(SEGMENTS)
    return [row["segment"] for row in largest.select("segment").collect()]


def _ranked(night: Night, log: Log, which: Column | None = None) -> DataFrame:
    """user_id, rank, item (-1 where it is not on offer), score of the users' own lists; of their rows all, or some."""
    lists = night.store.read(RANKED_TOPK, {"run_date": night.date}).where("list_kind = 'user'")
    lists = lists if which is None else lists.where(which)
    numbered = lists.join(F.broadcast(log.index), "item_id", "left")
    item = F.coalesce("item", F.lit(-1)).alias("item")
    return numbered.select(F.col("list_key").alias("user_id"), "rank", item, "score")


def _judged_users(night: Night, log: Log) -> DataFrame:
    """The users of log.users with truth, with `ours`: their list by number, NULL without one."""
    own = (
        _ranked(night, log)
        .groupBy("user_id")
        .agg(F.sort_array(F.collect_list(F.struct("rank", "item")))["item"].alias("ours"))
    )
    return log.users.where(F.size("truth") > 0).join(own, "user_id", "left")


def _truth(users: DataFrame) -> DataFrame:
    return users.select("user_id", F.explode("truth").alias("item_id"))


def _nominated(night: Night, log: Log, users: DataFrame) -> DataFrame:
    """user_id, item_id (its number) and the sources' ranks: what each judged user's list was made from."""
    ranks = [F.col("item").alias("item_id"), *(F.col(f"{source}_rank") for source in SOURCES)]
    rows = night.store.read(CANDIDATES, {"run_date": night.date, "als_model": night.als_model}).join(
        F.broadcast(log.index), "item_id"
    )
    own = rows.where("list_kind = 'user'").select(F.col("list_key").alias("user_id"), *ranks)
    everyone = rows.where("list_kind = 'everyone'").select(*ranks)
    others = users.where("ours IS NULL").select("user_id").crossJoin(F.broadcast(everyone))
    return own.unionByName(others)


def _predicted(night: Night, log: Log) -> DataFrame:
    """`probability` and `label` of each item of the lists that the ranker ordered: those of users with a history.

    Only of users who acted in the days after: of those the ranker learns, so its probabilities are theirs, given that
    they come back. What an editor or a draw put into a list has another's score.
    """
    known = log.users.where((F.col("events") > 0) & (F.size("truth") > 0)).select("user_id", "truth")
    # Lists ordered by value tell no probability, and those that no ranker ordered the place alone.
    if night.config.ranker.kind_values or not ranker_row(night.store.warehouse, night.ranker_model)["weights"]:
        known = known.limit(0)
    label = F.array_contains("truth", F.col("item")).cast("double").alias("label")
    # Scores have 6 decimals.
    inside = F.least(F.greatest("score", F.lit(1e-6)), F.lit(1 - 1e-6)).alias("probability")
    by_ranker = (F.col("source") != "editorial") & F.col("probability").isNull()
    shown = _ranked(night, log, by_ranker).where((F.col("rank") <= log.k) & (F.col("item") >= 0))
    return shown.join(known, "user_id").select(inside, label)
