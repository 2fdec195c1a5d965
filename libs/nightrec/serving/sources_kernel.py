"""The compiled half of `sources`: one list after the other, in room for one list.

Letters: R lists, N items, A columns, K wanted. Lists of lists come as offsets and values: those of r are
values[offsets[r]:offsets[r + 1]]. Results are R x K, filled from the left.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from nightrec.serving.inner_product_kernel import arrange, dot, key_of, reached, score_of


@njit(cache=True, nogil=True)
def hide(offsets: Any, masked: Any, r: Any, hidden_from: Any) -> None:
    """Say of each column in masked[offsets[r]:offsets[r + 1]], -1 for none, that list r must not get it."""
    for n in range(offsets[r], offsets[r + 1]):
        if masked[n] >= 0:
            hidden_from[masked[n]] = r


@njit(cache=True, nogil=True)
def _arranged(values: Any, numbers: Any, count: Any, keys: Any, score: Any) -> int:
    """Put the `count` largest values above 0 with their numbers into `keys`, best first; how many there are.

    Ties go to the smaller number. `score` is room for one float32, as `key_of` and `score_of` want it.
    """
    level = reached(values, count) if len(values) > count else 0.0
    kept = 0
    for n in range(len(values)):
        if values[n] >= level and values[n] > 0:
            score[0] = values[n]
            keys[kept] = key_of(score, numbers[n])
            kept += 1
    arrange(keys[:kept])
    return int(min(kept, count))


@njit(cache=True, nogil=True)
def together(
    recent_offsets: Any, recent: Any, weights: Any, indptr: Any, indices: Any, data: Any, factor: Any,
    masked_offsets: Any, masked: Any, width: Any, columns: Any, scores: Any, because: Any,
) -> None:  # fmt: skip
    """Add up the neighbours (N x A, sparse rows) of each list's recent items times their weights; the best K.

    The sums are multiplied by `factor` (A) first; those that are not above 0 are left out.
    """
    total, strongest = np.empty(width, np.float64), np.empty(width, np.float64)
    speaker, touched = np.empty(width, np.int64), np.empty(width, np.int64)
    values, keys = np.empty(width, np.float32), np.empty(width, np.int64)
    reached_by, hidden_from = np.full(width, -1), np.full(width, -1)
    score, count = np.empty(1, np.float32), columns.shape[1]
    for r in range(len(columns)):
        hide(masked_offsets, masked, r, hidden_from)
        many = 0
        for e in range(recent_offsets[r], recent_offsets[r + 1]):
            for n in range(indptr[recent[e]], indptr[recent[e] + 1]):
                c = indices[n]
                if hidden_from[c] == r:
                    continue
                share = data[n] * weights[e]
                if reached_by[c] != r:
                    reached_by[c], touched[many] = r, c
                    total[c], strongest[c], speaker[c] = share, share, recent[e]
                    many += 1
                    continue
                total[c] += share
                if share > strongest[c]:
                    strongest[c], speaker[c] = share, recent[e]
        for n in range(many):
            values[n] = np.float32(total[touched[n]] * factor[touched[n]])
        for n in range(_arranged(values[:many], touched, count, keys, score)):
            c = keys[n] & 0xFFFFFFFF
            columns[r, n], scores[r, n], because[r, n] = c, score_of(keys[n], score), speaker[c]


@njit(cache=True, nogil=True)
def nearest(recent_offsets: Any, recent: Any, vectors: Any, has: Any, items: Any, columns: Any, because: Any) -> None:
    """The recent item, other than itself, whose vector (N x E) has the greatest product with each nominated one's.

    Products are rounded to float32 before they are compared; of equal ones the earlier in `recent` stays.
    """
    products = np.empty(vectors.shape[1], np.float64)
    for r in range(len(columns)):
        for n in range(columns.shape[1]):
            if columns[r, n] < 0:
                break
            item = items[columns[r, n]]
            best = np.float32(-np.inf)
            for e in range(recent_offsets[r], recent_offsets[r + 1]):
                if has[recent[e]] and recent[e] != item:
                    near = np.float32(dot(vectors[item], vectors[recent[e]], products))
                    if near > best:
                        best, because[r, n] = near, recent[e]


@njit(cache=True, nogil=True)
def first_left(
    offsets: Any, ordered: Any, values: Any, which: Any, masked_offsets: Any, masked: Any, width: Any, columns: Any,
    scores: Any,
) -> None:  # fmt: skip
    """The first K of order which[r], -1 for none, without what list r must not get; `values` are their scores."""
    hidden_from = np.full(width, -1)
    for r in range(len(columns)):
        if which[r] < 0:
            continue
        hide(masked_offsets, masked, r, hidden_from)
        kept = 0
        for n in range(offsets[which[r]], offsets[which[r] + 1]):
            if kept == columns.shape[1]:
                break
            if hidden_from[ordered[n]] != r:
                columns[r, kept], scores[r, kept] = ordered[n], values[n]
                kept += 1


@njit(cache=True, nogil=True)
def best_own(
    offsets: Any, own: Any, values: Any, masked_offsets: Any, masked: Any, width: Any, columns: Any, scores: Any
) -> None:
    """The K largest `values` of each list's own columns, ties by column, without what it must not get; -1 is none."""
    hidden_from = np.full(width, -1)
    for r in range(len(columns)):
        hide(masked_offsets, masked, r, hidden_from)
        start, end = offsets[r], offsets[r + 1]
        kept = 0
        # By column first, then, stably, by value.
        by_column = start + np.argsort(own[start:end], kind="mergesort")
        for at in by_column[np.argsort(-values[by_column], kind="mergesort")]:
            if kept < columns.shape[1] and own[at] >= 0 and hidden_from[own[at]] != r:
                columns[r, kept], scores[r, kept] = own[at], values[at]
                kept += 1


