"""ranked_topk: every list of the night cut to K, not yet served. Grain: (run_date, list_kind, list_key, rank).

Also writes shortfalls: one row per list with fewer than K items.

    spark-submit jobs/ranked_topk.py --config nightrec.toml --date 2026-03-10
"""

from functools import partial

from pyspark.sql import DataFrame

from nightrec.models import ranker_row
from nightrec.night import Night, main
from nightrec.ranker.score import Texts, scored
from nightrec.serving.topk import Quota, ranked_topk, shortfalls, split
from nightrec.tables import (
    CANDIDATES,
    ITEM_EMBEDDINGS,
    ITEM_PROFILES,
    RANKED_TOPK,
    SHORTFALLS,
    USER_EMBEDDINGS,
    USER_PROFILES,
)
from nightrec.weights import placed


def texts(night: Night, items: DataFrame, users: DataFrame) -> Texts:
    """The night's text vectors, for rankers that read them."""
    encoder = night.config.encoder.id
    of_texts = night.read(ITEM_EMBEDDINGS, {"encoder": encoder})
    of_users = night.read(USER_EMBEDDINGS, {"run_date": night.date, "encoder": encoder})
    return Texts(
        encoder,
        items.join(of_texts, "text_hash").select("item_id", "vector"),
        users.join(of_users.select("user_id", "vector"), "user_id").select("user_id", "vector", "recent_items"),
    )


def ranked(night: Night, candidates: DataFrame, items: DataFrame, users: DataFrame) -> DataFrame:
    """The lists that the night's ranker makes of its candidates."""
    ranker = ranker_row(night.store.warehouse, night.ranker_model)
    personal, others = None, candidates
    if ranker["weights"]:
        known, others = split(candidates, users)
        weights, settings = str(placed(night.config.paths.models, ranker["weights"])), dict(ranker["settings"])
        values = {str(kind): value for kind, value in night.config.ranker.kind_values.items()}
        personal = scored(
            known, weights, ranker["weights_sha256"], ranker["features"], settings, values,
            partial(texts, night, items, users), night.clock,
        )  # fmt: skip
    pins = {pick.item: pick.slot for pick in night.config.candidates.picks(night.date) if pick.slot}
    quota = Quota(night.config.lists.new_items, night.config.lists.new_items_share)
    return ranked_topk(
        personal, others, items, users, k=night.config.lists.k, run_date=night.date, pins=pins, quota=quota,
        depth=night.depth,
    )  # fmt: skip


def run(night: Night) -> None:
    items, users = night.read(ITEM_PROFILES), night.read(USER_PROFILES)
    candidates = night.read(CANDIDATES, {"run_date": night.date, "als_model": night.als_model})
    lists = ranked(night, candidates, items, users)
    # The shortfalls first: lists that are short without a recorded cause would fail the audit.
    night.replace(SHORTFALLS, shortfalls(candidates, items, users, k=night.config.lists.k, run_date=night.date))
    night.replace(RANKED_TOPK, lists)


if __name__ == "__main__":
    main(run)
