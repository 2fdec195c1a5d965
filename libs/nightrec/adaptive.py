"""Settings that the log decides where nobody has set them: once, by a rule, and told with its reason.

The decision is in the books of clean_events, so that every night and every past night rebuilt for training keeps it,
in whatever process it runs. Whoever wants it otherwise sets the setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nightrec.config import Config

# Of the events of the log's later half, the share of an item that the user had acted on on an earlier day, beyond which
# people come back to items: 0 for ratings of films, beyond a half for groceries.
REPEATS_SHARE = 0.3
# A log of fewer days does not show yet whether people come back.
DAYS = 28
# Fates in the books of clean_events.
LATER, REPEATED = "later_event", "repeat"


def is_open(config: Config) -> bool:
    """Whether the log is asked anything."""
    return config.candidates.repeats_allowed is None


def adapted(config: Config, books: Iterable[Mapping[str, Any]]) -> Config:
    """The config with what the `books` (rows of LEDGER) decided; as it is where they have decided nothing yet."""
    counts = {row["fate"]: row["row_count"] for row in books if row["fate"] in (LATER, REPEATED)}
    if not is_open(config) or LATER not in counts:
        return config
    allowed = repeats_allowed(counts[LATER], counts[REPEATED])
    return config.model_copy(update={"candidates": config.candidates.model_copy(update={"repeats_allowed": allowed})})


def repeats_allowed(later: int, repeated: int) -> bool:
    """Whether so many repeats among so many later events say that people come back to items."""
    return repeated > REPEATS_SHARE * later


def told(lines: Iterable[tuple[str, str, int]]) -> str | None:
    """What the books of a stage (fate, reason, rows) have just decided, and why, in a sentence; None for nothing."""
    counts = {fate: rows for fate, _, rows in lines if fate in (LATER, REPEATED)}
    if LATER not in counts:
        return None
    later, repeated = counts[LATER], counts[REPEATED]
    allowed = str(repeats_allowed(later, repeated)).lower()
    return (
        f"Nothing sets candidates.repeats_allowed, so the log decides, for good: {allowed}, as {repeated / later:.0%} "
        "of the events in its later half are of an item that the user had acted on on an earlier day "
        f"(beyond {REPEATS_SHARE:.0%}, lists may hold such items)."
    )
