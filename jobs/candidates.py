"""candidates: items nominated for every list by every source, already masked; one row per list and item.

spark-submit jobs/candidates.py --config var/demo/nightrec.toml --date 1998-03-02
"""

from __future__ import annotations

from nightrec.night import Night, main
from nightrec.serving import candidates as nominating
from nightrec.serving.histories import histories
from nightrec.tables import (
    ALS_ITEM_FACTORS,
    ALS_USER_FACTORS,
    CANDIDATES,
    ITEM_EMBEDDINGS,
    ITEM_PROFILES,
    USER_EMBEDDINGS,
    USER_PROFILES,
)


def run(night: Night) -> None:
    """Gather the item side, nominate for every list, and replace the night's partition for its factors."""
    settings, model, encoder = night.config, night.als_model, night.config.encoder.id
    sources = settings.candidates.resolved
    inputs = nominating.Inputs(
        night.events(),
        night.read(ITEM_PROFILES),
        night.read(USER_PROFILES),
        night.read(ALS_ITEM_FACTORS, {"model_id": model}),
        night.read(ALS_USER_FACTORS, {"run_date": night.date, "als_model": model}),
        night.read(ITEM_EMBEDDINGS, {"encoder": encoder}),
        night.read(USER_EMBEDDINGS, {"run_date": night.date, "encoder": encoder}),
    )
    rows = nominating.item_rows(inputs, vectors=sources.text > 0)
    days, partitions = settings.profiles.recent, settings.spark.partitions
    # Read several times: for counts, for neighbours, for what to mask.
    users = histories(inputs.events, rows["item_id"], night.date, days, sources).persist()
    try:
        items = nominating.catalogue(
            rows, users, inputs.user_profiles, sources, run_date=night.date, partitions=partitions,
            recent_days=days, clock=night.clock, least=settings.lists.min_users,
        )  # fmt: skip
        frame = nominating.candidates(
            nominating.lists(inputs, users, settings.profiles.recent_items, users_only=night.is_replay),
            items,
            sources,
            k=settings.lists.k,
            run_date=night.date,
            als_model=model,
            partitions=partitions,
            clock=night.clock,
            users=rows["user_count"].to_numpy(),
            least=settings.lists.min_users,
        )
        night.replace(CANDIDATES, frame, {"run_date": night.date, "als_model": model})
    finally:
        users.unpersist()


if __name__ == "__main__":
    main(run)
