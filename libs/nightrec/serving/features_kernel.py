"""The compiled half of `features`. Lists of lists come as offsets and values, as in `sources_kernel`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def within_lists(scores: Any, offsets: Any, out: Any) -> None:
    """Of each of n scores, in `out` (n x 3): over its list's largest, standard deviations from the list's mean, and
    log(1 + place), where equal scores share the first place of theirs.

    The first is 0 where no score of the list is above 0, and never below -1; the second is 0 where all are equal.
    """
    for r in range(len(offsets) - 1):
        start, end = offsets[r], offsets[r + 1]
        if start == end:
            continue
        part = scores[start:end].astype(np.float64)
        largest, mean = part.max(), part.mean()
        spread = np.sqrt(((part - mean) ** 2).mean())
        order = np.argsort(-part, kind="mergesort")
        place = 0
        for n in range(len(part)):
            if n and part[order[n]] != part[order[n - 1]]:
                place = n
            out[start + order[n], 2] = np.log1p(place)
        for n in range(len(part)):
            out[start + n, 0] = max(part[n] / largest, -1.0) if largest > 0 else 0.0
            # Sums of equal numbers leave a spread in the last bits.
            out[start + n, 1] = (part[n] - mean) / spread if spread > 1e-6 * abs(mean) else 0.0


@njit(cache=True, nogil=True)
def added(
    entry_offsets: Any, rows: Any, weights: Any, indptr: Any, indices: Any, data: Any, offsets: Any, columns: Any,
    width: Any, out: Any,
) -> None:  # fmt: skip
    """For each cell of a list (`columns`): the sum over the list's entries of weight times data[row, column]."""
    total, reached_by = np.zeros(width, np.float64), np.full(width, -1)
    for r in range(len(offsets) - 1):
        for e in range(entry_offsets[r], entry_offsets[r + 1]):
            for n in range(indptr[rows[e]], indptr[rows[e] + 1]):
                c = indices[n]
                if reached_by[c] != r:
                    reached_by[c], total[c] = r, 0.0
                total[c] += data[n] * weights[e]
        for n in range(offsets[r], offsets[r + 1]):
            out[n] = total[columns[n]] if reached_by[columns[n]] == r else 0.0


@njit(cache=True, nogil=True)
def largest_shared(
    entry_offsets: Any, entries: Any, values: Any, indptr: Any, indices: Any, offsets: Any, rows: Any, width: Any,
    out: Any,
) -> None:  # fmt: skip
    """For each cell of a list: the largest value of the list's entries that are among indices of the cell's row."""
    value, set_by = np.zeros(width, np.float64), np.full(width, -1)
    for r in range(len(offsets) - 1):
        for e in range(entry_offsets[r], entry_offsets[r + 1]):
            if entries[e] >= 0:
                value[entries[e]], set_by[entries[e]] = values[e], r
        for n in range(offsets[r], offsets[r + 1]):
            out[n] = 0.0
            for m in range(indptr[rows[n]], indptr[rows[n] + 1]):
                if set_by[indices[m]] == r:
                    out[n] = max(out[n], value[indices[m]])


@njit(cache=True, nogil=True)
def most_shared(
    entry_offsets: Any, entries: Any, indptr: Any, indices: Any, offsets: Any, rows: Any, width: Any, out: Any
) -> None:
    """For each cell of a list: the largest share of the list's entries that have one index of the cell's row in theirs.

    Entries and cells name rows of one table; 0 without entries.
    """
    count, set_by = np.zeros(width, np.int64), np.full(width, -1)
    for r in range(len(offsets) - 1):
        for e in range(entry_offsets[r], entry_offsets[r + 1]):
            for m in range(indptr[entries[e]], indptr[entries[e] + 1]):
                if set_by[indices[m]] != r:
                    count[indices[m]], set_by[indices[m]] = 0, r
                count[indices[m]] += 1
        for n in range(offsets[r], offsets[r + 1]):
            most = 0
            for m in range(indptr[rows[n]], indptr[rows[n] + 1]):
                if set_by[indices[m]] == r:
                    most = max(most, count[indices[m]])
            out[n] = most / max(entry_offsets[r + 1] - entry_offsets[r], 1)


@njit(cache=True, nogil=True)
def found_in(entry_offsets: Any, entries: Any, offsets: Any, columns: Any, width: Any, out: Any) -> None:
    """For each cell of a list: which of the list's entries is its column, -1 for none; entries below 0 are none."""
    place, set_by = np.zeros(width, np.int64), np.full(width, -1)
    for r in range(len(offsets) - 1):
        for e in range(entry_offsets[r], entry_offsets[r + 1]):
            if entries[e] >= 0:
                place[entries[e]], set_by[entries[e]] = e, r
        for n in range(offsets[r], offsets[r + 1]):
            out[n] = place[columns[n]] if set_by[columns[n]] == r else -1


@njit(cache=True, nogil=True)
def products(offsets: Any, lists: Any, items: Any, rows: Any, out: Any) -> None:
    """For each cell of a list: its vector (R x D) times that of the cell's item (N x D), added up in double."""
    for r in range(len(offsets) - 1):
        for n in range(offsets[r], offsets[r + 1]):
            total = 0.0
            for d in range(lists.shape[1]):
                total += float(lists[r, d]) * float(items[rows[n], d])
            out[n] = total
