"""The features of candidates, in the order of `nightrec.features.FEATURES`: what training and scoring read alike.

Nothing here grows with the log as it grows: scores are seen within their list, counts of items as percentiles of the
night or shares of its largest, counts of users as logarithms, times as ratios. What is unknown is 0; no feature is NaN
or infinite. Every source scores every candidate, whichever source nominated it.

Letters: R lists of a block, n cells (a list and a column each, list after list), A columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nightrec.features import FEATURES, RISING, SCORED
from nightrec.serving import features_kernel as kernel
from nightrec.serving.affinities import affinities
from nightrec.serving.catalogue import Catalogue
from nightrec.serving.item_facts import FACTS
from nightrec.serving.sources import habit_scores, recent_weights

if TYPE_CHECKING:
    from nightrec.serving.nominate import Lists

Ints = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

# Events of a user of whom little is known, at most.
LIGHT_EVENTS = 5


def features(lists: Lists, items: Catalogue, rows: Ints, columns: Ints, nominated: Ints) -> Floats:
    """(n, F) of the cells `rows`, `columns`, in order of their rows; `nominated` (n,) counts the sources of each."""
    offsets = np.searchsorted(rows, np.arange(len(lists) + 1))
    given = scores(lists, items, offsets, columns)
    parts: list[npt.NDArray[np.number]] = []
    for source in SCORED:
        parts.append(_within(given[source], offsets))
    for trend in (items.trend[columns], items.week_trend[columns]):
        for source in RISING:
            parts.append(_within(np.where(given[source] > 0, given[source] * trend, given[source]), offsets))
    parts += [
        items.facts[columns], user_facts(lists, items)[rows], own(lists, items, offsets, rows, columns),
        affinities(lists, items, offsets, rows, columns), time_context(lists, items, rows, columns),
        cold(lists, items, rows, columns), nominated[:, None],
    ]  # fmt: skip
    found = np.concatenate([part.astype(np.float32) for part in parts], axis=1)
    assert found.shape[1] == len(FEATURES)
    return found


def scores(lists: Lists, items: Catalogue, offsets: Ints, columns: Ints) -> Mapping[str, Floats]:
    """(n,) of each source of SCORED, also for cells that it did not nominate; 0 where it knows nothing."""
    number = items.columns[columns]
    found = {source: np.zeros(len(columns), np.float32) for source in SCORED}
    kernel.products(offsets, lists.als, items.factors.rows, number, found["als"])
    kernel.products(offsets, lists.text, items.vectors.rows, number, found["text"])
    weights = recent_weights(lists.recent)
    for source, table in items.neighbours.items():
        kernel.added(
            lists.recent.offsets, lists.recent.values, weights, table.indptr, table.indices, table.data, offsets,
            columns, items.width, found[source],
        )  # fmt: skip
    taken = items.references.taken
    kernel.added(
        lists.alike.offsets, lists.alike.values, lists.likeness, taken.indptr, taken.indices, taken.data, offsets,
        columns, items.width, found["neighbour_users"],
    )  # fmt: skip
    has = lists.segment >= 0
    entries = np.concatenate([[0], np.cumsum(has)])
    table = items.segment_counts
    kernel.added(
        entries, lists.segment[has], np.ones(has.sum()), table.indptr, table.indices, table.data, offsets, columns,
        items.width, found["segment"],
    )  # fmt: skip
    at = _own_at(lists, items, offsets, columns)
    found["habit"][at >= 0] = habit_scores(lists)[at[at >= 0]]
    return found


def own(lists: Lists, items: Catalogue, offsets: Ints, rows: Ints, columns: Ints) -> Doubles:
    """(n, 7): what the user did with the candidate itself before; all 0 for items new to the user.

    Days with events; their share in all such days of the user's own items; log(1 + days since the last); log(1 + gap),
    the mean days between; days since the last over that gap, over the item's own typical gap, and over the days since
    the user's last event with anything.
    """
    at = _own_at(lists, items, offsets, columns)
    is_own = at >= 0
    at, row, column = at[is_own], rows[is_own], columns[is_own]
    days, age, span = (values[at].astype(np.float64) for values in (lists.own_days, lists.own_age, lists.own_span))
    all_days = np.bincount(lists.own.rows, lists.own_days, len(lists))
    gap = np.where(days > 1, span / np.maximum(days - 1, 1), 0.0)
    found = np.zeros((len(columns), 7))
    found[is_own] = np.column_stack([
        days,
        days / np.maximum(all_days[row], 1),
        np.log1p(age),
        np.log1p(gap),
        np.where(gap > 0, age / np.maximum(gap, 1), 0.0),
        age / np.maximum(items.gap[column], 1),
        (age + 1) / (np.maximum(lists.days_since_last[row], 0) + 1),
    ])  # fmt: skip
    return found


def user_facts(lists: Lists, items: Catalogue) -> Doubles:
    """(R, 5): how much and how lately the user acted, and how popular and how rising the own items are, in the mean."""
    column = items.column[lists.own.values]
    there, row = column >= 0, lists.own.rows
    count = np.maximum(np.bincount(row[there], minlength=len(lists)), 1)
    taste = [
        np.bincount(row[there], items.facts[column[there], FACTS.index(name)], len(lists)) / count
        for name in ("users_ever_percentile", "trend_percentile")
    ]
    counts = (lists.event_count, lists.item_count, lists.days_since_last)
    return np.column_stack([*(np.log1p(np.maximum(values, 0)) for values in counts), *taste])


def time_context(lists: Lists, items: Catalogue, rows: Ints, columns: Ints) -> Doubles:
    """(n, 2): the weekday on which lists are read, in the last tables.WEEKDAY_DAYS: how much more the item is taken on
    it than all items are (`item_facts.weekday_logs`), and the share of the user's days that fell on it, 0 to 1."""
    return np.column_stack([items.weekday_log[columns], lists.weekday_share[rows]])


def cold(lists: Lists, items: Catalogue, rows: Ints, columns: Ints) -> Doubles:
    """(n, 3): whether the item is new by candidates.new_item_events, nobody ever acted on it, and the user has at most
    LIGHT_EVENTS events."""
    is_unseen, is_light = items.popularity[:, 1] == 0, lists.event_count <= LIGHT_EVENTS
    return np.column_stack([items.is_cold[columns], is_unseen[columns], is_light[rows]]).astype(np.float64)


def _within(values: Floats, offsets: Ints) -> Floats:
    found = np.zeros((len(values), 3), np.float32)
    kernel.within_lists(values, offsets, found)
    return found


def _own_at(lists: Lists, items: Catalogue, offsets: Ints, columns: Ints) -> Ints:
    at = np.empty(len(columns), np.int64)
    kernel.found_in(lists.own.offsets, items.column[lists.own.values], offsets, columns, items.width, at)
    return at
