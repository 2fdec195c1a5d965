"""How the published lists did on the days after the night, where those days have already arrived.

An illustration, not an evaluation: one night, one cut. Nothing here feeds a list.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from nightrec import raw
from nightrec.errors import BadInput
from nightrec.events.clean import readable
from nightrec.metrics.ranking import per_user
from nightrec.privacy import pseudonyms
from nightrec.report.night import Quality
from nightrec.seen import hides
from nightrec.tables import CANDIDATES, PUBLISHED_TOPK

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from nightrec.night import Night


def quality(night: Night) -> Quality | None:
    """Published lists of the night beside recent popularity, on what their users did in the ranker's horizon after it.

    Only items that the night could have listed count (not those acted on before, unless repeats are allowed). None
    where no later day has arrived, its files are not the contract's or not whole, or nobody with a list did anything
    new.
    """
    days = night.config.ranker.horizon
    last = night.date + timedelta(days=days)
    dates = [day for day in raw.ingest_dates(night.config.paths.raw, "events") if night.date < day <= last]
    if not dates:
        return None
    k = night.config.lists.k
    served = (
        night.store.read(PUBLISHED_TOPK)
        .where("list_kind = 'user'")
        .select(F.col("list_key").alias("user_id"), F.explode("items").alias("_item"))
        .select("user_id", "_item.item_id", "_item.rank")
    )
    popular = (
        night.store.read(CANDIDATES, {"run_date": night.date, "als_model": night.als_model})
        .where((F.col("list_kind") == "user") & (F.col("popularity_rank") <= k))
        .select(F.col("list_key").alias("user_id"), "item_id", F.col("popularity_rank").alias("rank"))
    )
    try:
        lines = raw.events(night.spark, night.config.paths.raw, dates, pseudonyms.of(night.config.privacy))
        with raw.readable():  # the lines are read in here: a damaged file shows no earlier
            later = readable(lines, night.config.events, night.config.event_weights())
            truth = _truth(night, later).join(served.select("user_id").distinct(), "user_id", "left_semi").persist()
            ours, theirs = (
                per_user(lists, truth, k).agg(F.count("*"), F.avg("ndcg"), F.avg("recall")).first()
                for lists in (served, popular)
            )
            truth.unpersist()
    except BadInput:
        return None  # files of later dates are a later night's matter: it refuses them, and says why
    if ours is None or theirs is None or not ours[0]:
        return None
    return Quality(ours[0], k, len(dates), ours[1], ours[2], theirs[1], theirs[2])


def _truth(night: Night, later: DataFrame) -> DataFrame:
    """What users acted on afterwards, as user_id and item_id."""
    acted = later.where("weight > 0").select("user_id", "item_id").distinct()
    if night.config.candidates.repeats_allowed:
        return acted
    seen = night.events().where(hides(repeats_allowed=False)).select("user_id", "item_id").distinct()
    return acted.join(seen, ["user_id", "item_id"], "left_anti")
