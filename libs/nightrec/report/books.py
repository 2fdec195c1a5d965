"""The books: what became of every row, by night and stage, and whether they balance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from nightrec.errors import UsageError
from nightrec.pipeline import STAGES
from nightrec.printable import one_line
from nightrec.store import arrow
from nightrec.tables import CLEAN_EVENTS, LEDGER

FATES = ("accepted", "late", "duplicate", "rejected")
_ORDER = {stage.name: place for place, stage in enumerate(STAGES)}


@dataclass(frozen=True)
class Line:
    """One line of the ledger: rows of one fate in one stage of one night."""

    run_date: date
    stage: str
    fate: str
    reason: str
    row_count: int


@dataclass(frozen=True)
class Balance:
    """Raw lines of some ingest dates by fate. They balance when read = accepted + late + duplicate + rejected."""

    dates: int
    read: int
    accepted: int
    late: int
    duplicate: int
    rejected: int
    reasons: Mapping[str, int]
    unbalanced: tuple[date, ...]

    @property
    def is_balanced(self) -> bool:
        """Whether the identity holds on every single date."""
        return not self.unbalanced


def lines(warehouse: str, night: date | None = None) -> list[Line]:
    """The ledger of a night, or of all, in order of date and stage. Raises UsageError where there is none."""
    rows = arrow(warehouse, LEDGER, {"run_date": night} if night else None, [*Line.__dataclass_fields__]).to_pylist()
    if not rows:
        raise UsageError(f"no books{f' of {night}' if night else ''} in {warehouse}; `nightrec run` writes them")
    found = [Line(**row) for row in rows]
    return sorted(found, key=lambda line: (line.run_date, _ORDER.get(line.stage, len(_ORDER)), line.fate, line.reason))


def balance(ledger: Iterable[Line]) -> Balance:
    """The books of clean_events over all dates among the lines; zeros where there are none."""
    by_date: dict[date, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    reasons: dict[str, int] = defaultdict(int)
    for line in ledger:
        if line.stage == CLEAN_EVENTS.stage:
            by_date[line.run_date][line.fate] += line.row_count
            if line.fate == "rejected":
                reasons[line.reason] += line.row_count
    total = {fate: sum(day[fate] for day in by_date.values()) for fate in ("read", *FATES)}
    wrong = sorted(day for day, fates in by_date.items() if fates["read"] != sum(fates[fate] for fate in FATES))
    most_first = dict(sorted(reasons.items(), key=lambda entry: (-entry[1], entry[0])))
    return Balance(len(by_date), **total, reasons=most_first, unbalanced=tuple(wrong))


def balance_text(found: Balance, what: str) -> Text:
    """The identity in one line with its mark: green where it holds on every date, red with the dates where it fails."""
    # Robots are rejected lines of that reason, shown apart: nothing is wrong with each of them.
    robots = found.reasons.get("robot", 0)
    counts = {fate: getattr(found, fate) for fate in FATES} | {"rejected": found.rejected - robots, "robot": robots}
    shown = [f"{count:,} {fate}" for fate, count in counts.items() if count or fate in ("accepted", "rejected")]
    text = Text(f"{what}: {found.read:,} read = {', '.join(shown)}  ")
    if found.is_balanced:
        text.append("✓ balanced", style="green")
    else:
        days = ", ".join(map(str, found.unbalanced[:5])) + (" ..." if len(found.unbalanced) > 5 else "")
        text.append(f"✗ DOES NOT BALANCE on {days}", style="bold red")
    if found.reasons:
        text.append(
            "\n  rejected: " + ", ".join(f"{rows:,} {reason}" for reason, rows in found.reasons.items()), style="dim"
        )
    return text


def render(ledger: list[Line]) -> Group:
    """The books for people: the balance of the raw lines first, then a table of the stages of each night."""
    found = balance(ledger)
    parts: list[Any] = []
    if found.dates:
        parts.append(balance_text(found, f"Raw lines of {found.dates} ingest date{'s' if found.dates > 1 else ''}"))
    for night in sorted({line.run_date for line in ledger}):
        stages = [line for line in ledger if line.run_date == night]
        if len({line.run_date for line in ledger}) > 1:
            # over all nights the raw lines stand in the balance: hundreds of dates have nothing else
            stages = [line for line in stages if line.stage != CLEAN_EVENTS.stage]
        if stages:
            parts += ["", _table(night, stages)]
    return Group(*parts)


def _table(night: date, stages: list[Line]) -> RichTable:
    table = RichTable(box=None, pad_edge=False, title=f"Books of {night}", title_justify="left", header_style="dim")
    for column in ("stage", "fate", "detail"):
        table.add_column(column)
    table.add_column("rows", justify="right")
    before = ""
    for line in stages:
        stage, reason = "" if line.stage == before else line.stage, Text(one_line(line.reason))
        table.add_row(stage, line.fate, reason, f"{line.row_count:,}")
        before = line.stage
    return table


def as_dict(ledger: list[Line]) -> dict[str, Any]:
    """The books for machines."""
    found = balance(ledger)
    whole = asdict(found) | {
        "is_balanced": found.is_balanced,
        "unbalanced": [day.isoformat() for day in found.unbalanced],
    }
    return {
        "clean_events": whole,
        "ledger": [asdict(line) | {"run_date": line.run_date.isoformat()} for line in ledger],
    }
