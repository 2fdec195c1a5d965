"""The compiled half of `inner_product`: keep the few columns that may be among the best, then score those exactly.

A block of screening products arrives as the bits of its floats: int16 of bfloat16, int32 of float32. Bits of floats of
one sign order like integers, so sixty-four columns are passed over by one vector maximum, whatever the format.

Letters: R rows, B columns of a block, D width, K wanted, C places of a row's buffer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_GROUP = 16
_BELOW = -1082130432  # the bits of float32 -1
# So many keys are sorted faster by counting, for each, those before it: whole vectors, and no branch to guess.
_FEW = 512
# Every bound is moved outwards by this, more than float32 rounds it by.
_PAD = 2.0**-22


@njit(cache=True, nogil=True, inline="always")
def _float(bits: Any, shift: Any, word: Any, real: Any) -> Any:
    word[0] = np.int32(bits) << shift
    return real[0]


@njit(cache=True, nogil=True, inline="always")
def _edges(level: Any, shift: Any, word: Any, real: Any) -> Any:
    """Bits (a, b): a float not below `level` has bits >= a or <= b. Others may have; the caller looks again."""
    lowest = -(1 << 31) >> shift
    if not level > -3e38:
        real[0] = -3e38
    else:
        real[0] = level - _PAD * abs(level)
    bits = np.int64(word[0])
    if bits >= 0:
        return bits >> shift, lowest
    return 0, min((bits + (1 << shift) - 1) >> shift, -1)


@njit(cache=True, nogil=True)
def dot(x: Any, y: Any, products: Any) -> Any:
    """Product of two float32 vectors in double, always in the same order: halves added to halves, then one by one.

    `products` (D doubles) is room to work in: products and halves are vector operations whatever the processor.
    """
    width = len(x)
    for d in range(width):
        products[d] = np.float64(x[d]) * np.float64(y[d])
    while width > 16 and width % 2 == 0:
        width //= 2
        for d in range(width):
            products[d] += products[d + width]
    total = 0.0
    for d in range(width):
        total += products[d]
    return total


@njit(cache=True, nogil=True, inline="always")
def key_of(score: Any, column: Any) -> Any:
    """A whole number that grows as the score falls, then with the column. `score` is one float32 and not -0."""
    high = np.int64(score.view(np.int32)[0])
    high = ~high if high >= 0 else high & 0x7FFFFFFF
    return (high << 32) | np.int64(column)


@njit(cache=True, nogil=True, inline="always")
def score_of(key: Any, score: Any) -> Any:
    """The score of a key; `score` is room for one float32."""
    high = key >> 32
    score.view(np.int32)[0] = ~high if high < 0 else high | -0x80000000
    return score[0]


@njit(cache=True, nogil=True)
def _exact(x: Any, length: Any, vectors: Any, lengths: Any, order: Any, at: Any, count: Any, keys: Any) -> None:
    """Keys of the first `count` positions of `at` by their exact scores, sorted."""
    score = np.empty(1, np.float32)
    products = np.empty(len(x), np.float64)
    for n in range(count):
        p = at[n]
        score[0] = np.float32(dot(x, vectors[p], products) / (length * lengths[p])) + np.float32(0)  # -0 ties with 0
        keys[n] = key_of(score, order[p])
    arrange(keys[:count])


@njit(cache=True, nogil=True)
def arrange(keys: Any) -> None:
    """Sort keys, all different."""
    if len(keys) > _FEW:
        keys.sort()
        return
    found = keys.copy()
    for n in range(len(found)):
        key = found[n]
        before = 0
        for other in range(len(found)):
            before += found[other] < key
        keys[before] = key


@njit(cache=True, nogil=True)
def reached(values: Any, count: Any) -> Any:
    """What at least `count` of the values reach: within 2**-16 of their range, their K-th largest.

    Halving the range costs 16 counts, each a few vector operations; a partition of as many costs ten times that.
    """
    low, top = values[0], values[0]
    for n in range(len(values)):
        low, top = min(low, values[n]), max(top, values[n])
    for _ in range(16):
        middle = np.float32(0.5) * (low + top)
        many = 0
        for n in range(len(values)):
            many += values[n] >= middle
        if many >= count:
            low = middle
        else:
            top = middle
    return np.float64(low)


@njit(cache=True, nogil=True)
def _cut(fill: Any, low: Any, high: Any, at: Any, count: Any, level: Any) -> Any:
    """Raise the level to the K-th lower bound and drop what cannot reach it: fill, level."""
    if fill >= count:
        level = max(level, reached(low[:fill], count))
    kept = 0
    for n in range(fill):
        if high[n] >= level:
            low[kept], high[kept], at[kept] = low[n], high[n], at[n]
            kept += 1
    return kept, level


@njit(cache=True, nogil=True)
def _emptied(
    x: Any, length: Any, unit: Any, vectors: Any, lengths: Any, order: Any, place: Any, level: Any, low: Any, high: Any,
    at: Any, count: Any,
) -> Any:  # fmt: skip
    """Cut a full buffer: fill, level. Where bounds alone cannot (equal items, say) exact scores do, to the best K."""
    fill, level = _cut(len(at), low, high, at, count, level)
    if fill <= (len(at) + count) // 2:
        return fill, level
    keys = np.empty(fill, np.int64)
    _exact(x, length, vectors, lengths, order, at, fill, keys)
    score = np.empty(1, np.float32)
    for n in range(count):
        value = np.float64(score_of(keys[n], score)) * unit
        low[n], high[n] = value - _PAD * abs(value), value + _PAD * abs(value)
        at[n] = place[keys[n] & 0xFFFFFFFF]
    return _cut(count, low, high, at, count, level)


@njit(cache=True, nogil=True)
def _first_level(row: Any, count: Any, shift: Any, slack: Any, rounding: Any) -> Any:
    """A lower bound of the K-th best of a row's first block: that of one column out of each group of 16.

    Each group of columns hands in one of its own, its best if that is positive, so at least K columns reach it.
    """
    groups = len(row) // _GROUP
    if groups < count:
        return -np.inf
    tops = row[:groups].copy()
    for first in range(groups, groups * _GROUP, groups):
        for g in range(groups):
            tops[g] = max(tops[g], row[first + g])
    words = np.empty(groups, np.int32)
    for g in range(groups):
        words[g] = np.int32(tops[g]) << shift if tops[g] >= 0 else np.int32(_BELOW)
    best = words.view(np.float32)
    value = reached(best, count)
    return value - rounding * value - slack if value >= 0 else -np.inf


@njit(cache=True, nogil=True)
def sift(
    block: Any, first: Any, shift: Any, hidden: Any, rounding: Any, slack: Any, offsets: Any, masked: Any, queries: Any,
    query_lengths: Any, units: Any, vectors: Any, lengths: Any, order: Any, place: Any, fill: Any, level: Any,
    low: Any, high: Any, at: Any, count: Any,
) -> None:  # fmt: skip
    """Pass a block of screening products (R x B, bits) on to the rows' buffers.

    `slack` (R) bounds what a product before its last rounding is off by, `rounding` that rounding, relative.
    `masked[offsets[r]:offsets[r + 1]]` are the columns that row r must not get, -1 for none, in any order; they
    become `hidden`, the bits of -inf. `level` (R) is a bound that the K-th best certainly reaches.
    """
    rows, width = block.shape
    places = low.shape[1]
    passes = np.zeros((width + 7) // 8 * 8, np.uint8)
    words = passes.view(np.uint64)
    edges = np.empty(2, block.dtype)
    word = np.empty(1, np.int32)
    real = word.view(np.float32)
    for r in range(rows):
        row = block[r]
        for n in range(offsets[r], offsets[r + 1]):
            if masked[n] >= 0:
                p = place[masked[n]] - first
                if 0 <= p < width:
                    row[p] = hidden
        if first == 0:
            level[r] = _first_level(row, count, shift, slack[r], rounding)
        bound = level[r] - slack[r]
        edges[0], edges[1] = _edges(bound - rounding * 1.01 * abs(bound), shift, word, real)
        a, b = edges[0], edges[1]
        for j in range(width):
            passes[j] = (row[j] >= a) | (row[j] <= b)
        for w in range((width + 7) // 8):
            if not words[w]:
                continue
            for j in range(8 * w, min(8 * w + 8, width)):
                if not passes[j]:
                    continue
                value = np.float64(_float(row[j], shift, word, real))
                off = slack[r] + rounding * 1.01 * abs(value)
                if not (value > -np.inf and value + off >= level[r]):
                    continue
                n = fill[r]
                low[r, n] = value - off - _PAD * abs(value)
                high[r, n] = value + off + _PAD * abs(value)
                at[r, n] = first + j
                fill[r] = n + 1
                if n + 1 == places:
                    fill[r], level[r] = _emptied(
                        queries[r], query_lengths[r], units[r], vectors, lengths, order, place, level[r], low[r],
                        high[r], at[r], count,
                    )  # fmt: skip


@njit(cache=True, nogil=True)
def finish(
    queries: Any, query_lengths: Any, vectors: Any, lengths: Any, order: Any, fill: Any, level: Any, low: Any,
    high: Any, at: Any, columns: Any, scores: Any,
) -> None:  # fmt: skip
    """Score what is left in the buffers exactly: the best K of each row in order, and -1 where there are fewer."""
    keys = np.empty(low.shape[1], np.int64)
    score = np.empty(1, np.float32)
    count = columns.shape[1]
    for r in range(len(fill)):
        left, _ = _cut(fill[r], low[r], high[r], at[r], count, level[r])
        _exact(queries[r], query_lengths[r], vectors, lengths, order, at[r], left, keys)
        for n in range(min(left, count)):
            columns[r, n] = keys[n] & 0xFFFFFFFF
            scores[r, n] = score_of(keys[n], score)
