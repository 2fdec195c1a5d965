"""The compiled loops of a half-step: rows x of A x = b, each improved from its present x by conjugate gradient.

A = g Y'Y + p + sum e y y' and b = sum t y over a row's entries, with e = e0 + e1 w and t = t0 + t1 w of the entry's
weight w; what g, p, e and t are, `objective.py` says. `step` is one application of A: `everywhere` the part that all
rows share, then `along` the entries. `solve` runs whole rows with all of Y at hand; `along` can also be given Y block
by block. Both add up the same numbers in the same order, so they give the same bits: an entry's dot product is always
taken in a group of four (the last one filled up with nothing), and its pull is added after that of the one before.

Letters: R rows, I columns, D factors, L entries of a row. Arrays of a kind: all float or all double.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from nightrec.als.prefetch import prefetch

# Rows that go through the shared part together: it then reads Y'Y once for all of them. Beside `implicit`'s half-step
# on one core, 4.8 M pairs: 1.27 to 1.6 times its speed at rank 64, 0.86 to 1.3 times at rank 128.
_TILE = 8
# Entries between the one at hand and the one whose column is on its way from memory: 400,000 columns are no cache's,
# and a half-step that waited for each took twice as long, at 100,000 1.6 times (4 and 8 entries gained less).
_AHEAD = 16
# Where a squared residual is this small beside the first one, a row is solved.
_SOLVED = 1e-24

# In order: sums keep their order, products and sums may be fused. Over lanes: a dot product adds up lane by lane.
_IN_ORDER = {"contract", "nnan", "ninf", "nsz"}
_OVER_LANES = {*_IN_ORDER, "reassoc"}


@njit(cache=True, nogil=True, fastmath=_IN_ORDER)
def solve(
    starts: Any, columns: Any, weights: Any, factors: Any, fixed: Any, gram: Any, penalties: Any, terms: Any, steps: int
) -> None:
    """Improve all rows of `factors` (R x D, in place) by `steps`, with all of `fixed` (I x D) at hand."""
    kind = fixed.dtype.type
    left = np.empty((_TILE, factors.shape[1]), fixed.dtype)
    direction, image = np.empty_like(left), np.empty_like(left)
    sizes, enough = np.empty(_TILE, fixed.dtype), np.empty(_TILE, fixed.dtype)
    for first in range(0, len(starts) - 1, _TILE):
        count = min(_TILE, len(starts) - 1 - first)
        x, shared = factors[first : first + count], penalties[first : first + count]
        everywhere(left[:count], x, gram, shared)
        for row in range(count):
            _add_entries(
                left[row], x[row], kind(1),
                starts[first + row], starts[first + row + 1], 0, columns, weights, fixed, terms,
            )  # fmt: skip
        begin(left[:count], direction[:count], sizes, enough)
        for _ in range(steps):
            everywhere(image[:count], direction[:count], gram, shared)
            busy = False
            for row in range(count):
                if sizes[row] > enough[row]:
                    busy = True
                    _add_entries(
                        image[row], direction[row], kind(0),
                        starts[first + row], starts[first + row + 1], 0, columns, weights, fixed, terms,
                    )  # fmt: skip
            if not busy:
                break
            advance(x, left[:count], direction[:count], image[:count], sizes, enough)
        for row in range(count):
            if starts[first + row] == starts[first + row + 1]:
                x[row, :] = 0


@njit(cache=True, nogil=True, fastmath=_IN_ORDER)
def along(
    out: Any, x: Any, share: Any, heads: Any, stops: Any, columns: Any, weights: Any, low: int, fixed: Any, terms: Any
) -> None:
    """Add the entries of one block of columns: `fixed` holds the columns low .. low + its rows - 1.

    `heads` (R) are where each row's entries go on; they are moved on behind the block's.
    """
    high = low + len(fixed)
    for row in range(len(heads)):
        start = stop = heads[row]
        while stop < stops[row] and low <= columns[stop] < high:
            stop += 1
        _add_entries(out[row], x[row], share, start, stop, low, columns, weights, fixed, terms)
        heads[row] = stop


@njit(cache=True, nogil=True, fastmath=_IN_ORDER)
def everywhere(out: Any, x: Any, gram: Any, penalties: Any) -> None:
    """`out` = -(gram + penalty) x of each row."""
    width = x.shape[1]
    fours = width - width % 4
    for row in range(len(x)):
        for d in range(width):
            out[row, d] = -penalties[row] * x[row, d]
    for e in range(0, fours, 4):
        for row in range(len(x)):
            a, b, c, f = x[row, e], x[row, e + 1], x[row, e + 2], x[row, e + 3]
            for d in range(width):
                total = out[row, d] - a * gram[e, d]
                total -= b * gram[e + 1, d]
                total -= c * gram[e + 2, d]
                total -= f * gram[e + 3, d]
                out[row, d] = total
    for e in range(fours, width):
        for row in range(len(x)):
            for d in range(width):
                out[row, d] -= x[row, e] * gram[e, d]


@njit(cache=True, nogil=True, fastmath=_IN_ORDER)
def begin(left: Any, direction: Any, sizes: Any, enough: Any) -> None:
    """The first direction is what is left of b - A x; `sizes` is its square, `enough` where a row counts as solved."""
    for row in range(len(left)):
        direction[row, :] = left[row]
        sizes[row] = _dot(left[row], left[row])
        enough[row] = sizes[row] * left.dtype.type(_SOLVED)


@njit(cache=True, nogil=True, fastmath=_IN_ORDER)
def advance(x: Any, left: Any, direction: Any, image: Any, sizes: Any, enough: Any) -> None:
    """One step of each row that is not solved, `image` being minus A times its direction."""
    for row in range(len(x)):
        if sizes[row] <= enough[row]:  # a further step would divide by nothing
            continue
        step = -sizes[row] / _dot(direction[row], image[row])
        for d in range(x.shape[1]):
            x[row, d] += step * direction[row, d]
            left[row, d] += step * image[row, d]
        before = sizes[row]
        sizes[row] = _dot(left[row], left[row])
        for d in range(x.shape[1]):
            direction[row, d] = left[row, d] + sizes[row] / before * direction[row, d]


@njit(cache=True, nogil=True, fastmath=_IN_ORDER)
def _add_entries(
    out: Any, x: Any, share: Any, start: int, stop: int, low: int, columns: Any, weights: Any, fixed: Any, terms: Any
) -> None:
    """`out` += share b - (the entries' part of A) x, four entries at a time."""
    none = x.dtype.type(0)
    last = stop - 1
    for at in range(start, min(start + _AHEAD, stop)):
        prefetch(fixed, columns[at] - low)
    for at in range(start, stop, 4):
        for later in range(at + _AHEAD, min(at + _AHEAD + 4, stop)):
            prefetch(fixed, columns[later] - low)
        second, third, fourth = min(at + 1, last), min(at + 2, last), min(at + 3, last)
        a, b = np.uintp(columns[at] - low), np.uintp(columns[second] - low)
        c, d = np.uintp(columns[third] - low), np.uintp(columns[fourth] - low)
        of_a, of_b, of_c, of_d = _four_dots(fixed, x, a, b, c, d)
        pull_a = _pull(share, weights[at], of_a, terms)
        pull_b = _pull(share, weights[second], of_b, terms)
        pull_c = _pull(share, weights[third], of_c, terms)
        pull_d = _pull(share, weights[fourth], of_d, terms)
        if at + 1 > last:
            pull_b = none
        if at + 2 > last:
            pull_c = none
        if at + 3 > last:
            pull_d = none
        _add_four(out, fixed, a, b, c, d, pull_a, pull_b, pull_c, pull_d)


@njit(cache=True, nogil=True)
def _pull(share: Any, weight: Any, score: Any, terms: Any) -> Any:
    """How far an entry pulls the row along its column. As written: fused by its surroundings, its last bit differs."""
    return share * (terms[2] + terms[3] * weight) - (terms[0] + terms[1] * weight) * score


@njit(cache=True, nogil=True, fastmath=_OVER_LANES)
def _four_dots(fixed: Any, x: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    of_a = of_b = of_c = of_d = fixed.dtype.type(0)
    for k in range(len(x)):
        of_a += fixed[a, k] * x[k]
        of_b += fixed[b, k] * x[k]
        of_c += fixed[c, k] * x[k]
        of_d += fixed[d, k] * x[k]
    return of_a, of_b, of_c, of_d


@njit(cache=True, nogil=True, fastmath=_IN_ORDER)
def _add_four(
    out: Any, fixed: Any, a: Any, b: Any, c: Any, d: Any, pull_a: Any, pull_b: Any, pull_c: Any, pull_d: Any
) -> None:
    for k in range(len(out)):
        total = out[k] + pull_a * fixed[a, k]
        total += pull_b * fixed[b, k]
        total += pull_c * fixed[c, k]
        total += pull_d * fixed[d, k]
        out[k] = total


@njit(cache=True, nogil=True, fastmath=_OVER_LANES)
def _dot(one: Any, other: Any) -> Any:
    total = one.dtype.type(0)
    for d in range(len(one)):
        total += one[d] * other[d]
    return total


@njit(cache=True, nogil=True, fastmath=_OVER_LANES)
def entries_loss(
    heads: Any, stops: Any, columns: Any, weights: Any, x: Any, low: int, fixed: Any, terms: Any, is_explicit: bool
) -> Any:
    """Sum of e s^2 - 2 t s + k over one block of columns, s the product of the pair; `heads` move on as in `along`.

    k is what the pair costs at s = 0: t of an implicit pair, t^2 of an explicit one.
    """
    e0, e1, t0, t1 = terms
    high, total = low + len(fixed), 0.0
    for row in range(len(heads)):
        at = heads[row]
        while at < stops[row] and low <= columns[at] < high:
            prefetch(fixed, columns[min(at + _AHEAD, stops[row] - 1)] - low)
            score = np.float64(_dot(fixed[columns[at] - low], x[row]))
            pull = np.float64(t0 + t1 * weights[at])
            rest = pull * pull if is_explicit else pull
            total += (e0 + e1 * weights[at]) * score * score - 2.0 * pull * score + rest
            at += 1
        heads[row] = at
    return total


@njit(cache=True, nogil=True)
def count_rows(places: Any, rows: Any, chosen: Any, is_item: bool, lengths: Any) -> None:
    """Add a batch's entries of one side to `lengths` by the place of their row."""
    for entry in range(len(rows)):
        if chosen[entry] == is_item:
            lengths[places[rows[entry]]] += 1


@njit(cache=True, nogil=True)
def place_entries(
    places: Any, others: Any, rows: Any, entries: Any, weights: Any, chosen: Any, is_item: bool,
    heads: Any, columns: Any, placed: Any,
) -> None:  # fmt: skip
    """Put a batch's entries of one side behind those of their rows, columns as places on the other side."""
    for entry in range(len(rows)):
        if chosen[entry] == is_item:
            head = heads[places[rows[entry]]]
            heads[places[rows[entry]]] = head + 1
            columns[head] = others[entries[entry]]
            placed[head] = weights[entry]


@njit(cache=True, nogil=True)
def sort_rows(starts: Any, columns: Any, weights: Any) -> None:
    """Sort each row's entries by column, in place."""
    for row in range(len(starts) - 1):
        own = columns[starts[row] : starts[row + 1]]
        order = np.argsort(own)
        own[:] = own[order]
        weights[starts[row] : starts[row + 1]] = weights[starts[row] : starts[row + 1]][order]
