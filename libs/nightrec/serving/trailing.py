"""What tonight's figures are held against: earlier nights and dates, and rules that know what few rows show by chance.

Every rule gives one row of tables.AUDIT_RESULTS, run_date apart. Where there is too little to compare with, the row is
a note that says so; it keeps its figure, so that later nights have it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import pairwise
from statistics import median
from typing import Any

Row = dict[str, Any]

# Earlier nights, or dates with events, below which nothing is usual yet.
LEAST_NIGHTS, LEAST_DATES = 3, 7
# Days after which a night's lists are no measure of tonight's any more.
_RECENT = 7
# Days of a log before its weekly rhythm is known: two of each day of the week.
RHYTHM_DAYS = 14
# Standard errors, and spreads of what is usual, within which a figure is chance: one night in a thousand.
_ERRORS, _SPREADS = 3.0, 4.0
# Of a normal distribution, the standard deviation over the median distance from the median.
_SIGMA = 1.4826


@dataclass(frozen=True)
class Night:
    """What the audit of an earlier night that was let through has left: its figures by check, and its settings."""

    date: date
    figures: Mapping[str, float]
    settings: str


@dataclass(frozen=True)
class Past:
    """All that one night is compared with, nothing of it later than the night.

    `books`: lines by fate (robots apart) of each ingest date up to the night; `nights`: earlier ones, oldest first;
    `settings`: fingerprint of settings and models of tonight; `inputs`: dates on which each input came, oldest first;
    `trained`: that of each model used.
    """

    books: Mapping[date, Mapping[str, int]] = field(default_factory=dict)
    nights: Sequence[Night] = ()
    settings: str = ""
    inputs: Mapping[str, Sequence[date]] = field(default_factory=dict)
    trained: Mapping[str, date] = field(default_factory=dict)

    def reference(self, run_date: date) -> Night | None:
        """The night before this one whose lists tonight's are compared with; None where it is too long ago."""
        last = self.nights[-1] if self.nights else None
        return last if last and (run_date - last.date).days <= _RECENT else None

    def usual(self, name: str, *, alike: bool = False) -> list[float]:
        """A figure of earlier nights, oldest first; `alike`: of those with tonight's settings and models."""
        nights = [night for night in self.nights if not alike or night.settings == self.settings]
        figures = (night.figures.get(name, math.nan) for night in nights)
        return [figure for figure in figures if not math.isnan(figure)]


def row(name: str, *, passed: bool, found: float, limit: float, detail: str, severity: str) -> Row:
    """One check."""
    return {
        "check_name": name,
        "severity": severity,
        "passed": passed,
        "found": float(found),
        "limit": float(limit),
        "detail": detail,
    }


def note(name: str, found: float, detail: str) -> Row:
    """A figure that is held against nothing."""
    return row(name, passed=True, found=found, limit=0, detail=detail, severity="note")


def absent(name: str, detail: str) -> Row:
    """A note in a night that has no such figure: later nights pass it over."""
    return note(name, math.nan, detail)


def beyond(name: str, found: float, levels: Sequence[float], detail: str, *, sure: float | None = None) -> Row:
    """A figure that warns above the first of the `levels` and stops above the second.

    `sure` is how much of it is more than chance: that is what is held against them.
    """
    warn, stop = levels
    certain = found if sure is None else sure
    severity = "stop" if certain > stop else "warn"
    passed = not certain > (stop if severity == "stop" else warn)
    limit = stop if severity == "stop" or passed else warn
    return row(name, passed=passed, found=found, limit=limit, detail=detail, severity="stop" if passed else severity)


def centre(values: Sequence[float]) -> tuple[float, float]:
    """The median of values, and how far they usually lie from it: a single odd one moves neither."""
    middle = median(values)
    return middle, _SPREADS * _SIGMA * median(abs(value - middle) for value in values)


def risen(name: str, part: int, whole: int, usual: Sequence[float], levels: Sequence[float], what: str) -> Row:
    """A share that lies above the usual one by more than `levels`, and by more than it usually differs."""
    if not whole:
        return absent(name, f"nothing arrived of which there could be {what}")
    share = part / whole
    found = f"{part:,} of {whole:,} are {what}"
    if len(usual) < LEAST_DATES:
        return note(name, share, f"{found}; {len(usual)} of the {LEAST_DATES} dates that show what is usual are there")
    middle, spread = centre(usual)
    limits = [middle + max(level, spread) for level in levels]
    return beyond(name, share, limits, f"{found}; {middle:.1%} is usual", sure=_at_least(part, whole))