@njit(cache=True, nogil=True)
def alike(
    offsets: Any, own: Any, indptr: Any, indices: Any, sizes: Any, itself: Any, found: Any, likeness: Any
) -> None:
    """The K reference users with the highest cosine to each list's own items, and the cosines, both R x K.

    Row i of the sparse `indptr`, `indices` names the references who have item i, `sizes` counts the items of each.
    """
    shares, reached_by = np.zeros(len(sizes), np.int64), np.full(len(sizes), -1)
    touched, values = np.empty(len(sizes), np.int64), np.empty(len(sizes), np.float32)
    keys, score, count = np.empty(len(sizes), np.int64), np.empty(1, np.float32), found.shape[1]
    for r in range(len(found)):
        many = 0
        for e in range(offsets[r], offsets[r + 1]):
            for n in range(indptr[own[e]], indptr[own[e] + 1]):
                user = indices[n]
                if reached_by[user] != r:
                    reached_by[user], shares[user], touched[many] = r, 0, user
                    many += 1
                shares[user] += 1
        items = offsets[r + 1] - offsets[r]
        for n in range(many):
            user = touched[n]
            values[n] = 0 if user == itself[r] else shares[user] / np.sqrt(float(items) * sizes[user])
        for n in range(_arranged(values[:many], touched, count, keys, score)):
            found[r, n], likeness[r, n] = keys[n] & 0xFFFFFFFF, score_of(keys[n], score)


@njit(cache=True, nogil=True)
def screened(indptr: Any, values: Any, count: Any, able: Any) -> None:
    """Mark in `able` the values (float32) of each sparse row that are above 0 and may be among its `count` largest.

    Sorting all pairs of 3,900 items took 2.1 s of a core, sorting these 0.2 s.
    """
    for r in range(len(indptr) - 1):
        start, end = indptr[r], indptr[r + 1]
        level = reached(values[start:end], count) if end - start > count else 0.0
        for n in range(start, end):
            able[n] = values[n] > 0 and values[n] >= level
