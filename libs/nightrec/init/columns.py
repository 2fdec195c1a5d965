"""Which column of an unknown table is the user, the item, the time, the kind of event and the value, and why."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from nightrec.errors import BadInput, UsageError
from nightrec.init.times import objects, parsed_times, time_formats
from nightrec.init.words import event_type, fit
from nightrec.tables import EVENT_TYPES

ROLES = ("user", "item", "time", "type", "value")
Choose = Callable[[str, list[str]], str]


@dataclass(frozen=True)
class Guess:
    """The column of each role (type and value may be missing), why, and how times and types are read.

    `default_type` is the type of every event where no column says it.
    """

    columns: Mapping[str, str]
    why: Mapping[str, str]
    time_format: str
    default_type: str
    whole_numbers: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class _Seen:
    """One column of the sample: its text, its numbers, and the time formats that read it (none: not a time)."""

    name: str
    text: pa.Array
    distinct: int
    number_share: float
    numbers: np.ndarray
    time_formats: tuple[str, ...]

    @property
    def is_id(self) -> bool:
        whole = self.number_share < 0.99 or bool(np.all(self.numbers == np.floor(self.numbers)))
        return not self.time_formats and whole

    @property
    def is_type(self) -> bool:
        words = [word for word in pc.unique(self.text).to_pylist() if word]
        known = sum(event_type(word) in EVENT_TYPES for word in words)
        return 0 < len(words) <= 40 and self.number_share < 0.5 and known >= 0.5 * len(words)

    @property
    def is_value(self) -> bool:
        return self.number_share >= 0.9 and not self.time_formats


def _seen(name: str, column: pa.ChunkedArray) -> _Seen:
    text = column.combine_chunks().drop_null()
    numbers = pd.to_numeric(objects(text), errors="coerce").dropna().to_numpy(dtype=float)
    share = len(numbers) / len(text) if len(text) else 0.0
    formats = tuple(time_formats(text, share, numbers))
    return _Seen(name, text, pc.count_distinct(text).as_py(), share, numbers, formats)


def guess(sample: pa.Table, named: Mapping[str, str], choose: Choose | None = None) -> Guess:
    """Guess the role of each column from names, then from contents; `named` fixes roles beforehand.

    Where two columns fit a role equally well `choose(role, names)` decides; without it UsageError names both and the
    option that settles it. BadInput where no column can be the user, the item or the time.
    """
    for role, name in named.items():
        if name not in sample.column_names:
            near = difflib.get_close_matches(name, sample.column_names, n=1, cutoff=0.0)
            raise UsageError(
                f"--{role} {name}: no such column; did you mean {near[0]}? There are {', '.join(sample.column_names)}"
            )
    seen = {name: _seen(name, sample[name]) for name in sample.column_names}
    columns, why = dict(named), dict.fromkeys(named, "as you said")
    for role in ("time", "type", "value", "user", "item"):
        if role not in columns:
            free = [column for name, column in seen.items() if name not in columns.values()]
            found = _role(role, free, columns, choose)
            if found:
                columns[role], why[role] = found
    time_format = _one_format(seen[columns["time"]])
    why["time"] += f"; {time_format}"
    default, because = ("", "") if "type" in columns else _default_type(seen, columns)
    if because:
        why["type"] = because
    whole = tuple(
        columns[role]
        for role in ("user", "item")
        if len(text := seen[columns[role]].text) and pc.all(pc.match_substring_regex(text, r"^\d+\.0$")).as_py()
    )
    left_out = tuple(name for name in sample.column_names if name not in columns.values())
    return Guess(columns, why, time_format, default, whole, left_out)


def _one_format(column: _Seen) -> str:
    if not column.time_formats:
        example = column.text[0].as_py() if len(column.text) else "an empty cell"
        known = "ISO 8601, epoch seconds and milliseconds, and dates"
        raise UsageError(f"--time {column.name}: {example!r} is not a time; known are {known}")
    if len(column.time_formats) > 1:
        both = " and as ".join(column.time_formats)
        raise UsageError(f"column {column.name!r} reads as {both} alike; write its times as 2026-01-31T12:00:00Z")
    return column.time_formats[0]


def _role(role: str, free: list[_Seen], taken: Mapping[str, str], choose: Choose | None) -> tuple[str, str] | None:
    """The column of a role among those not taken, and why; None where a role that may be missing is."""
    fits = [column for column in free if _fits(role, column)]
    best = max((fit(role, column.name) for column in fits), default=0)
    if best:
        tied = [column for column in fits if fit(role, column.name) == best]
        if role == "time" and len(tied) > 1:
            # a date beside a time of day: the time says more
            tied = [column for column in tied if _has_time_of_day(column)] or tied
        return (tied[0].name, "by its name") if len(tied) == 1 else _chosen(role, tied, "their names", choose)
    if role == "value":
        return _small_numbers(fits) if len(free) > 2 else None
    if role in ("user", "item"):
        return _by_position(role, fits, taken, choose)
    if len(fits) == 1:
        return fits[0].name, f"the only column that reads as {'a time' if role == 'time' else 'kinds of event'}"
    if fits:
        return _chosen(role, fits, "their contents", choose)
    if role == "time":
        raise BadInput("no column reads as a time (ISO 8601, epoch seconds or milliseconds, dates); a night needs one")
    return None


def _small_numbers(fits: list[_Seen]) -> tuple[str, str] | None:
    """The one column of a few small numbers, like ratings; None where there is none or more than one."""
    small = [column for column in fits if 1 < column.distinct <= 20 and column.numbers.max() <= 100]
    small = [column for column in small if not _named(column) and not column.name.lower().endswith("id")]
    if len(small) > 1:
        # ids of a small log are small numbers as well; ratings end at 10
        small = [column for column in small if column.numbers.max() <= 10]
    return (small[0].name, f"{small[0].distinct} small numbers, like ratings") if len(small) == 1 else None


def _by_position(role: str, fits: list[_Seen], taken: Mapping[str, str], choose: Choose | None) -> tuple[str, str]:
    """The user stands before the item in public logs without telling names; more columns than those two are a tie."""
    unnamed = [column for column in fits if not _named(column)] or fits
    if role == "user":
        unnamed = [column for column in unnamed if not fit("item", column.name)] or unnamed
        with_item = len(unnamed) < len(fits) or "item" in taken
    else:
        with_item = True
    if not unnamed:
        raise BadInput(f"no column is left that could be the {role}")
    if len(unnamed) == 1:
        return unnamed[0].name, "the only column left that holds ids"
    if role == "user" and len(unnamed) == 2 and not with_item:
        return unnamed[0].name, "the first of two columns of ids"
    return _chosen(role, unnamed, "their contents", choose)


def _chosen(role: str, tied: list[_Seen], by: str, choose: Choose | None) -> tuple[str, str]:
    names = [column.name for column in tied]
    if choose is None:
        raise UsageError(
            f"{' and '.join(map(repr, names))} fit the {role} equally well by {by}; say which: --{role} {names[0]}"
        )
    return choose(role, names), "chosen"


def _fits(role: str, column: _Seen) -> bool:
    """Whether the contents of a column can play a role at all."""
    if not len(column.text):
        return False
    is_id = column.is_id and (bool(fit(role, column.name)) or (column.distinct > 1 and not column.is_type))
    return {"time": bool(column.time_formats), "type": column.is_type, "value": column.is_value}.get(role, is_id)


def _named(column: _Seen) -> bool:
    """Whether the name tells another role: such a column is no id found by its place."""
    return max(fit(role, column.name) for role in ROLES) >= 2


def _has_time_of_day(column: _Seen) -> bool:
    times = parsed_times(column.text, column.time_formats[0])
    return bool((times.dt.normalize() != times).any())


def _default_type(seen: Mapping[str, _Seen], columns: Mapping[str, str]) -> tuple[str, str]:
    """The one type of a log that does not say it, and why."""
    plain = {re.sub(r"[^a-z]", "", name.lower()) for name in seen}
    if any(word in name for name in plain for word in ("invoice", "order", "transaction", "basket", "quantity")):
        return "purchase", "no column says the type; the names speak of purchases"
    value = columns.get("value")
    numbers = seen[value].numbers if value else np.array([])
    if len(numbers) and numbers.min() >= -10 and numbers.max() <= 100:
        return "rating", f"no column says the type; {value!r} looks like ratings"
    return "view", "no column says the type"
