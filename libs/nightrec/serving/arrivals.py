"""Checks of what arrived: of the lines of the night's ingest date, of its clean events, and how old each input is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from nightrec.config import Audit
from nightrec.serving.trailing import (
    LEAST_DATES,
    Past,
    Row,
    absent,
    beyond,
    centre,
    dropped,
    note,
    risen,
    row,
    stale,
    trailing,
)
from nightrec.tables import EVENT_TYPES

# Fates of lines by the setting that limits their share, and what they are called.
_FATES = {
    "rejects": ("rejected", "rejected lines"), "robots": ("robot", "lines of robots"),
    "duplicates": ("duplicate", "duplicates"), "late": ("late", "late events"),
}  # fmt: skip
# Values of one date below which their mean says little.
_VALUES = 30

Day = Mapping[str, Any]


def checks(past: Past, days: Sequence[Day], run_date: date, limits: Audit) -> list[Row]:
    """Of the night's date against the dates before it (`days` of `audit.day_figures`), and of the age of all inputs."""
    known = {day["ingest_date"]: day for day in days}
    tonight, before = known.pop(run_date, None), list(known.values())
    return [
        *volume(past, before, run_date, limits),
        *shares_of_lines(past, run_date, limits),
        *shares_of_events(tonight, before, limits),
        event_types(tonight, before, limits),
        event_values(tonight, before, limits),
        *ages(past, run_date, limits),
    ]


def volume(past: Past, before: Sequence[Day], run_date: date, limits: Audit) -> list[Row]:
    """Lines of the date against the same days of the week; a date without books had none.

    How much may be missing by chance follows from users, not lines: a few who leave a hundred lines each come and go.
    Where no files came at all and that has happened before, the shop may be closed: a warning. (A shop closed on
    Saturdays: 14 holidays in its 374 nights. Where files come every day, none is a stop.)
    """
    lines = {day: fates.get("read", 0) for day, fates in past.books.items()}
    first = min((day for day, count in lines.items() if count), default=run_date)
    history = {day: float(lines.get(day, 0)) for day in trailing(run_date, limits.trailing_days, first)}
    found = float(lines.get(run_date, 0))
    users, events = (sum(day[name] for day in before) for name in ("users", "events"))
    usual = sum(history.values()) / max(len(history), 1)
    units = usual * users / events if events else None
    fewer = dropped("volume", found, history, run_date, limits.volume, "lines arrived", units)
    is_idle = any(not past.books.get(day, {}).get("files") for day in history)
    if is_idle and not past.books.get(run_date, {}).get("files") and fewer["severity"] == "stop":
        fewer |= {"severity": "warn"}
    most = max(history.values(), default=0.0)
    rise = found / most if most else 0.0
    return [
        fewer,
        row(
            "volume_rise", passed=not rise > limits.volume_rise or len(history) < LEAST_DATES, found=rise,
            limit=limits.volume_rise, detail=f"{found:,.0f} lines arrived, {most:,.0f} at most on a date before",
            severity="warn",
        ),
    ]  # fmt: skip


def shares_of_lines(past: Past, run_date: date, limits: Audit) -> list[Row]:
    """Shares of the date's lines by fate, against those of the dates before it."""
    dates = trailing(run_date, limits.trailing_days, min(past.books, default=run_date))
    fates = past.books.get(run_date, {})
    found = []
    for setting, (fate, what) in _FATES.items():
        usual = [
            past.books[day].get(fate, 0) / past.books[day]["read"]
            for day in dates
            if past.books.get(day, {}).get("read", 0)
        ]
        levels = getattr(limits, setting)
        found.append(risen(f"{fate}_share", fates.get(fate, 0), fates.get("read", 0), usual, levels, what))
    return found


def shares_of_events(tonight: Day | None, before: Sequence[Day], limits: Audit) -> list[Row]:
    """Shares of the date's clean events that happened on another day, and that name items outside the catalogue."""
    found = []
    for name, count, levels, what in (
        ("event_dates", "other_day", limits.event_dates, "events of another day than that of their arrival"),
        ("unknown_items", "unknown_items", limits.unknown_items, "events of items outside the catalogue"),
    ):
        usual = [day[count] / day["events"] for day in before]
        part, whole = (int(tonight[count]), int(tonight["events"])) if tonight else (0, 0)
        found.append(risen(name, part, whole, usual, levels, what))
    return found


def event_types(tonight: Day | None, before: Sequence[Day], limits: Audit) -> Row:
    """The share of the date's events that would have to be of another type for the usual mix of types, and how far the
    dates before it were off."""
    if tonight is None:
        return absent("event_types", "no event arrived")
    every = {kind: sum(day[kind] for day in before) for kind in EVENT_TYPES}
    here = _off(tonight, every)
    if len(before) < LEAST_DATES:
        few = f"{len(before)} of the {LEAST_DATES} dates that show the usual types are there"
        return note("event_types", here, few)
    others = [_off(day, every) for day in before]
    most = max(EVENT_TYPES, key=lambda kind: abs(tonight[kind] / tonight["events"] - every[kind] / sum(every.values())))
    told = f"{tonight[most] / tonight['events']:.1%} of the events are of type {most}"
    detail = f"{told}, {every[most] / sum(every.values()):.1%} is usual"
    return beyond("event_types", here, [max(level, *others) for level in limits.event_types], detail)


def _off(day: Day, every: Mapping[str, int]) -> float:
    """The total variation distance of a date's types from those of all."""
    total = max(sum(every.values()), 1)
    return float(sum(abs(day[kind] / day["events"] - every[kind] / total) for kind in EVENT_TYPES) / 2)


def event_values(tonight: Day | None, before: Sequence[Day], limits: Audit) -> Row:
    """How far the mean logarithm of the date's values lies from the usual one."""
    usual = [day["log_value"] for day in before if day["log_value"] is not None]
    if tonight is None or tonight["log_value"] is None or tonight["valued"] < _VALUES:
        return absent("event_values", f"fewer than {_VALUES} events with a value arrived")
    value = float(tonight["log_value"])
    told = f"the mean of log(1 + |value|) is {value:.2f}"
    if len(usual) < LEAST_DATES:
        few = f"{len(usual)} of the {LEAST_DATES} dates that show the usual one are there"
        return note("event_values", 0.0, f"{told}; {few}")
    middle, spread = centre(usual)
    levels = [max(level, spread) for level in limits.event_values]
    return beyond("event_values", abs(value - middle), levels, f"{told}, {middle:.2f} is usual")


def ages(past: Past, run_date: date, limits: Audit) -> list[Row]:
    """How many days old each input is: raw ones by their own rhythm, models by days."""
    words = {"events": "events", "items": "catalogue snapshots", "users": "user snapshots"}
    found = [
        stale(f"{name}_age", past.inputs.get(name, ()), run_date, limits.stale_inputs, what)
        for name, what in words.items()
    ]
    for model, name in (("item factors", "als_age"), ("ranker", "ranker_age")):
        if trained := past.trained.get(name.removesuffix("_age")):
            age = (run_date - trained).days
            told = f"the {model} were trained as of {trained}" if name == "als_age" else f"the ranker is of {trained}"
            found.append(beyond(name, age, limits.model_age_days, f"{told}, {age} days before"))
        else:
            found.append(note(name, math.nan, f"the night names no {model}"))
    return found
