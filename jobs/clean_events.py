"""clean_events and rejected_events: the raw lines of the ingest dates not yet cleaned, one row per line.

The night's own ingest date is cleaned every time; earlier ones where the ledger does not know them yet, in one pass
with those after the first of them: what an earlier date brings makes duplicates of later ones.

    spark-submit jobs/clean_events.py --config var/demo/nightrec.toml --date 1998-03-23
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from nightrec import adaptive, raw
from nightrec.errors import BadInput
from nightrec.events.clean import classified, clean_events, fate_counts, in_few_files, rejected_events
from nightrec.events.repeats import repeats, span
from nightrec.night import Night, main
from nightrec.store import arrow
from nightrec.tables import CLEAN_EVENTS, LEDGER, REJECTED_EVENTS


def run(night: Night) -> None:
    """Clean what is not clean yet up to the night; book every line under its ingest date."""
    dates, before = plan(night)
    if dates:
        clean(night, dates, before)
    if adaptive.is_open(night.asked):
        decide(night)


def clean(night: Night, dates: Sequence[date], before: Sequence[date]) -> None:
    """Clean the events of `dates`, which may repeat some of those that arrived on the dates `before`."""
    where = {"ingest_date": dates}
    lines = raw.events(night.spark, night.config.paths.raw, dates)
    earlier = night.read(CLEAN_EVENTS, {"ingest_date": before}) if before else None
    with raw.readable(), classified(lines, earlier, night.config.events, night.config.event_weights()) as found:
        counts = fate_counts(found).toArrow().to_pylist()
        rejected, kept = _rows(counts, "rejected"), _rows(counts, "accepted", "late")
        night.replace(REJECTED_EVENTS, in_few_files(rejected_events(found.events), rejected, len(dates)), where)
        night.replace(CLEAN_EVENTS, in_few_files(clean_events(found.events), kept, len(dates)), where)
    for day in dates:
        # Also a date without lines has books: they are how the next night knows what was cleaned, and of which files.
        night.book("read", 0, ingest_date=day)
        night.book("files", _files(night.config.paths.raw, day), ingest_date=day)
    for row in counts:
        night.book(row["fate"], row["row_count"], row["reason"], ingest_date=row["ingest_date"])


def decide(night: Night) -> None:
    """Book how often people come back to items, once the log is long enough to show it: see nightrec.adaptive.

    Once: a later night books nothing, the same night again the same.
    """
    books = arrow(night.store.warehouse, LEDGER, {"stage": "clean_events"}).to_pylist()
    before = [row for row in books if row["fate"] in (adaptive.LATER, adaptive.REPEATED)]
    for row in before:
        if row["run_date"] == night.date:
            night.book(row["fate"], row["row_count"])
    # Past the books: a night that decides nothing has read nothing.
    arrived = night.store.read(CLEAN_EVENTS).where(f"ingest_date <= DATE '{night.date}'")
    days = None if before else span(arrived)
    if days and (days[1] - days[0]).days + 1 >= adaptive.DAYS:
        later, repeated = repeats(night.events(), *days)
        night.book(adaptive.LATER, later)
        night.book(adaptive.REPEATED, repeated)


def plan(night: Night) -> tuple[list[date], list[date]]:
    """The ingest dates to clean, and those up to the night that stay as they are. BadInput where there is neither.

    A date that was empty when it was cleaned is not clean any more when its files have come since. Files that are gone
    since then (raw logs are often kept for some weeks only) take nothing away: the date stays as it is.
    """
    root = night.config.paths.raw
    found = {day for day in raw.ingest_dates(root, "events") if day <= night.date}
    known = {day for day, (lines, files) in booked(night).items() if lines or files == _files(root, day)}
    if not found | known:
        raise BadInput(f"{root}/events has no folder ingest_date=YYYY-MM-DD of {night.date} or before")
    first = min(found - known, default=night.date)
    dates = {day for day in found if day >= first} | ({night.date} - known)
    return sorted(dates), sorted(known - dates)


def booked(night: Night) -> dict[date, tuple[int, int]]:
    """Lines and files of every ingest date up to the night that was cleaned, as its books have them."""
    rows = arrow(night.store.warehouse, LEDGER, {"stage": "clean_events"}).to_pylist()
    days = {row["run_date"] for row in rows if row["run_date"] <= night.date}
    counts = {(row["run_date"], row["fate"]): row["row_count"] for row in rows}
    return {day: (counts[day, "read"], counts.get((day, "files"), 0)) for day in days}


def _rows(counts: Sequence[Mapping[str, Any]], *fates: str) -> int:
    return sum(row["row_count"] for row in counts if row["fate"] in fates)


def _files(root: str, day: date) -> int:
    return len(raw.files(root, "events", day))


if __name__ == "__main__":
    main(run)
