"""The K items whose vectors have the greatest product with a vector, exactly: maximum inner product search.

A fast product, in bfloat16 where the processor multiplies it and in float32 elsewhere, only screens. What it says of a
pair is off by at most a proved bound, so whatever it places below the K-th best by more than that bound cannot be among
the best; the few others are scored in double, in one order of operations, and rounded once to float32. So neither
blocks, partitions nor the processor change a bit of the result.

The bound (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, sections 3.1 and 3.5), x and y the vectors,
x' and y' as the screen rounds them:

    |x.y - x'.y'| <= |x - x'| |y| + |x'| |y - y'|          by Cauchy-Schwarz, with the norms as they are
    |x'.y' - sum| <= D u |x'| |y'| / (1 - D u)             u = 2**-23, summed in any order
    |sum - screen| <= 2**-9 |sum|                          where the screen's result is a bfloat16
    |x.y - score| <= (2**-24 + D 2**-52) |x| |y|           the score's own rounding

Items are ordered by falling norm: a block of them has one tight bound, and where a block's norms cannot reach the K-th
best of any row, no later block's can.

Letters: R rows asked for, A items, D width, K wanted. Memory, in bytes: A (6 D + 36) for an index in bfloat16 and
A (8 D + 36) in float32; 3 MiB and 40 K for each of 256 rows while it searches, whatever is masked.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from nightrec.serving import inner_product_kernel as kernel

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

# One block of screening products is 2 MiB in bfloat16: half of it in the second cache, all of it in the third.
ROWS, COLUMNS = 256, 4096
_SUM = 2.0**-23
_SCORE = 2.0**-23
# Below this, relative to the longest vector, the processor may take a number for zero.
_UNDERFLOW = 1e-30


@dataclass(frozen=True)
class Screen:
    """How the screen multiplies: `shift` bits that its floats lack, `hidden` bits of -inf, `rounding` of its result."""

    is_short: bool

    @property
    def shift(self) -> int:
        return 16 if self.is_short else 0

    @property
    def hidden(self) -> int:
        return -128 if self.is_short else -8388608

    @property
    def rounding(self) -> float:
        return 2.0**-8 if self.is_short else 0.0

    def rounded(self, values: npt.NDArray[np.float64]) -> Any:
        """The values as the screen multiplies them: float32, or bfloat16 held as its bits."""
        single = values.astype(np.float32)
        return _torch().from_numpy(single).bfloat16().view(_torch().int16).numpy() if self.is_short else single

    def plain(self, values: Any) -> npt.NDArray[np.float64]:
        """What `rounded` holds, in double."""
        single: npt.NDArray[np.float32] = (values.astype(np.int32) << 16).view(np.float32) if self.is_short else values
        return single.astype(np.float64)

    def bits(self, rows: int, columns: int) -> Any:
        """Where products go to."""
        return np.empty(rows * columns, np.int16 if self.is_short else np.int32)

    def multiply(self, rows: Any, items: Any, out: Any) -> Any:
        """Bits of rows times items (R x B), in `out`."""
        out = out[: len(rows) * len(items)].reshape(len(rows), len(items))
        if self.is_short:
            short = _torch().bfloat16
            of = _torch().from_numpy
            _torch().mm(of(rows).view(short), of(items).view(short).t(), out=of(out).view(short))
        else:
            np.dot(rows, items.T, out=out.view(np.float32))
        return out


def screen(items: int) -> Screen:
    """bfloat16 where the processor multiplies it (4 times float32's speed on a Zen 5), else float32.

    A worker without torch imports it (1.5 s) only for a catalogue that is worth it: the result is the same.
    """
    if items < 4 * COLUMNS and "torch" not in sys.modules:
        return Screen(is_short=False)
    return Screen(bool(_torch().cpu._is_avx512_bf16_supported() or _torch().cpu._is_amx_tile_supported()))


def _torch() -> Any:
    import torch

    return torch


@dataclass(frozen=True)
class Index:
    """A vectors, ready to be searched; position p of its arrays is the column order[p] of what it was made of."""

    vectors: npt.NDArray[np.float32]  # A x D, by position
    lengths: npt.NDArray[np.float64]  # A, what an exact product is divided by: norms for cosines, else 1
    order: npt.NDArray[np.int32]
    place: npt.NDArray[np.int32]  # A, position of each column
    rounded: Any  # A x D, by position: as the screen multiplies them, scaled by `unit`, or to norm 1 for cosines
    norms: npt.NDArray[np.float64]  # A, of the scaled vectors, falling
    errors: npt.NDArray[np.float64]  # A, norm of what the screen's rounding took away
    unit: float
    is_cosine: bool
    screen: Screen

    @classmethod
    def of(cls, vectors: npt.NDArray[np.float32], *, is_cosine: bool = False, how: Screen | None = None) -> Index:
        """From A x D finite vectors. A zero vector's cosine is 0. Raises ValueError where a number is not finite."""
        how = how or screen(len(vectors))
        lengths = _norms(vectors)
        order = np.argsort(np.zeros(len(vectors)) if is_cosine else -lengths, kind="stable").astype(np.int32)
        place = np.empty_like(order)
        place[order] = np.arange(len(order), dtype=np.int32)
        vectors, lengths = np.ascontiguousarray(vectors[order]), lengths[order]
        unit = 1.0 if is_cosine else float(_unit(lengths.max(initial=0)))
        divisors = np.where(lengths > 0, lengths, 1.0) if is_cosine else np.ones(len(lengths))
        rounded = np.empty(vectors.shape, np.int16 if how.is_short else np.float32)
        norms, errors = np.empty(len(order)), np.empty(len(order))
        for start in range(0, len(order), COLUMNS):  # in double only block by block
            part = slice(start, start + COLUMNS)
            rounded[part], norms[part], errors[part] = _scaled(how, vectors[part], unit / divisors[part])
        return cls(vectors, divisors, order, place, rounded, norms, errors, unit, is_cosine, how)

    def __len__(self) -> int:
        return len(self.order)


def search(
    index: Index, queries: npt.NDArray[np.float32], offsets: Ints, masked: Ints, count: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Columns and scores (both R x K) of the `count` best of each row of queries (R x D), best first.

    Equal scores are ordered by column. Where fewer are left, columns are -1 and scores -inf. Columns that row r must
    not get are masked[offsets[r]:offsets[r + 1]], in any order, perhaps twice; -1 is none.
    One thread, besides what BLAS is allowed.
    """
    columns = np.full((len(queries), count), -1, np.int32)
    scores = np.full((len(queries), count), -np.inf, np.float32)
    if not len(index) or not count:
        return columns, scores
    places = max(4 * count, count + 192)
    out = index.screen.bits(min(ROWS, len(queries)), min(COLUMNS, len(index)))
    held = min(ROWS, len(queries))
    low, high = np.empty((held, places), np.float32), np.empty((held, places), np.float32)
    at = np.empty((held, places), np.int32)
    for start in range(0, len(queries), ROWS):
        rows = slice(start, min(start + ROWS, len(queries)))
        here = offsets[rows.start : rows.stop + 1]
        _search(index, queries[rows], here, masked, out, (low, high, at), columns[rows], scores[rows])
    return columns, scores


def _search(
    index: Index,
    queries: npt.NDArray[np.float32],
    offsets: Ints,
    masked: Ints,
    out: Any,
    buffers: tuple[Any, Any, Any],
    columns: npt.NDArray[np.int32],
    scores: npt.NDArray[np.float32],
) -> None:
    """`search` for at most ROWS rows."""
    how = index.screen
    queries = np.ascontiguousarray(queries)
    lengths = _norms(queries)
    whole = np.where(lengths > 0, lengths, 1.0)
    # Powers of two, so that nothing is rounded; cosines are between vectors of norm 1.
    units = 1.0 / whole if index.is_cosine else _unit(lengths)
    divisors = whole if index.is_cosine else np.ones(len(lengths))
    rounded, norms, errors = _scaled(how, queries, units)
    factors = np.ones(len(lengths)) if index.is_cosine else units * index.unit
    fill, level = np.zeros(len(queries), np.int64), np.full(len(queries), -np.inf)
    low, high, at = (buffer[: len(queries)] for buffer in buffers)
    count, width = columns.shape[1], queries.shape[1]
    for first in range(0, len(index), COLUMNS):
        part = slice(first, first + COLUMNS)
        longest, worst = index.norms[first], index.errors[part].max()
        slack = errors * longest + (norms + errors) * worst + _UNDERFLOW
        slack += (norms + errors) * (longest + worst) * (width + 2) * _SUM * 1.01 + norms * longest * _SCORE
        if first and (norms * longest + slack < level).all():
            break
        block = how.multiply(rounded, index.rounded[part], out)
        kernel.sift(
            block, first, how.shift, how.hidden, how.rounding, slack, offsets, masked, queries, divisors, factors,
            index.vectors, index.lengths, index.order, index.place, fill, level, low, high, at, count,
        )  # fmt: skip
    kernel.finish(
        queries, divisors, index.vectors, index.lengths, index.order, fill, level, low, high, at, columns, scores
    )


def _scaled(
    how: Screen, vectors: npt.NDArray[np.float32], units: Any
) -> tuple[Any, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Vectors times their unit as the screen multiplies them, their norms, and the norms of what its rounding took."""
    exact = vectors.astype(np.float64) * np.broadcast_to(units, len(vectors))[:, None]
    rounded = how.rounded(exact)
    return rounded, _norms(exact) * (1 + 1e-12), _norms(exact - how.plain(rounded)) * (1 + 1e-12)


def _norms(vectors: Floats) -> npt.NDArray[np.float64]:
    wide = vectors.astype(np.float64, copy=False)
    norms: npt.NDArray[np.float64] = np.sqrt(np.einsum("rd,rd->r", wide, wide))
    if not np.isfinite(norms).all():
        raise ValueError(f"{(~np.isfinite(norms)).sum()} of {len(norms)} vectors hold a number that is not finite")
    return norms


def _unit(lengths: Any) -> Any:
    """The powers of two that bring lengths into [1/2, 1); 1 for 0."""
    return np.ldexp(1.0, -np.frexp(lengths)[1])
