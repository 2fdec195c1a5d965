"""als_user_factors: every user with events, solved exactly against the night's item factors; one row per user.

Only users with news since the last night with the same factors are solved; the others' rows are copied from it.

    spark-submit jobs/als_user_factors.py --config var/demo/nightrec.toml --date 1998-03-02
"""

from __future__ import annotations

from datetime import date

from pyspark.sql import Observation
from pyspark.sql import functions as F

from nightrec.als.fold_in import changed_users, user_factors
from nightrec.errors import UsageError
from nightrec.night import Night, main
from nightrec.store import partitions
from nightrec.tables import ALS_ITEM_FACTORS, ALS_USER_FACTORS, CLEAN_EVENTS


def run(night: Night) -> None:
    """Solve the changed users, copy the others, and replace the night's partition for its model."""
    model, events, since = night.als_model, night.events(), solved_before(night)
    if not night.store.rows(ALS_ITEM_FACTORS, {"model_id": model}):
        raise UsageError(f"als_user_factors {night.date}: there are no item factors named {model}; train them first")
    items = night.read(ALS_ITEM_FACTORS, {"model_id": model})
    solved, copied = Observation(), Observation()
    count = F.count(F.lit(1)).alias("rows")
    if since is None:
        frame = user_factors(events, items, night.config.als).observe(solved, count)
    else:
        changed = changed_users(events, since)
        before = night.read(ALS_USER_FACTORS, {"run_date": since, "als_model": model}).select("user_id", "factors")
        news = user_factors(events.join(changed, "user_id", "left_semi"), items, night.config.als).observe(
            solved, count
        )
        frame = news.unionByName(before.join(changed, "user_id", "left_anti").observe(copied, count))
    frame = frame.select(F.lit(night.date).alias("run_date"), F.lit(model).alias("als_model"), "user_id", "factors")
    night.replace(ALS_USER_FACTORS, frame, {"run_date": night.date, "als_model": model})
    night.book("solved", solved.get["rows"])
    night.book("copied", copied.get["rows"] if since is not None else 0)


def solved_before(night: Night) -> date | None:
    """The latest earlier night whose users were solved against the same item factors, if its rows still hold.

    They do not where the factors, or what had arrived by that night, were written anew since: a date that came late.
    """
    model, store = night.als_model, night.store
    known = partitions(store.warehouse, ALS_USER_FACTORS)
    nights = [date.fromisoformat(p["run_date"]) for p in known if p["als_model"] == model]
    since = max((day for day in nights if day < night.date), default=None)
    if since is None:
        return None
    solved_at = store.changed_at(ALS_USER_FACTORS, {"run_date": since, "als_model": model})
    learned_at = store.changed_at(ALS_ITEM_FACTORS, {"model_id": model})
    cleaned_at = store.changed_at(CLEAN_EVENTS, until=since)
    return since if max(learned_at, cleaned_at) < solved_at else None


if __name__ == "__main__":
    main(run)
