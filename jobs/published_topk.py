"""published_topk: one row per list, as served. Grain: (list_kind, list_key). One commit that touches only what changed.

Refuses (exit code 4) unless tonight's ranked_topk, as it lies there now, has passed the audit. Where a later night is
served, nothing is published: a night that is filled in afterwards writes its tables only.

    spark-submit jobs/published_topk.py --config nightrec.toml --date 2026-03-10
"""

from nightrec.night import Night, main
from nightrec.past.undo import served
from nightrec.serving.publish import published_topk
from nightrec.serving.verdict import require_audited
from nightrec.store import arrow, content
from nightrec.tables import AUDIT_RESULTS, PUBLISHED_TOPK, RANKED_TOPK


def run(night: Night) -> None:
    now = served(night.store.warehouse)
    if now and now.night > night.date:
        night.book("skipped", 1, f"the lists of {now.night} are served")
        night.tell(f"Readers keep the lists of {now.night}: {night.date}, an earlier night, is not published.")
        return
    tonight = {"run_date": night.date}
    ranked = night.read(RANKED_TOPK)
    results = arrow(night.store.warehouse, AUDIT_RESULTS, tonight).to_pylist()
    require_audited(results, night.date, content(night.store.warehouse, RANKED_TOPK, tonight))
    said = {"night": f"{night.date}", "als_model": night.als_model, "ranker_model": night.ranker_model}
    commit = night.store.merge(PUBLISHED_TOPK, published_topk(ranked, night.date), "list_id", said)
    for fate in ("inserted", "updated", "deleted", "unchanged"):
        night.book(fate, commit.metrics[fate], "lists")
    night.book("written", commit.rows, PUBLISHED_TOPK.name)


if __name__ == "__main__":
    main(run)
