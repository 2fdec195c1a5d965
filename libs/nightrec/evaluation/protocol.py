"""Rolling cuts in time: train and run a night as of each, then judge its lists and the baselines' on what came after.

The night's own stages are called, from cleaning to ranked_topk, in a warehouse of the evaluation's own: what is
measured is what a deployment would have published. The cuts are walked forwards, and nothing that arrived after a cut
is cleaned before its lists are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import reduce
from typing import TYPE_CHECKING

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from nightrec import raw, runner
from nightrec.config import Config
from nightrec.errors import UsageError
from nightrec.evaluation import asof, baselines
from nightrec.metrics import bootstrap, catalogue, ranking
from nightrec.night import Books, Night
from nightrec.pipeline import NIGHT, stage
from nightrec.tables import CLEAN_EVENTS, ITEM_PROFILES, RANKED_TOPK

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from nightrec.runner import Watch

OURS = "nightrec"
METRICS = ("ndcg", "recall", "hit", "average_precision", "precision", "f1", "debiased_ndcg")
# Baselines with their settings; each also with the items' trend.
_PLAIN: dict[str, baselines.Method] = {
    **{f"popularity of {days} days": baselines.popularity(n) for n, days in enumerate(baselines.WINDOWS)},
    "popularity ever": baselines.popularity(baselines.EVER),
    **{f"habit, half-life {days} days": baselines.habit(float(days)) for days in (14, 60, 1000)},
    **{f"item cosine, shrink {shrink}": baselines.cosine(float(shrink)) for shrink in (0, 20)},
}
_SQUARE = {f"EASE, penalty {penalty}": baselines.ease(float(penalty)) for penalty in (100, 500)}
# Items up to which the N x N baselines are run: 10,000 take 800 MB and three minutes.
SQUARE_ITEMS = 10_000


@dataclass(frozen=True)
class Judged:
    """One method at one cut or over all: means over users with intervals, and of the gain of nightrec on it."""

    cut: date | None
    method: str
    figures: Mapping[str, bootstrap.Interval]
    gain: bootstrap.Interval
    coverage: float


def apart(config: Config) -> Config:
    """The same deployment with tables, models and exports of its own, below its folder of reports."""
    root = f"{config.paths.reports}/evaluation"
    own = {name: f"{root}/{name}" for name in ("warehouse", "models", "exports")}
    return config.model_copy(update={"paths": config.paths.model_copy(update=own)})


def cuts(config: Config, count: int, days: int) -> list[date]:
    """The last `count` dates, `days` apart, that have `days` of arrived events after them. Raises UsageError where the
    log is too short to train before the first."""
    arrived = raw.ingest_dates(config.paths.raw, "events")
    last = arrived[-1] - timedelta(days=days)
    found = [last - timedelta(days=days * n) for n in reversed(range(count))]
    if not arrived or found[0] - timedelta(days=config.ranker.horizon_days * config.ranker.past_cuts) < arrived[0]:
        raise UsageError(
            f"{count} cuts of {days} days and {config.ranker.past_cuts} training cuts of {config.ranker.horizon_days} "
            f"days need more than the {len(arrived)} dates of {config.paths.raw}; ask for fewer or shorter ones"
        )
    return found


def walk(spark: SparkSession, config: Config, wanted: list[date], days: int, watch: Watch) -> Iterator[Books]:
    """Train and run a night as of each cut up to its lists; then clean what came after the last."""
    for cut in wanted:
        with Night(spark, config, cut, warm=True) as night:
            yield from _night(night, watch)
    with Night(spark, config, wanted[-1] + timedelta(days=days)) as night:
        yield runner.run_stage(night, stage("clean_events"))


def _night(night: Night, watch: Watch) -> Iterator[Books]:
    clean, *rest = NIGHT[: NIGHT.index(stage("ranked_topk")) + 1]
    with watch(f"{clean.name} {night.date}"):
        yield runner.run_stage(night, clean)
    yield from runner.train(night, watch)
    for step in rest:
        with watch(f"{step.name} {night.date}"):
            yield runner.run_stage(night, step)


def judge(spark: SparkSession, config: Config, wanted: list[date], days: int) -> list[Judged]:
    """Every method at every cut, and pooled over the cuts (`cut` is None), by the lists that `walk` made."""
    with Night(spark, config, wanted[-1]) as night:
        per_cut = {cut: _figures(night.at(cut), days) for cut in wanted}
        judged = [one for cut, (rows, shares) in per_cut.items() for one in _judged(rows, shares, cut)]
        every = reduce(DataFrame.unionByName, (rows for rows, _ in per_cut.values()))
        shares = {
            name: sum(found.get(name, 0.0) for _, found in per_cut.values()) / len(per_cut)
            for name in next(iter(per_cut.values()))[1]
        }
        return judged + _judged(every, shares, None)


def _figures(night: Night, days: int) -> tuple[DataFrame, dict[str, float]]:
    """One row per user and method: the METRICS; and each method's coverage."""
    k, allowed = night.config.lists.k, night.config.candidates.repeats_allowed
    events = night.store.read(CLEAN_EVENTS).where(F.col("ingest_date") <= F.lit(night.date))
    before = asof.pairs(events, night.date).persist()
    later = asof.acted(
        night.store.read(CLEAN_EVENTS), night.date, days, repeats_allowed=allowed, before=events
    )
    offered = night.read(ITEM_PROFILES).where("is_available").select("item_id", "user_count")
    item_id = offered.select("item_id").toArrow().sort_by("item_id")["item_id"].combine_chunks()
    weight = F.coalesce(1 / F.sqrt(F.col("user_count") + 1), F.lit(1.0)).alias("weight")
    truth = later.join(offered, "item_id", "left").select("user_id", "item_id", weight).persist()
    users = truth.select("user_id").distinct()
    lists = _lists(night, before, users, item_id, k, allowed).persist()
    every = users.crossJoin(lists.select("method").distinct())
    rows = [
        ranking.per_user(lists.where(F.col("method") == name), truth, k).withColumn("method", F.lit(name))
        for name in sorted(row["method"] for row in lists.select("method").distinct().toArrow().to_pylist())
    ]
    shares = {
        row["method"]: catalogue.coverage(lists.where(F.col("method") == row["method"]), offered, k)
        for row in every.select("method").distinct().toArrow().to_pylist()
    }
    return reduce(DataFrame.unionByName, rows).persist(), shares


