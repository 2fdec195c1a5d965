"""outcomes: impressions, clicks and conversions of served lists. Grain: (run_date, list_id, item_id).

spark-submit jobs/outcomes.py --config nightrec.toml --date 2026-03-10
"""

from datetime import timedelta

from nightrec.night import Night, main
from nightrec.serving.outcomes import joined, outcomes
from nightrec.tables import CLEAN_EVENTS, OUTCOMES, RANKED_TOPK


def run(night: Night) -> None:
    tonight = night.read(CLEAN_EVENTS, {"ingest_date": night.date})
    nights = [night.date - timedelta(days=ago) for ago in range(night.config.lists.attribution_days + 1)]
    ranked = night.read(RANKED_TOPK, {"run_date": nights})
    events = joined(tonight, ranked).persist()
    night.replace(OUTCOMES, outcomes(events, night.date))
    night.book("unknown_list", events.where("list_kind IS NULL").count(), "events")
    events.unpersist()


if __name__ == "__main__":
    main(run)
