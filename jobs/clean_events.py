"""clean_events and rejected_events: the raw lines of the ingest dates not yet cleaned, one row per line.

The night's own ingest date is cleaned every time; earlier ones where the ledger does not know them yet, in one pass.

    spark-submit jobs/clean_events.py --config var/demo/nightrec.toml --date 1998-03-23
"""

from __future__ import annotations

from datetime import date

from nightrec import raw
from nightrec.errors import BadInput
from nightrec.events.clean import classified, clean_events, fate_counts, rejected_events
from nightrec.night import Night, main
from nightrec.store import arrow
from nightrec.tables import CLEAN_EVENTS, LEDGER, REJECTED_EVENTS


def run(night: Night) -> None:
    """Clean what is not clean yet up to the night; book every line under its ingest date."""
    dates, before = plan(night)
    where = {"ingest_date": dates}
    lines = raw.events(night.spark, night.config.paths.raw, dates)
    earlier = night.read(CLEAN_EVENTS, {"ingest_date": before}) if before else None
    with raw.readable(), classified(lines, earlier, night.config.events, night.config.event_weights()) as found:
        counts = fate_counts(found).toArrow().to_pylist()
        night.replace(REJECTED_EVENTS, rejected_events(found.events), where)
        night.replace(CLEAN_EVENTS, clean_events(found.events), where)
    for day in dates:
        # Also a date without lines has one in the books: they are how the next night knows what was cleaned.
        night.book("read", 0, ingest_date=day)
    for row in counts:
        night.book(row["fate"], row["row_count"], row["reason"], ingest_date=row["ingest_date"])


def plan(night: Night) -> tuple[list[date], list[date]]:
    """The ingest dates to clean, and those before the night that are clean already. BadInput where there is neither."""
    root = night.config.paths.raw
    books = arrow(night.store.warehouse, LEDGER, {"stage": "clean_events"}, ["run_date"])
    known = {day for day in books["run_date"].to_pylist() if day < night.date}
    found = {day for day in raw.ingest_dates(root, "events") if day <= night.date}
    if not found | known:
        raise BadInput(f"{root}/events has no folder ingest_date=YYYY-MM-DD of {night.date} or before")
    return sorted((found - known) | {night.date}), sorted(known)


if __name__ == "__main__":
    main(run)
