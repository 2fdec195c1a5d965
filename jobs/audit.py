"""audit: whether tonight's lists may be served. Grain: (run_date, check_name).

A failed check of severity stop ends the job with exit code 4, after its results are committed; published_topk stays.

    spark-submit jobs/audit.py --config nightrec.toml --date 2026-03-10
"""

from pyspark.sql import DataFrame

from nightrec.failpoint import reach
from nightrec.night import Night, main
from nightrec.past.earlier import SETTINGS, past
from nightrec.serving.audit import audit
from nightrec.serving.trailing import note
from nightrec.serving.verdict import Rules, content_row, refuse
from nightrec.store import content
from nightrec.tables import (
    ALS_ITEM_FACTORS,
    ALS_USER_FACTORS,
    AUDIT_RESULTS,
    ITEM_EMBEDDINGS,
    ITEM_PROFILES,
    RANKED_TOPK,
    SHORTFALLS,
    USER_EMBEDDINGS,
    USER_PROFILES,
)


def vectors(night: Night) -> dict[str, DataFrame]:
    """Every vector that tonight's lists may rest on, by what it belongs to."""
    model, encoder = night.als_model, night.config.encoder.id
    factors = night.read(ALS_ITEM_FACTORS, {"model_id": model}).withColumnRenamed("factors", "vector")
    of_users = night.read(ALS_USER_FACTORS, {"run_date": night.date, "als_model": model})
    return {
        "item factors": factors,
        "user factors": of_users.withColumnRenamed("factors", "vector"),
        "item texts": night.read(ITEM_EMBEDDINGS, {"encoder": encoder}),
        "user texts": night.read(USER_EMBEDDINGS, {"run_date": night.date, "encoder": encoder}),
    }


def run(night: Night) -> None:
    tonight, lists = {"run_date": night.date}, night.config.lists
    # Taken before the rows are read: should another attempt write between the two, publishing refuses.
    audited = content(night.store.warehouse, RANKED_TOPK, tonight)
    known = past(night)
    reference = known.reference(night.date)
    results = audit(
        night.read(RANKED_TOPK),
        night.read(SHORTFALLS),
        night.read(ITEM_PROFILES),
        night.read(USER_PROFILES),
        night.events(),
        rules=Rules(lists.k, bool(night.config.candidates.repeats_allowed), night.config.audit, lists.min_users),
        run_date=night.date,
        past=known,
        before=night.store.read(RANKED_TOPK, {"run_date": reference.date}) if reference else None,
        vectors=vectors(night),
    )
    reach("audit.judged")
    kept = [content_row(night.date, audited), {**tonight, **note(SETTINGS, 0, known.settings)}]
    night.store.put(AUDIT_RESULTS, [*results, *kept], tonight)
    night.book("written", len(results) + len(kept), AUDIT_RESULTS.name)
    for row in results:
        if not row["passed"]:
            night.book(f"failed_{row['severity']}", 1, row["check_name"])
            if row["severity"] == "warn":
                night.tell(f"Warning, {row['check_name']}: {row['detail']}.")
    refuse(results, night.date)


if __name__ == "__main__":
    main(run)
