"""audit: whether tonight's lists may be served. Grain: (run_date, check_name).

A failed check of severity stop ends the job with exit code 4, after its results are committed; published_topk stays.

    spark-submit jobs/audit.py --config nightrec.toml --date 2026-03-10
"""

from nightrec.failpoint import reach
from nightrec.night import Night, main
from nightrec.serving.audit import audit
from nightrec.serving.verdict import Rules, content_row, refuse
from nightrec.store import content
from nightrec.tables import AUDIT_RESULTS, ITEM_PROFILES, RANKED_TOPK, SHORTFALLS, USER_PROFILES


def run(night: Night) -> None:
    tonight = {"run_date": night.date}
    # Taken before the rows are read: should another attempt write between the two, publishing refuses.
    audited = content(night.store.warehouse, RANKED_TOPK, tonight)
    rules = Rules(night.config.lists.k, bool(night.config.candidates.repeats_allowed), night.config.audit)
    results = audit(
        night.read(RANKED_TOPK),
        night.read(SHORTFALLS),
        night.read(ITEM_PROFILES),
        night.read(USER_PROFILES),
        night.events(),
        rules=rules,
        run_date=night.date,
    )
    reach("audit.judged")
    night.store.put(AUDIT_RESULTS, [*results, content_row(night.date, audited)], tonight)
    night.book("written", len(results) + 1, AUDIT_RESULTS.name)
    for row in results:
        if not row["passed"]:
            night.book(f"failed_{row['severity']}", 1, row["check_name"])
    refuse(results, night.date)


if __name__ == "__main__":
    main(run)
