"""Raw columns that came night by night and are gone: the files of a night may be right in every line and yet say less.

Of each line it is noted which columns say something. A night has lost a column where none of its lines fills it
although 20 were to be expected: by the share of lines that filled it on the 7 ingest dates with lines before, at least
3 of which had any. A required column is lost where none of 20 or more lines that are not broken fills it; single lines
without it are quarantined one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, NamedTuple

from pyspark.sql import functions as F

from nightrec.raw_columns import EVENTS, EVENTS_REQUIRED

if TYPE_CHECKING:
    from pyspark.sql import Column

BEFORE, OF_THEM, EXPECTED = 7, 3, 20
# Not a raw column, counted like one: lines whose time was corrected.
CORRECTED = "corrected"
COLUMNS = tuple(EVENTS)
_COUNTED = (*COLUMNS, CORRECTED)


class Filled(NamedTuple):
    """Lines of an ingest date that are not broken, and how many of them fill each column."""

    lines: int
    columns: Mapping[str, int]


def filled() -> Column:
    """Which of the columns a line fills, a bit for each: with a readable value where there are unreadable ones."""
    is_filled = {name: F.col(name).isNotNull() for name in COLUMNS}
    is_filled |= {name: F.coalesce(F.col(name) != "", F.lit(False)) for name in ("user_id", "item_id", "event_id")}
    is_filled[CORRECTED] = F.col("logged_ts").isNotNull()
    bits = (F.when(is_filled[name], 1 << n).otherwise(0) for n, name in enumerate(_COUNTED))
    return reduce(lambda left, right: left.bitwiseOR(right), bits)


def counts() -> list[Column]:
    """For an aggregation over lines with `filled`: how many of them fill each column, under its name."""
    bits = F.col("_filled")
    return [F.count_if(bits.bitwiseAND(1 << n) != 0).alias(name) for n, name in enumerate(_COUNTED)]


def lost(tonight: Filled, before: Sequence[Filled]) -> dict[str, int]:
    """Columns that the lines of a date do not fill although they were expected to, each with in how many of them.

    `before` are the ingest dates before, the nearest first; those without lines say nothing.
    """
    known = [date for date in before if date.lines][:BEFORE]
    lines = sum(date.lines for date in known)
    found = {}
    for name in COLUMNS:
        expected = tonight.lines
        if name not in EVENTS_REQUIRED:
            times = [date.columns.get(name, 0) for date in known]
            expected = tonight.lines * sum(times) // lines if sum(map(bool, times)) >= OF_THEM else 0
        if expected >= EXPECTED and not tonight.columns.get(name, 0):
            found[name] = expected
    return found
