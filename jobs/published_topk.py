"""published_topk: one row per list, as served. Grain: (list_kind, list_key). One commit that touches only what changed.

Refuses (exit code 4) unless tonight's ranked_topk, as it lies there now, has passed the audit.

    spark-submit jobs/published_topk.py --config nightrec.toml --date 2026-03-10
"""

from nightrec.night import Night, main
from nightrec.serving.publish import published_topk
from nightrec.serving.verdict import require_audited
from nightrec.store import arrow, content
from nightrec.tables import AUDIT_RESULTS, PUBLISHED_TOPK, RANKED_TOPK


def run(night: Night) -> None:
    tonight = {"run_date": night.date}
    ranked = night.read(RANKED_TOPK)
    results = arrow(night.store.warehouse, AUDIT_RESULTS, tonight).to_pylist()
    require_audited(results, night.date, content(night.store.warehouse, RANKED_TOPK, tonight))
    commit = night.store.merge(PUBLISHED_TOPK, published_topk(ranked, night.date), "list_id")
    for fate in ("inserted", "updated", "deleted", "unchanged"):
        night.book(fate, commit.metrics[fate], "lists")
    night.book("written", commit.rows, PUBLISHED_TOPK.name)


if __name__ == "__main__":
    main(run)
