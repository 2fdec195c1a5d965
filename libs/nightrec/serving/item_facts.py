"""What the ranker is told of an item whoever the list is for: its place among the night's available items."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nightrec.features import GROUPS
from nightrec.tables import WINDOWS

if TYPE_CHECKING:
    from nightrec.serving.catalogue import Catalogue

Doubles = npt.NDArray[np.float64]

# Days of users that every item counts as more, spread over the week as those of all items are: few are noisy.
_USER_DAYS = 20.0

FACTS = (*GROUPS["item counts"], *GROUPS["item"])


def item_facts(items: Catalogue) -> Doubles:
    """(A, FACTS): users of each window and ever, times and trends as percentiles, shares or ratios."""
    windows, ever = items.windows.astype(np.float64), items.popularity[:, 1].astype(np.float64)
    week, month = (windows[:, WINDOWS.index(days)] for days in (items.week, items.month))
    return np.column_stack([
        *(percentiles(column) for column in windows.T),
        *(column / max(column.max(initial=0), 1) for column in windows.T),
        percentiles(ever),
        percentiles(items.age),
        percentiles(items.idle),
        percentiles(items.trend),
        percentiles(items.week_trend),
        np.log((week + 1) / (month + 4)),
        items.repeat_users / np.maximum(ever, 1),
        np.log1p(items.gap),
    ])  # fmt: skip


def weekday_logs(items: Catalogue) -> Doubles:
    """(A,): log of how much more of an item's days of users fall on the weekday of reading than of all items' together,
    shrunk by _USER_DAYS: 0 for an item without any, or where nobody ever acted on that weekday."""
    on_weekday, days = items.weekday_days.T.astype(np.float64)
    share = on_weekday.sum() / max(days.sum(), 1)
    if not share:
        return np.zeros(items.width)
    found: Doubles = np.log((on_weekday + _USER_DAYS * share) / ((days + _USER_DAYS) * share))
    return found


def percentiles(values: npt.NDArray[np.number]) -> Doubles:
    """Place of each value among all, 0 to 1; equal values share the middle of their places."""
    _, number, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle: Doubles = (np.cumsum(counts) - (counts + 1) / 2) / max(len(values) - 1, 1)
    return middle[number]
