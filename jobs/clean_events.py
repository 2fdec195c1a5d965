"""clean_events and rejected_events: the raw lines of the ingest dates not yet cleaned, one row per line.

The night's own ingest date is cleaned every time; earlier ones where the ledger does not know them, or not all of their
files. Those after the first that is news are cleaned again in the same pass, the night's own or not: what an earlier
date brings makes duplicates of later ones. Where a user's late events would have changed lists of nights before,
`late_arrivals` says so.

    spark-submit jobs/clean_events.py --config var/demo/nightrec.toml --date 1998-03-23
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import pyarrow.compute as pc
from pyspark.sql import functions as F

from nightrec import adaptive, raw
from nightrec.config import HORIZON
from nightrec.errors import BadInput
from nightrec.events import drift, evidence
from nightrec.events.clean import classified, clean_events, fate_counts, in_few_files, late_arrivals, rejected_events
from nightrec.night import Night, main
from nightrec.past.manifest import files_read
from nightrec.privacy import pseudonyms
from nightrec.profiles.items import item_text, item_title
from nightrec.raw_columns import EVENTS_REQUIRED, nearest
from nightrec.serving.keywords import words
from nightrec.store import arrow
from nightrec.tables import CLEAN_EVENTS, LATE_ARRIVALS, LEDGER, REJECTED_EVENTS, WINDOWS


def run(night: Night, again: date | None = None) -> None:
    """Clean what is not clean yet up to the night, and every date from `again` on; book every line under its ingest
    date."""
    books = arrow(night.store.warehouse, LEDGER, {"stage": "clean_events"}).to_pylist()
    ids = pseudonyms.of(night.config.privacy)
    pseudonyms.require_same_key(books, ids)
    dates, before = plan(night, books, again)
    if not dates:
        return
    clean(night, dates, before, books, ids)
    shown = [row for row in books if row["fate"] == adaptive.SHOWN]
    for row in shown:
        # The books of these dates are written anew: what is not looked at again stays in them.
        if row["run_date"] in (night.date, *dates):
            night.book(row["fate"], row["row_count"], row["reason"], ingest_date=row["run_date"])
    if adaptive.is_open(night.asked):
        decide(night, [row for row in shown if row["run_date"] <= night.date])


def clean(
    night: Night, dates: Sequence[date], before: Sequence[date], books: Sequence[Mapping[str, Any]],
    ids: pseudonyms.Pseudonyms | None = None,
) -> None:  # fmt: skip
    """Clean the events of `dates`, which may repeat some of those that arrived on the dates `before`."""
    where, root = {"ingest_date": dates}, night.config.paths.raw
    # Before they are read: what comes meanwhile is news to the next night.
    files = {day: raw.delivered(root, day) for day in dates}
    lines, repaired = raw.events(night.spark, root, dates, ids), raw.repairs(night.spark, root, dates)
    earlier = night.read(CLEAN_EVENTS, {"ingest_date": before}) if before else None
    if earlier is not None and max(before) > dates[0]:
        # What is kept of a later date that is not cleaned again stays, and a second copy would count twice.
        earlier = earlier.withColumn("ingest_date", F.least("ingest_date", F.lit(dates[0] - timedelta(days=1))))
    settings, weights = night.config.events, night.config.event_weights()
    with raw.readable(), classified(lines, earlier, settings, weights, repaired) as found:
        counts = fate_counts(found).toArrow().to_pylist()
        filled = _filled(counts, dates)
        refuse_lost_columns(night, filled, books)
        rejected, kept = _rows(counts, "rejected"), _rows(counts, "accepted", "late")
        if rejected:
            refused = rejected_events(found.events)
            refused = ids.in_rejected(refused) if ids else refused
            night.replace(REJECTED_EVENTS, in_few_files(refused, rejected, len(dates)), where)
        else:
            night.empty(REJECTED_EVENTS, where)
        if _rows(counts, "late") or night.store.rows(LATE_ARRIVALS, where):
            late = late_arrivals(found.events, min((*dates, *before)))
            night.replace(LATE_ARRIVALS, in_few_files(late, _rows(counts, "late"), len(dates)), where)
        night.replace(CLEAN_EVENTS, in_few_files(clean_events(found.events), kept, len(dates)), where)
    for day in dates:
        # Also a date without lines has books: they are how the next night knows what was cleaned, and of which files.
        night.book("read", 0, ingest_date=day)
        night.book("files", files[day], ingest_date=day)
        for name, count in filled[day].columns.items():
            night.book("filled", count, name, ingest_date=day)
        if ids:
            night.book(pseudonyms.KEY, 0, ids.key_id, ingest_date=day)
    for row in counts:
        night.book(row["fate"], row["row_count"], row["reason"], ingest_date=row["ingest_date"])
        if row["fate"] in ("accepted", "late") and row[drift.CORRECTED]:
            night.book(drift.CORRECTED, row[drift.CORRECTED], "clocks", ingest_date=row["ingest_date"])


def refuse_lost_columns(night: Night, filled: dict[date, drift.Filled], books: Sequence[Mapping[str, Any]]) -> None:
    """Stop the night where its own ingest date has lost a column (see nightrec.events.drift); tell it of earlier ones.

    Raises BadInput that names every one of them, before anything is written.
    """
    known = booked_columns(books) | filled
    root, problems = night.config.paths.raw, []
    for day in sorted(filled):
        before = [known[other] for other in sorted(known, reverse=True) if other < day]
        lost = {name: n for name, n in drift.lost(filled[day], before).items() if name not in _dropped(night)}
        told = [f"{name}, which {expected:,} were expected to fill" for name, expected in lost.items()]
        if told and day == night.date:
            path, lines = raw.names(night.spark, root, day)
            found = {name for line in lines for name in line}
            meant = {name: nearest(name, found - set(drift.COLUMNS)) for name in lost}
            told += [f"{name} may be {other} in {path} now" for name, other in meant.items() if other]
            required = [name for name in lost if name in EVENTS_REQUIRED]
            mend = "have the source mended" + ("" if required else ", or name it in events.dropped_columns")
            problems.append(f"none of the {filled[day].lines:,} lines of {day} fills {'; '.join(told)}; {mend}")
        elif told:
            night.tell(f"None of the {filled[day].lines:,} lines of {day} fills {'; '.join(told)}.")
    if problems:
        raise BadInput(f"{root}/events: " + " ".join(problems))


def booked_columns(books: Sequence[Mapping[str, Any]]) -> dict[date, drift.Filled]:
    """Lines that were not broken and what they filled, of every ingest date whose books have it."""
    lines: dict[date, int] = {}
    columns: dict[date, dict[str, int]] = {}
    for row in books:
        day, count = row["run_date"], row["row_count"]
        if row["fate"] == "filled":
            columns.setdefault(day, {})[row["reason"]] = count
        elif row["fate"] == "read" or (row["fate"], row["reason"]) == ("rejected", "broken_line"):
            lines[day] = lines.get(day, 0) + (count if row["fate"] == "read" else -count)
    return {day: drift.Filled(lines.get(day, 0), found) for day, found in columns.items()}


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
    for sentence in adaptive.told(shown, night.asked, before):
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
    """Whether texts say anything of what users take up, and of how many items; nothing without a catalogue."""
    if None not in (night.asked.candidates.texts, night.asked.ranker.attention):
        return {}
    snapshot = raw.items(night.spark, night.config.paths.raw, night.date)
    if snapshot is None:
        return {}
    with raw.readable():
        items = snapshot.rows.select("item_id", item_text(item_title()).alias("text")).toArrow().sort_by("item_id")
    taken = evidence.taken_up(night.events())
    at = pc.index_in(taken["item_id"], value_set=items["item_id"].combine_chunks()).fill_null(-1).to_numpy()
    pairs, times = evidence.likeness(taken, at, words(items["item_id"], items["text"]))
    return {adaptive.PAIRS: pairs, adaptive.LIKENESS: round(100 * times), adaptive.ITEMS: items.num_rows}


def plan(
    night: Night, books: Sequence[Mapping[str, Any]], again: date | None = None
) -> tuple[list[date], list[date]]:
    """The ingest dates to clean, and those that stay as they are but may have copies. BadInput where there is neither.

    A date that has more files than when it was cleaned is not clean any more, nor is the night's own with fewer. Of
    other dates files that are gone (raw logs are often kept for some weeks only) take nothing away: these stay as they
    are. The dates from `again` on are cleaned whatever the books say (see refuse_lost_files). Dates after the night
    count only where one up to it is news: copies of its events are accepted there.
    """
    root, known = night.config.paths.raw, files_read(books)
    here = {day: raw.delivered(root, day) for day in raw.ingest_dates(root, "events") if day <= night.date}
    if not here and min(known, default=date.max) > night.date:
        raise BadInput(f"{root}/events has no folder ingest_date=YYYY-MM-DD of {night.date} or before")
    found = {day for day, files in here.items() if files >= known.get(day, 0) or (files and day == night.date)}
    news = {day for day in found if here[day] != known.get(day) or (again is not None and day >= again)}
    until = max(known, default=night.date) if news else night.date
    later = {day: raw.delivered(root, day) for day in known if night.date < day <= until}
    found |= {day for day, files in later.items() if files and files >= known[day]}
    dates = {day for day in found if day >= min(news, default=night.date)} | ({night.date} - known.keys())
    return sorted(dates), sorted(day for day in known.keys() - dates if day <= night.date or day in later)


def refuse_lost_files(night: Night, again: date) -> None:
    """Raise BadInput where a date from `again` on had more files when it was cleaned than it has now: cleaned again,
    its rows would be lost. One other than `again` that has none left is not cleaned again, and stays as it is."""
    root = night.config.paths.raw
    books = arrow(night.store.warehouse, LEDGER, {"stage": "clean_events"}).to_pylist()
    for day, files in sorted(files_read(books).items()):
        here = raw.delivered(root, day) if day >= again else files
        if here < files and (here or day == again):
            raise BadInput(
                f"{root}/events/ingest_date={day} had {files} files when it was cleaned and has {here} now; cleaned "
                "again, it would lose their rows: bring them back first"
            )


def _rows(counts: Sequence[Mapping[str, Any]], *fates: str) -> int:
    return sum(row["row_count"] for row in counts if row["fate"] in fates)


def _filled(counts: Sequence[Mapping[str, Any]], dates: Sequence[date]) -> dict[date, drift.Filled]:
    """Lines of each date that are not broken, and how many fill each column."""
    broken = {row["ingest_date"]: row["row_count"] for row in counts if row["reason"] == "broken_line"}
    found = dict.fromkeys(dates, drift.Filled(0, dict.fromkeys(drift.COLUMNS, 0)))
    for row in counts:
        if row["fate"] == "read":
            columns = {name: row[name] for name in drift.COLUMNS}
            found[row["ingest_date"]] = drift.Filled(row["row_count"] - broken.get(row["ingest_date"], 0), columns)
    return found


def _dropped(night: Night) -> list[str]:
    return list(night.config.events.dropped_columns)


if __name__ == "__main__":
    main(run)
