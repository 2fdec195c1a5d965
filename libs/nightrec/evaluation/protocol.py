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
from nightrec.profiles.items import item_profiles
from nightrec.tables import CLEAN_EVENTS, RANKED_TOPK

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from nightrec.runner import Watch

OURS = "nightrec"
METRICS = ("ndcg", "recall", "hit", "average_precision", "precision", "f1", "debiased_ndcg")
# Items up to which the N x N baselines are run: 10,000 take 800 MB and three minutes.
SQUARE_ITEMS = 10_000


@dataclass(frozen=True)
class Judged:
    """One method at one cut or over all: means over users with intervals, and of the gain of nightrec on it.

    `setting` is what the window before the cut chose for a baseline; '' where there was nothing to choose.
    """

    cut: date | None
    method: str
    setting: str
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
        per_cut = [_at_cut(night.at(cut), days) for cut in wanted]
        judged = [one for found in per_cut for one in _judged(found)]
        return judged + _judged(_pooled(per_cut))


@dataclass(frozen=True)
class _Figures:
    """One row per user and method, with METRICS; of each method its coverage and its setting."""

    cut: date | None
    rows: DataFrame
    coverage: Mapping[str, float]
    settings: Mapping[str, str]


def _at_cut(night: Night, days: int) -> _Figures:
    """What the night's lists and the baselines', each tuned on the window before the cut, were worth after it."""
    chosen = _tuned(night.at(night.date - timedelta(days=days)), days)
    log = _Log.of(night, days)
    methods = {name: settings[chosen[name]] for name, settings in families(len(log.items.item_id)).items()}
    lists = log.lists(methods).unionByName(_ours(night, log.users)).persist()
    offered = log.offered.select("item_id")
    shares = {
        name: catalogue.coverage(lists.where(F.col("method") == name), offered, log.k) for name in (OURS, *methods)
    }
    rows = [
        ranking.per_user(lists.where(F.col("method") == name), log.truth, log.k).withColumn("method", F.lit(name))
        for name in shares
    ]
    every = reduce(DataFrame.unionByName, rows).withColumn("_cut", F.lit(night.date)).persist()
    return _Figures(night.date, every, shares, {OURS: "", **chosen})


def _pooled(per_cut: list[_Figures]) -> _Figures:
    methods = per_cut[0].coverage
    return _Figures(
        None,
        reduce(DataFrame.unionByName, (found.rows for found in per_cut)),
        {name: sum(found.coverage[name] for found in per_cut) / len(per_cut) for name in methods},
        {name: "; ".join(dict.fromkeys(found.settings[name] for found in per_cut)) for name in methods},
    )


def families(items: int) -> dict[str, dict[str, baselines.Method]]:
    """The baselines for a catalogue of so many items: per name, its settings. Each also with the items' trend."""
    windows = {f"popularity of {days} days": n for n, days in enumerate(baselines.WINDOWS)}
    plain: dict[str, dict[str, baselines.Method]] = {
        **{name: {"": baselines.popularity(n)} for name, n in windows.items()},
        "popularity ever": {"": baselines.popularity(baselines.EVER)},
        "habit": {f"half-life {days} days": baselines.habit(float(days)) for days in (14, 60, 1000)},
        "item cosine": {f"shrink {shrink}": baselines.cosine(float(shrink)) for shrink in (0, 10, 100)},
    }
    if items <= SQUARE_ITEMS:
        plain["EASE"] = {f"penalty {penalty}": baselines.ease(float(penalty)) for penalty in (30, 200, 1000)}
    trend = {
        f"{name}, trend": {setting: baselines.trending(method) for setting, method in settings.items()}
        for name, settings in plain.items()
    }
    return plain | trend


def _tuned(night: Night, days: int) -> dict[str, str]:
    """The setting of each family with the best mean NDCG on the window that begins after the night; ties to the first.

    The night lies so many `days` before a cut, so the window ends with the cut.
    """
    log = _Log.of(night, days)
    every = families(len(log.items.item_id))
    asked = {
        f"{name}|{setting}": method
        for name, settings in every.items()
        for setting, method in settings.items()
        if len(settings) > 1
    }
    lists = log.lists(asked).persist()
    worth = {
        name: ranking.per_user(lists.where(F.col("method") == name), log.truth, log.k).agg(F.avg("ndcg")).first()
        for name in asked
    }
    lists.unpersist()

    def ndcg(name: str, setting: str) -> float:
        found = worth.get(f"{name}|{setting}")
        return float(found[0] or 0.0) if found else 0.0

    return {
        name: max(settings, key=lambda setting, name=name: ndcg(name, setting))  # type: ignore[misc]
        for name, settings in every.items()
    }