def on_the_way(
    name: str, found: float, error: float, usual: Sequence[float], levels: Sequence[float], what: str
) -> Row:  # fmt: skip
    """A share, with its standard error, that lies above the usual one by more than a part of the way from it to 1."""
    if len(usual) < LEAST_NIGHTS:
        return note(name, found, f"{what}; {len(usual)} of the {LEAST_NIGHTS} nights that show what is usual are there")
    middle, spread = centre(usual)
    limits = [max(middle + level * (1 - middle), middle + spread) for level in levels]
    return beyond(name, found, limits, f"{what}; {middle:.1%} is usual", sure=found - _ERRORS * error)


def dropped(
    name: str, found: float, history: Mapping[date, float], run_date: date, levels: Sequence[float], what: str,
    units: float | None = None,
) -> Row:  # fmt: skip
    """A number of which more is missing than `levels`, against the same days of the week in `history`.

    Where these usually differ by more, that counts. `units`: how many independent things the usual number stands for
    (users behind lines): of few of them chance takes some; without it nothing is chance. A number that is usually 0
    cannot drop. In the first RHYTHM_DAYS the row warns at most.
    """
    alike = [value for day, value in history.items() if day.weekday() == run_date.weekday()]
    length = (run_date - min(history)).days if history else 0
    if length < LEAST_NIGHTS:
        return note(name, found, f"{found:,.0f} {what}; the {length} days before show nothing usual yet")
    knows_rhythm = length >= RHYTHM_DAYS and len(alike) > 1
    usual = median(alike) if knows_rhythm else median(history.values())
    if not usual:
        return note(name, found, f"{found:,.0f} {what}; none are usual on such a day")
    spread = centre([math.log1p(value) - math.log1p(_weekly(history, day)) for day, value in history.items()])[1]
    limits = [min(1 - level, math.exp(-spread)) * usual for level in levels]
    if units is not None:
        # Anscombe's transform makes the chance of a count the same for few and for many.
        scale = units / usual
        roots = [max(2 * math.sqrt(limit * scale + 0.375) - _ERRORS, 0) / 2 for limit in limits]
        limits = [max(root**2 - 0.375, 0) / scale for root in roots]
    if not knows_rhythm:
        limits[1] = -1
    missing = [-limit for limit in limits]
    found_row = beyond(name, -found, missing, f"{found:,.0f} {what}; {usual:,.0f} are usual on such a day")
    return found_row | {"found": float(found), "limit": max(-found_row["limit"], 0.0)}


def _weekly(history: Mapping[date, float], day: date) -> float:
    """What is usual on a day's day of the week; on any day, where that is the only one."""
    alike = [value for other, value in history.items() if other.weekday() == day.weekday()]
    return median(alike if len(alike) > 1 else history.values())


def stale(name: str, dates: Sequence[date], run_date: date, levels: Sequence[float], what: str) -> Row:
    """The age of the last of `dates` in days, held against the longest of the gaps between the 29 last of them."""
    if not dates:
        return absent(name, f"there are no {what}")
    age = (run_date - dates[-1]).days
    gaps = [(later - day).days for day, later in pairwise(dates[-29:])]
    told = f"the latest {what} are {age} days old, of {dates[-1]}"
    if len(gaps) < LEAST_NIGHTS:
        return note(name, age, f"{told}; they came {len(dates)} times, which shows no rhythm")
    longest = max(gaps)
    limits = [level * longest for level in levels]
    return beyond(name, age, limits, f"{told}; the longest of their gaps is {longest} days")


def trailing(run_date: date, days: int, first: date) -> list[date]:
    """The `days` before a night, oldest first, from `first` on."""
    return [day for ago in range(days, 0, -1) if (day := run_date - timedelta(days=ago)) >= first]


def _at_least(part: int, whole: int) -> float:
    """The lower bound of Wilson's interval of a share."""
    share, square = part / whole, _ERRORS**2
    middle = share + square / (2 * whole)
    width = _ERRORS * math.sqrt(share * (1 - share) / whole + square / (4 * whole**2))
    return max((middle - width) / (1 + square / whole), 0.0)
