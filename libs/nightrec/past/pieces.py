"""Partitions of tables, as text that a manifest keeps, and fingerprints of the files that hold them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from nightrec.contract import Table

Value = str | date
Where = Mapping[str, Value | Sequence[Value]]
# Values by partition column; days in ranges: "2026-03-01..2026-03-10", and "..2026-03-10" from the first.
Part = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Piece:
    """Partitions of a table at a version: the rows in them, and a fingerprint of the files that hold these.

    A data file never changes and its name never comes back, so an equal fingerprint means the same rows.
    """

    table: str
    part: Part
    version: int
    rows: int
    fingerprint: str


def values(given: Value | Sequence[Value]) -> Sequence[Value]:
    """One value, or several, as several."""
    return [given] if isinstance(given, str | date) else given


def fingerprint(files: Sequence[str]) -> str:
    """Of files by their names, in any order."""
    names = sorted(file.rsplit("/", 1)[-1] for file in files)
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def part(table: Table, where: Where | None, after: date | None = None, until: date | None = None) -> Part:
    """The partitions that `where` names, or the dates of the first partition column after one and up to another."""
    named = {
        name: spans(several) if isinstance(several[0], date) else sorted(str(value) for value in several)
        for name, given in (where or {}).items()
        if name in table.partition and (several := values(given))
    }
    if until is not None:
        named[table.partition[0]] = [f"{after + timedelta(days=1) if after else ''}..{until}"]
    return dict(sorted(named.items()))


def spans(days: Sequence[Value]) -> list[str]:
    """Days as text, consecutive ones as a range."""
    found: list[tuple[date, date]] = []
    for day in sorted(day for day in set(days) if isinstance(day, date)):
        if found and day - found[-1][1] == timedelta(days=1):
            found[-1] = found[-1][0], day
        else:
            found.append((day, day))
    return [f"{first}" if first == last else f"{first}..{last}" for first, last in found]


def within(day: date, ranges: Sequence[str]) -> bool:
    """Whether a day is one of the days, or in one of the ranges."""
    return any(first <= day <= last for first, last in map(_ends, ranges))


def days(ranges: Sequence[str]) -> list[date]:
    """Every day of the days and ranges."""
    ends = [_ends(text) for text in ranges]
    return [first + timedelta(days=n) for first, last in ends for n in range((last - first).days + 1)]


def _ends(text: str) -> tuple[date, date]:
    first, _, last = text.partition("..") if ".." in text else (text, "", text)
    return date.fromisoformat(first) if first else date.min, date.fromisoformat(last)


def piece(table: Table, wanted: Part, version: int, files: pa.Table) -> Piece:
    """The partitions wanted, of the files that a table's log names (path, num_records, partition.COLUMN)."""
    for name, several in wanted.items() if files.num_rows else ():
        files = files.filter(_among(files[f"partition.{name}"], several))
    rows = int(pc.sum(files["num_records"]).as_py() or 0)
    return Piece(table.name, wanted, version, rows, fingerprint(files["path"].to_pylist()))


def _among(column: pa.ChunkedArray, several: Sequence[str]) -> pa.ChunkedArray:
    """Whether each value of a partition column is one of the values."""
    if not pa.types.is_date(column.type):
        return pc.is_in(column, value_set=pa.array(several, column.type))
    found = pc.is_null(column)
    for first, last in map(_ends, several):
        inside = pc.and_(pc.greater_equal(column, pa.scalar(first)), pc.less_equal(column, pa.scalar(last)))
        found = pc.or_(found, inside)
    return found
