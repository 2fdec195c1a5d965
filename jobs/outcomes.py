"""outcomes: impressions, clicks and conversions of served lists. Grain: (run_date, list_id, item_id).

spark-submit jobs/outcomes.py --config nightrec.toml --date 2026-03-10
"""

from pyspark.sql import functions as F

from nightrec.night import Night, main
from nightrec.serving.outcomes import joined, outcomes
from nightrec.tables import CLEAN_EVENTS, OUTCOMES, RANKED_TOPK


def run(night: Night) -> None:
    tonight = night.read(CLEAN_EVENTS, {"ingest_date": night.date})
    ranked = night.store.read(RANKED_TOPK).where(F.col("run_date") <= F.lit(night.date))
    events = joined(tonight, ranked).persist()
    night.replace(OUTCOMES, outcomes(events, night.date))
    night.book("unknown_list", events.where("list_kind IS NULL").count(), "events")
    events.unpersist()


if __name__ == "__main__":
    main(run)