def _lists(
    night: Night, before: DataFrame, users: DataFrame, item_id: pa.Array, k: int, repeats_allowed: bool
) -> DataFrame:
    """method, user_id, item_id, rank of nightrec and of every baseline, for the users to be judged."""
    numbered = asof.numbered(before, item_id).persist()
    known = asof.histories(numbered).persist()
    items = asof.items(numbered, known, item_id)
    methods = _PLAIN | (_SQUARE if len(item_id) <= SQUARE_ITEMS else {})
    methods |= {f"{name}, times trend": baselines.trending(method) for name, method in methods.items()}
    empty = F.array().cast("array<int>")
    asked = users.join(known, "user_id", "left").select(
        "user_id", *(F.coalesce(name, empty).alias(name) for name in ("items", "counts", "ages"))
    )
    found = baselines.lists(asked, items, methods, k=k, repeats_allowed=repeats_allowed)
    index = pa.table({"item": pa.array(range(len(item_id)), pa.int32()), "item_id": item_id})
    theirs = (
        found.select("method", "user_id", F.posexplode("items").alias("_place", "item"))
        .join(F.broadcast(night.spark.createDataFrame(index)), "item")
        .select("method", "user_id", "item_id", (F.col("_place") + 1).alias("rank"))
    )
    return theirs.unionByName(_ours(night, users))


def _ours(night: Night, users: DataFrame) -> DataFrame:
    """The night's lists as they would be served: a user without one of their own gets everyone's."""
    ranked = night.read(RANKED_TOPK).select("list_kind", F.col("list_key").alias("user_id"), "item_id", "rank")
    own = ranked.where("list_kind = 'user'").drop("list_kind").join(users, "user_id", "left_semi")
    others = users.join(own, "user_id", "left_anti")
    everyone = ranked.where("list_kind = 'everyone'").select("item_id", "rank")
    lists = own.unionByName(others.crossJoin(F.broadcast(everyone)).select("user_id", "item_id", "rank"))
    return lists.select(F.lit(OURS).alias("method"), "user_id", "item_id", "rank")


def _judged(rows: DataFrame, shares: Mapping[str, float], cut: date | None) -> list[Judged]:
    ours = rows.where(F.col("method") == OURS).groupBy("user_id").agg(F.avg("ndcg").alias("_ours"))
    found = []
    for method, share in shares.items():
        own = rows.where(F.col("method") == method).groupBy("user_id").agg(*(F.avg(n).alias(n) for n in METRICS))
        paired = own.join(ours, "user_id").withColumn("_gain", F.col("_ours") - F.col("ndcg"))
        figures = bootstrap.means(paired, [*METRICS, "_gain"])
        if figures:
            found.append(Judged(cut, method, figures, figures.pop("_gain"), share))
    return found
