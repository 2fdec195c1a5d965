"""Two pairs of models, each having made its lists as of a past date, judged by what their users then did.

The night's own stages make the lists; what is keyed by model or date stays in the tables, the lists themselves are in
memory alone: no night's ranked_topk is touched. What is there already is not made again.
"""

from __future__ import annotations

from datetime import date
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from nightrec.errors import NightrecError
from nightrec.gate import Duel
from nightrec.metrics import bootstrap
from nightrec.metrics.ranking import per_user
from nightrec.pipeline import LISTING
from nightrec.seen import hides
from nightrec.store import partitions
from nightrec.tables import CANDIDATES, ITEM_PROFILES, TABLES, USER_PROFILES

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from nightrec.models import Pair
    from nightrec.night import Night

CHAMPION, CHALLENGER = "champion", "challenger"


class Unfit(NightrecError):
    """A pair of models that cannot make lists; `whose` it is."""

    def __init__(self, whose: str, why: NightrecError) -> None:
        super().__init__(str(why))
        self.whose = whose


def came_back(night: Night, since: date) -> DataFrame:
    """Users and items of what counts that arrived after a date, up to the night, and happened after it too."""
    later = night.events(after=since).where((F.col("weight") > 0) & (F.col("event_date") > F.lit(since)))
    return later.select("user_id", "item_id").distinct()


def fought(night: Night, champion: Pair, challenger: Pair, since: date) -> Duel | None:
    """Both pairs' lists as of `since`, judged by what their users did up to the night; None without such a user.

    Judged are users who had a history by then, as all others' lists follow from no model. Where repeats are not
    allowed, only items count that the user's lists might hold. Raises Unfit where a pair cannot make lists.
    """
    k, acted = night.config.lists.k, came_back(night, since)
    if not night.config.candidates.repeats_allowed:
        seen = night.events(until=since).where(hides(repeats_allowed=False)).select("user_id", "item_id")
        acted = acted.join(seen, ["user_id", "item_id"], "left_anti")
    past = night.rehearsal(since, *champion, {})
    for name in ("item_profiles", "user_profiles"):
        _make(past, name)
    known = past.read(USER_PROFILES).where("is_eligible AND event_count > 0").select("user_id")
    truth = acted.join(known, "user_id", "left_semi").persist()
    try:
        only = partial(_of, truth.select("user_id").distinct())
        ndcg = [
            per_user(_lists(night, pair, since, only, whose), truth, k).select("user_id", F.col("ndcg").alias(whose))
            for pair, whose in ((champion, CHAMPION), (challenger, CHALLENGER))
        ]
        both = ndcg[0].join(ndcg[1], "user_id").select("user_id", F.array(CHAMPION, CHALLENGER).alias("figures"))
        found = bootstrap.resampled(both, [CHAMPION, CHALLENGER])
    finally:
        truth.unpersist()
    figures = found.interval(CHAMPION), found.interval(CHALLENGER), found.interval(CHALLENGER, minus=CHAMPION)
    first, second, difference = figures
    return Duel(k, first, second, difference) if first and second and difference else None


def _of(users: DataFrame, candidates: DataFrame) -> DataFrame:
    """Candidates of some users' lists."""
    mine = users.withColumnRenamed("user_id", "list_key")
    return candidates.where("list_kind = 'user'").join(F.broadcast(mine), "list_key", "left_semi")


def _lists(night: Night, pair: Pair, since: date, only: partial[DataFrame], whose: str) -> DataFrame:
    """user_id, item_id and rank of the lists that a pair makes as of a date."""
    past = night.rehearsal(since, *pair, {CANDIDATES.name: only})
    for stage in LISTING[1:-1]:
        _make(past, stage.name)
    items, users = past.read(ITEM_PROFILES), past.read(USER_PROFILES)
    candidates = past.read(CANDIDATES, {"run_date": since, "als_model": pair[0]})
    try:
        lists = import_module("nightrec_jobs.ranked_topk").ranked(past, candidates, items, users)
    except NightrecError as error:
        raise Unfit(whose, error) from error
    rows: DataFrame = lists.select(F.col("list_key").alias("user_id"), "item_id", "rank")
    return rows


def _make(past: Night, stage: str) -> None:
    """Run a stage of a past night, unless what it writes is there: a night that was served is not written anew."""
    table = next(table for table in TABLES if table.name == stage)
    own = {"run_date": past.date.isoformat(), "als_model": past.als_model, "encoder": past.config.encoder.id}
    known = partitions(past.store.warehouse, table)
    # Texts are kept for all nights alike: only new ones are encoded.
    is_there = any(all(own[name] == value for name, value in part.items()) for part in known)
    if not is_there or "run_date" not in table.partition:
        import_module(f"nightrec_jobs.{stage}").run(past)