@dataclass(frozen=True)
class _Log:
    """What the baselines know as of a night, and what came after it: item side, histories and truth."""

    k: int
    repeats_allowed: bool
    offered: DataFrame  # item_id, user_count
    items: baselines.Items
    histories: DataFrame
    truth: DataFrame  # user_id, item_id, weight
    users: DataFrame  # user_id of truth

    @classmethod
    def of(cls, night: Night, days: int) -> _Log:
        """As of the night's date; `days` after it are the truth."""
        allowed = night.config.candidates.repeats_allowed
        clean = night.store.read(CLEAN_EVENTS)
        events = clean.where(F.col("ingest_date") <= F.lit(night.date))
        snapshot = raw.items(night.spark, night.config.paths.raw, night.date)
        profiles = item_profiles(
            snapshot.rows if snapshot else None, events, night.date, night.config.profiles.recent_days
        )
        offered = profiles.where("is_available").select("item_id", "user_count").persist()
        item_id = offered.select("item_id").toArrow().sort_by("item_id")["item_id"].combine_chunks()
        weight = F.coalesce(1 / F.sqrt(F.col("user_count") + 1), F.lit(1.0)).alias("weight")
        later = asof.acted(clean, night.date, days, repeats_allowed=allowed, before=events)
        truth = later.join(offered, "item_id", "left").select("user_id", "item_id", weight).persist()
        numbered = asof.numbered(asof.pairs(events, night.date), item_id).persist()
        histories = asof.histories(numbered).persist()
        items = asof.items(numbered, histories, item_id)
        users = truth.select("user_id").distinct()
        return cls(night.config.lists.k, allowed, offered, items, histories, truth, users)

    def lists(self, methods: Mapping[str, baselines.Method]) -> DataFrame:
        """method, user_id, item_id, rank of each method for the users of the truth."""
        empty = F.array().cast("array<int>")
        asked = self.users.join(self.histories, "user_id", "left").select(
            "user_id", *(F.coalesce(name, empty).alias(name) for name in ("items", "counts", "ages"))
        )
        found = baselines.lists(asked, self.items, methods, k=self.k, repeats_allowed=self.repeats_allowed)
        item_id = self.items.item_id
        index = pa.table({"item": pa.array(range(len(item_id)), pa.int32()), "item_id": item_id})
        return (
            found.select("method", "user_id", F.posexplode("items").alias("_place", "item"))
            .join(F.broadcast(found.sparkSession.createDataFrame(index)), "item")
            .select("method", "user_id", "item_id", (F.col("_place") + 1).alias("rank"))
        )


def _ours(night: Night, users: DataFrame) -> DataFrame:
    """The night's lists as they would be served: a user without one of their own gets everyone's."""
    ranked = night.read(RANKED_TOPK).select("list_kind", F.col("list_key").alias("user_id"), "item_id", "rank")
    own = ranked.where("list_kind = 'user'").drop("list_kind").join(users, "user_id", "left_semi")
    others = users.join(own, "user_id", "left_anti")
    everyone = ranked.where("list_kind = 'everyone'").select("item_id", "rank")
    lists = own.unionByName(others.crossJoin(F.broadcast(everyone)).select("user_id", "item_id", "rank"))
    return lists.select(F.lit(OURS).alias("method"), "user_id", "item_id", "rank")


def _judged(found: _Figures) -> list[Judged]:
    ours = found.rows.where(F.col("method") == OURS).select("user_id", "_cut", F.col("ndcg").alias("_ours"))
    judged = []
    for method, share in found.coverage.items():
        own = found.rows.where(F.col("method") == method)
        paired = own.join(ours, ["user_id", "_cut"]).withColumn("_gain", F.col("_ours") - F.col("ndcg"))
        figures = bootstrap.means(paired, [*METRICS, "_gain"])
        if figures:
            judged.append(Judged(found.cut, method, found.settings[method], figures, figures.pop("_gain"), share))
    return judged
