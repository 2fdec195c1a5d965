"""The commands for raw lines that cleaning set aside: rejected, repair."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date as day
from datetime import datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nightrec import config as configuration
from nightrec.errors import BadInput
from nightrec.options import DATE, ConfigOption, JsonOption, answer
from nightrec.store import arrow
from nightrec.tables import LEDGER, REJECTED_EVENTS

if TYPE_CHECKING:
    from nightrec.night import Night

_SHOWN = ("ingest_date", "reason", "file", "line_id", "raw")


@dataclass(frozen=True)
class Repaired:
    """What became of the lines of a file of mended ones: `added` this time, `known` from a time before, `unmended` as
    they were; `landed` of those added or known, and the `rejected` still, by reason."""

    added: int
    known: int
    unmended: int
    landed: int
    rejected: Mapping[str, int]
    dates: tuple[day, ...]


@dataclass(frozen=True)
class Mended:
    """One line of the file: which quarantined line it stands for, and its text."""

    number: int
    ingest_date: day
    line_id: str
    raw: str


def rejected(
    config: ConfigOption,
    date: Annotated[
        datetime | None, typer.Option("--date", help="the ingest date; all of them without it", **DATE)
    ] = None,
    reason: Annotated[
        list[str] | None, typer.Option("--reason", metavar="REASON", help="only of this reason; repeatable")
    ] = None,
) -> None:
    """The raw lines that cleaning set aside, as JSON lines: mend `raw` in them and give them to `nightrec repair`.

    Lines of one file with the same text are printed once. Does not start Spark.

    Example: `nightrec rejected --config C --date 2026-03-10 --reason bad_time > mended.jsonl`
    """
    for row in listed(configuration.load(config).paths.warehouse, date.date() if date else None, reason or []):
        print(json.dumps(row, ensure_ascii=False, default=str))


def repair(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="lines as `nightrec rejected` prints them, raw mended")],
    config: ConfigOption,
    json: JsonOption = False,
) -> None:
    """Put mended lines back under their own ingest dates, and clean these and the later ones again.

    Lines whose raw is as it was are left alone. The same file again adds nothing; after an interruption it finishes.
    Lists take the events up on the next night that runs.

    Example: `nightrec repair mended.jsonl --config C`
    """
    from nightrec.night import Night
    from nightrec.parent import die_with_parent
    from nightrec.session import session

    settings = configuration.load(config)
    lines = read(file)
    die_with_parent()
    spark = session(settings.spark, "nightrec repair")
    try:
        with Night(spark, settings, last_night(settings.paths.warehouse)) as night:
            found = put_back(night, lines)
    finally:
        spark.stop()
    answer(asdict(found), told(found), json)


def listed(warehouse: str, date: day | None, reasons: Iterable[str]) -> list[dict[str, Any]]:
    """Quarantined lines in order of date, reason, file and text, each once."""
    where: dict[str, Any] = {"ingest_date": date} if date else {}
    if reasons:
        where["reason"] = list(reasons)
    rows = arrow(warehouse, REJECTED_EVENTS, where, list(_SHOWN)).to_pylist()
    alike = {(row["ingest_date"], row["line_id"]): row for row in rows}
    return sorted(alike.values(), key=lambda row: (row["ingest_date"], row["reason"], row["file"], row["raw"]))


def read(file: Path) -> list[Mended]:
    """The lines of a file of mended ones. BadInput names the first that is none."""
    if not file.is_file():
        raise BadInput(f"{file} is no file; expected lines as `nightrec rejected` prints them")
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
                mended = Mended(number, day.fromisoformat(row["ingest_date"]), str(row["line_id"]), row["raw"])
            except (ValueError, KeyError, TypeError) as error:
                raise BadInput(
                    f"{file}, line {number}: {type(error).__name__}: {error}; expected is a JSON object with "
                    "ingest_date, line_id and raw, as `nightrec rejected` prints it"
                ) from None
            if not isinstance(mended.raw, str) or not mended.raw.strip():
                raise BadInput(
                    f"{file}, line {number}: raw is no text; a line that shall stay as it is keeps its raw as it is"
                )
            found.append(mended)
    return found


def last_night(warehouse: str) -> day:
    """The last ingest date that was cleaned. BadInput where none was."""
    dates: list[day] = arrow(warehouse, LEDGER, {"stage": "clean_events"}, ["run_date"])["run_date"].to_pylist()
    if not dates:
        raise BadInput(f"{warehouse} has no books of clean_events: nothing was cleaned, so nothing was set aside")
    return max(dates)


def put_back(night: Night, lines: Iterable[Mended]) -> Repaired:
    """Write what is mended and not yet there beside the raw files of its date, and clean from the first such date on.

    BadInput where a line is neither in quarantine nor mended before, and where files of a date are gone since.
    """
    from nightrec import raw

    clean_events = import_module("nightrec_jobs.clean_events")
    lines = list(lines)
    dates = sorted({line.ingest_date for line in lines})
    added, known, unmended = sorted_out(night, lines, dates)
    todo = sorted({*added, *(line.ingest_date for line in known)})
    still: Counter[str] = Counter()
    if todo:
        clean_events.refuse_lost_files(night, todo[0])
        for date, mended in added.items():
            raw.repair(night.spark, night.config.paths.raw, date, mended)
        night.run("clean_events", partial(clean_events.run, again=todo[0]))
        texts = {(line.ingest_date, line.raw) for line in lines}
        still.update(
            row["reason"] for row in listed(night.store.warehouse, None, [])
            if row["file"].endswith(".repair") and (row["ingest_date"], row["raw"]) in texts
        )  # fmt: skip
    count = sum(map(len, added.values()))
    landed = count + len(known) - sum(still.values())
    return Repaired(count, len(known), unmended, landed, dict(still), tuple(todo))


def sorted_out(
    night: Night, lines: Iterable[Mended], dates: Sequence[day]
) -> tuple[dict[day, dict[str, str]], list[Mended], int]:
    """Texts to put back by date and line_id; the lines that are there already; how many are as they were.

    BadInput where a line is neither in quarantine nor there, or two stand for one.
    """
    from nightrec import raw

    if not dates:
        return {}, [], 0
    rows = arrow(night.store.warehouse, REJECTED_EVENTS, {"ingest_date": dates}, list(_SHOWN)).to_pylist()
    quarantine = {(row["ingest_date"], row["line_id"]): row["raw"] for row in rows}
    before = raw.repairs(night.spark, night.config.paths.raw, dates)
    there = {(row[0], row[1]): row[2] for row in before.collect()} if before is not None else {}
    added: dict[day, dict[str, str]] = defaultdict(dict)
    known: list[Mended] = []
    unmended, problems = 0, []
    for line in lines:
        key = (line.ingest_date, line.line_id)
        if there.get(key) == line.raw:
            known.append(line)
        elif line.line_id in added.get(line.ingest_date, ()):
            problems.append(f"line {line.number} stands for the same line as one before it")
        elif key in there:
            problems.append(f"line {line.number} was put back before, with another text")
        elif key not in quarantine:
            problems.append(f"line {line.number} ({line.line_id} of {line.ingest_date}) is not in quarantine")
        elif quarantine[key] == line.raw:
            unmended += 1
        else:
            added[line.ingest_date][line.line_id] = line.raw
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise BadInput(f"{'; '.join(problems[:3])}{more}; `nightrec rejected` prints the lines that can be mended")
    return dict(added), known, unmended


def told(found: Repaired) -> str:
    """What became of the lines, in sentences."""
    if not found.dates:
        return f"Nothing to put back: {found.unmended:,} lines are as they were."
    days = ", ".join(map(str, found.dates[:5])) + (" ..." if len(found.dates) > 5 else "")
    told = (
        f"{found.added:,} mended lines put back, {found.known:,} were there before, {found.unmended:,} are as they "
        f"were; {days} and the dates after were cleaned again.\n"
        f"{found.landed:,} are accepted now or copies of an accepted event"
    )
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(found.rejected.items()))
    return f"{told}; rejected still: {reasons}." if reasons else f"{told}."
