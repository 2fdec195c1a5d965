"""clean_events and rejected_events: the raw lines of the ingest dates not yet cleaned, one row per line.

The night's own ingest date is cleaned every time; earlier ones where the ledger does not know them yet, in one pass
with those after the first of them: what an earlier date brings makes duplicates of later ones.

    spark-submit jobs/clean_events.py --config var/demo/nightrec.toml --date 1998-03-23
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import pyarrow.compute as pc

from nightrec import adaptive, raw
from nightrec.config import HORIZON
from nightrec.errors import BadInput
from nightrec.events import evidence
from nightrec.events.clean import classified, clean_events, fate_counts, in_few_files, rejected_events
from nightrec.night import Night, main
from nightrec.profiles.items import item_text, item_title
from nightrec.serving.keywords import words
from nightrec.store import arrow
from nightrec.tables import CLEAN_EVENTS, LEDGER, REJECTED_EVENTS, WINDOWS


def run(night: Night) -> None:
    """Clean what is not clean yet up to the night; book every line under its ingest date."""
    books = arrow(night.store.warehouse, LEDGER, {"stage": "clean_events"}).to_pylist()
    dates, before = plan(night, books)
    if not dates:
        return
    clean(night, dates, before)
    shown = [row for row in books if row["fate"] == adaptive.SHOWN and row["run_date"] <= night.date]
    for row in shown:
        # The night's own books are written anew: what is not looked at again stays in them.
        if row["run_date"] == night.date:
            night.book(row["fate"], row["row_count"], row["reason"])
    if adaptive.is_open(night.asked):
        decide(night, shown)


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


def decide(night: Night, books: Sequence[Mapping[str, Any]]) -> None:
    """Book what the log shows of settings that nobody has set (see nightrec.adaptive), and tell what it decides.

    Once the log is long enough to show it, and again when it has doubled since the `books` of what it showed before.
    """
    before = adaptive.shown(books)
    length = before.get(adaptive.LOG_DAYS, 0)
    # As long as the log is now at most: a night that decides nothing reads nothing.
    at_most = length + (night.date - max((row["run_date"] for row in books), default=date.min)).days
    asks_of_repeats = adaptive.LATER not in before and at_most >= adaptive.DAYS
    has_doubled = at_most >= max(adaptive.FEWEST_DAYS, 2 * length)
    if not asks_of_repeats and not has_doubled:
        return
    # Past the books: what is looked at is no input of the stage.
    days = evidence.span(night.store.read(CLEAN_EVENTS).where(f"ingest_date <= DATE '{night.date}'"))
    length = (days[1] - days[0]).days + 1 if days else 0
    shown: dict[str, int] = {}
    if days and asks_of_repeats and length >= adaptive.DAYS:
        shown |= repeated(night, *days)
    if days and has_doubled and length >= max(adaptive.FEWEST_DAYS, 2 * before.get(adaptive.LOG_DAYS, 0)):
        shown |= {adaptive.LOG_DAYS: length, **moved(night, *days), **alike(night)}
    for name, count in shown.items():
        night.book(adaptive.SHOWN, count, name)
    for sentence in adaptive.told(shown, night.asked):
        night.tell(sentence)


def repeated(night: Night, first: date, last: date) -> dict[str, int]:
    """How often people come back to items."""
    if night.asked.candidates.repeats_allowed is not None:
        return {}
    later, again = evidence.repeats(night.events(), first, last)
    return {adaptive.LATER: later, adaptive.REPEATED: again}


def moved(night: Night, first: date, last: date) -> dict[str, int]:
    """Who comes back within how many days, how long what is popular stays so, and how things are rated."""
    events, found = night.events(), {}
    if night.asked.ranker.horizon_days is None:
        found = dict(zip(adaptive.RETURNED.values(), evidence.returning(events, last, adaptive.HORIZONS), strict=True))
    if night.asked.profiles.recent_days is None:
        ahead = min(HORIZON, max((last - first).days // 4, 1))
        hits = evidence.foretold(events, first, last, WINDOWS, ahead)
        found |= dict(zip(adaptive.FORETOLD.values(), hits, strict=True))
    return found | dict(zip((adaptive.RATED, adaptive.LOW), evidence.ratings(events), strict=True))


def alike(night: Night) -> dict[str, int]:
    """Whether texts say anything of what users take up; nothing without a catalogue."""
    if night.asked.candidates.texts is not None:
        return {}
    snapshot = raw.items(night.spark, night.config.paths.raw, night.date)
    if snapshot is None:
        return {}
    with raw.readable():
        items = snapshot.rows.select("item_id", item_text(item_title()).alias("text")).toArrow().sort_by("item_id")
    taken = evidence.taken_up(night.events())
    at = pc.index_in(taken["item_id"], value_set=items["item_id"].combine_chunks()).fill_null(-1).to_numpy()
    pairs, times = evidence.likeness(taken, at, words(items["item_id"], items["text"]))
    return {adaptive.PAIRS: pairs, adaptive.LIKENESS: round(100 * times)}


def plan(night: Night, books: Sequence[Mapping[str, Any]]) -> tuple[list[date], list[date]]:
    """The ingest dates to clean, and those up to the night that stay as they are. BadInput where there is neither.

    A date that was empty when it was cleaned is not clean any more when its files have come since. Files that are gone
    since then (raw logs are often kept for some weeks only) take nothing away: the date stays as it is.
    """
    root = night.config.paths.raw
    found = {day for day in raw.ingest_dates(root, "events") if day <= night.date}
    known = {day for day, (lines, files) in booked(night, books).items() if lines or files == _files(root, day)}
    if not found | known:
        raise BadInput(f"{root}/events has no folder ingest_date=YYYY-MM-DD of {night.date} or before")
    first = min(found - known, default=night.date)
    dates = {day for day in found if day >= first} | ({night.date} - known)
    return sorted(dates), sorted(known - dates)


def booked(night: Night, books: Sequence[Mapping[str, Any]]) -> dict[date, tuple[int, int]]:
    """Lines and files of every ingest date up to the night that was cleaned, as its books have them."""
    days = {row["run_date"] for row in books if row["run_date"] <= night.date}
    counts = {(row["run_date"], row["fate"]): row["row_count"] for row in books}
    return {day: (counts[day, "read"], counts.get((day, "files"), 0)) for day in days}


def _rows(counts: Sequence[Mapping[str, Any]], *fates: str) -> int:
    return sum(row["row_count"] for row in counts if row["fate"] in fates)


def _files(root: str, day: date) -> int:
    return len(raw.files(root, "events", day))


if __name__ == "__main__":
    main(run)
