"""Settings that the log decides where nobody has set them, each by a rule of what the log shows, told with its reason.

What the log shows is in the books of clean_events (`SHOWN`, counts by name), so that every night and every past night
rebuilt for training decides alike, in whatever process it runs. Whether people come back to items is looked at once,
for good: ranker and lists must not turn around between them. All else is looked at anew whenever the log has doubled.
Whoever wants it otherwise sets the setting.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from nightrec.config import HORIZON, RECENT_DAYS, Config
from nightrec.tables import WINDOWS

# Of the events of the log's later half, the share of an item that the user had acted on on an earlier day, beyond which
# people come back to items: 0 for ratings of films, beyond a half for groceries.
REPEATS_SHARE = 0.3
# A log of fewer days does not show yet whether people come back to items; one of fewer than the second, nothing at all.
DAYS, FEWEST_DAYS = 28, 4
# What may be a horizon: so many days after a cut.
HORIZONS = (1, 3, 7, 14, 28)
# Users who came back within a horizon: fewer teach a ranker too little (350 in one window misjudged methods).
ENOUGH_USERS = 200
# How many times more alike the texts of what a user takes up on different days must be than by chance. A shop: 1.5;
# films by title and genre: 1.01, and lists are better without (NDCG@10 .402 and .393).
ALIKE = 1.2
# Pairs of items below which nothing is said of texts.
ENOUGH_PAIRS = 200
# The latest items of a user that a network looks at where texts say something and lists hold what is new to the user: a
# shop's new items gained 3 % by it at the cut of 2011-11-25, a magazine 4 %; the same shop with repeats gained nothing.
# Beyond so many items what it reads of them, which every worker then holds, takes more than 130 MB.
LATEST, MOST_ITEMS = 10, 1_000_000
# By how much another window of popularity must foretell more than the usual one.
BETTER = 1.02

# The fate of the books' lines, and the names of what is counted.
SHOWN = "shown"
LOG_DAYS, LATER, REPEATED = "days of the log", "later events", "later events of an item of an earlier day"
RETURNED = {days: f"users who came back within {days} days" for days in HORIZONS}
FORETOLD = {days: f"user-days foretold by popularity of {days} days" for days in WINDOWS}
PAIRS, LIKENESS = "pairs of items by a user on different days", "percent that their texts are as alike as by chance"
ITEMS = "items of the catalogue"
RATED, LOW = "ratings", "ratings in the lower half of their range"


@dataclass(frozen=True)
class Decision:
    """A setting (section, key), its value, and why."""

    section: str
    key: str
    value: bool | int
    why: str


def is_open(config: Config) -> bool:
    """Whether the log is asked anything."""
    return None in (
        config.candidates.repeats_allowed, config.candidates.texts, config.ranker.horizon_days,
        config.ranker.attention, config.profiles.recent_days,
    )  # fmt: skip


def shown(books: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """What `books` (rows of LEDGER) hold of the log: of each count the latest."""
    rows = sorted((row for row in books if row["fate"] == SHOWN), key=lambda row: row["run_date"])
    return {row["reason"]: row["row_count"] for row in rows}


def adapted(config: Config, books: Iterable[Mapping[str, Any]], asked: Config | None = None) -> Config:
    """The config with what the `books` decided of the settings that nobody has set (in `asked`, where this config holds
    earlier decisions); as it is where they have decided nothing yet."""
    sections: dict[str, dict[str, Any]] = {}
    for decision in decisions(shown(books), asked or config):
        if getattr(getattr(asked or config, decision.section), decision.key) is None:
            sections.setdefault(decision.section, {})[decision.key] = decision.value
    return config.model_copy(
        update={name: getattr(config, name).model_copy(update=values) for name, values in sections.items()}
    )


def decisions(counts: Mapping[str, int], config: Config) -> list[Decision]:
    """What follows from what the log shows and from settings that somebody has set."""
    found = []
    if counts.get(LATER):
        share, beyond = counts[REPEATED] / counts[LATER], f"beyond {REPEATS_SHARE:.0%}"
        found.append(Decision(
            "candidates", "repeats_allowed", _come_back(counts),
            f"{share:.0%} of the events in its later half are of an item that the user had acted on on an earlier day "
            f"({beyond}, lists may hold such items)",
        ))  # fmt: skip
    if LOG_DAYS in counts:
        found.append(_horizon(counts, config.ranker.past_cuts))
    if FORETOLD[RECENT_DAYS] in counts:
        found.append(_recent(counts))
    if counts.get(PAIRS, 0) >= ENOUGH_PAIRS:
        times = counts[LIKENESS] / 100
        found.append(Decision(
            "candidates", "texts", times >= ALIKE,
            f"the texts of items that a user takes up on different days are {times:.2f} times as alike as those of any "
            f"two (from {ALIKE} on, texts nominate)",
        ))  # fmt: skip
        if ITEMS in counts:
            found.append(_attention(counts, config))
    return found


def _come_back(counts: Mapping[str, int]) -> bool:
    """Whether people come back to items."""
    return counts[REPEATED] > REPEATS_SHARE * counts[LATER]


def _horizon(counts: Mapping[str, int], past_cuts: int) -> Decision:
    """Two weeks; fewer days where the log is short, more where few users come back within them."""
    days = counts[LOG_DAYS]
    fitting = [n for n in HORIZONS if n * (past_cuts + 1) <= days] or [HORIZONS[0]]
    usual = max(n for n in fitting if n <= HORIZON)
    longer = [n for n in fitting if n >= usual]
    value = next((n for n in longer if counts.get(RETURNED[n], 0) >= ENOUGH_USERS), longer[-1])
    why = f"{counts.get(RETURNED[value], 0):,} users came back within {value} days"
    if value < HORIZON:
        why += f", and {past_cuts} cuts of more days do not fit into the log's {days}"
    elif value > HORIZON:
        why += f", {counts.get(RETURNED[usual], 0):,} within {usual}: {ENOUGH_USERS} are wanted"
    return Decision("ranker", "horizon_days", value, why)


def _attention(counts: Mapping[str, int], config: Config) -> Decision:
    """The latest items, where nothing is against it; a network of ratings reads features alone, by which `nightrec
    evaluate` tells how true they are."""
    allowed = config.candidates.repeats_allowed
    if allowed is None and counts.get(LATER):
        allowed = _come_back(counts)
    against = {
        "texts are switched off": config.candidates.texts is False,
        "it learns ratings": config.ranker.loss == "squared",
        "texts do not tell what a user takes up next": counts[LIKENESS] < 100 * ALIKE,
        "lists may hold what a user has acted on": allowed,
        f"vectors of {counts[ITEMS]:,} items are many (beyond {MOST_ITEMS:,})": counts[ITEMS] > MOST_ITEMS,
    }
    why = next((reason for reason, holds in against.items() if holds), "texts tell what a user takes up next")
    return Decision("ranker", "attention", 0 if any(against.values()) else LATEST, why)


def _recent(counts: Mapping[str, int]) -> Decision:
    """The window whose popular items are taken up most afterwards; the usual one unless another is clearly better."""
    usual = counts[FORETOLD[RECENT_DAYS]]
    best = max(WINDOWS, key=lambda days: (counts.get(FORETOLD[days], 0), -abs(days - RECENT_DAYS)))
    value = best if counts[FORETOLD[best]] > BETTER * usual else RECENT_DAYS
    share = counts[FORETOLD[best]] / max(usual, 1) - 1
    why = f"what was popular in {best} days foretells {share:.1%} more than what was in {RECENT_DAYS}"
    if value == RECENT_DAYS:
        why = f"{why}, less than {BETTER - 1:.0%}" if share > 0 else "no other window foretells more"
    return Decision("profiles", "recent_days", value, why)


def told(counts: Mapping[str, int], config: Config, before: Mapping[str, int] | None = None) -> list[str]:
    """What the log, which shows these counts and has shown those of `before`, has just decided of a config's open
    settings, and why, a sentence each; and what its ratings are taken for."""
    known = decisions(before or {}, config)
    found = [
        f"Nothing sets {one.section}.{one.key}, so the log decides: {str(one.value).lower()}, as {one.why}."
        for one in decisions({**(before or {}), **counts}, config)
        if getattr(getattr(config, one.section), one.key) is None and one not in known
    ]
    if counts.get(RATED):
        least = config.events.min_positive_rating
        taken = f"those below events.min_positive_rating = {least:g} count as seen, not as liked"
        found.append(
            f"Of {counts[RATED]:,} ratings {counts[LOW] / counts[RATED]:.0%} lie in the lower half of their range; "
            + (taken if least > 0 else "all count as interest, for lists foretell what is taken up") + "."
        )
    return found
