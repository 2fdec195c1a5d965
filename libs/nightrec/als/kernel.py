"""One half-step of implicit-feedback ALS over a block of rows, compiled: what the trainer's cores spend their time in.

The objective, for rows x_u against fixed columns y_i, weights w_ui > 0 of the pairs that were seen:

    sum_seen (a0 + a w_ui) (x_u y_i - 1)^2  +  a0 sum_unseen (x_u y_i)^2  +  l sum_u (n_u + b I)^v |x_u|^2

with a `alpha`, a0 `unobserved`, l `regularisation`, v `frequency_power`, b `frequency_offset`, n_u the entries of the
row and I the number of columns. a0 = 1, v = 1, b = 0 is Hu, Koren & Volinsky 2008 with the penalty of Zhou et al. 2008,
as Spark ML has it; v = 0 is `implicit`'s; a0 below 1 and b = a0 are what good results need according to Rendle et al.
2021, "Revisiting the Performance of iALS on Item Recommendation Benchmarks".

Letters: R rows of the block, I columns, D factors, L entries of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from numba import njit

if TYPE_CHECKING:
    # Every worker imports this module; the config's pydantic costs each 0.3 s.
    from nightrec.config import Als

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]
Reals = Floats | Doubles

# In double, after which a row's residual is below 1e-10 of where it began (ranks to 128, weights over three decades).
EXACT_STEPS = 1000
# Where a squared residual is this small beside the first one, a row is solved.
_SOLVED = 1e-24


@dataclass(frozen=True)
class Rows:
    """A block as compressed rows: the entries of row r are columns[starts[r]:starts[r + 1]] and their weights."""

    starts: npt.NDArray[np.int64]  # R + 1
    columns: npt.NDArray[np.int32]
    weights: Floats

    @classmethod
    def of(cls, rows: Ints, columns: Ints, weights: Floats, count: int) -> Rows:
        """From entries in any order; within a row they are sorted by column, so the sums do not depend on the order."""
        order = np.lexsort((columns, rows))
        starts = np.zeros(count + 1, np.int64)
        np.cumsum(np.bincount(rows, minlength=count), out=starts[1:])
        return cls(starts, columns[order].astype(np.int32), weights[order].astype(np.float32))

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """R: the entries of each row."""
        return np.diff(self.starts)


@dataclass(frozen=True)
class Objective:
    """The constants of the objective above."""

    alpha: float
    regularisation: float
    unobserved: float = 1.0
    frequency_power: float = 1.0
    frequency_offset: float = 0.0

    @classmethod
    def of(cls, settings: Als) -> Objective:
        """The objective that the config asks for."""
        return cls(
            settings.alpha, settings.regularisation,
            settings.unobserved, settings.frequency_power, settings.frequency_offset,
        )  # fmt: skip

    def penalties(self, lengths: npt.NDArray[np.int64], columns: int) -> Doubles:
        """R: the weight of |x_u|^2 of each row."""
        scaled: Doubles = np.power(lengths + self.frequency_offset * columns, self.frequency_power, dtype=np.float64)
        return self.regularisation * scaled

    def solve(self, rows: Rows, factors: Reals, fixed: Reals, gram: Doubles, steps: int) -> None:
        """Improve `factors` (R x D, in place) against `fixed` (I x D) by `steps` of conjugate gradient at most.

        Both in float, or both in double for an exact solution: EXACT_STEPS from zero leave nothing to improve. `gram`
        is Y'Y over all columns (D x D). Rows without entries become zero. Each row is solved by itself, in one order
        of operations: its bits do not depend on the other rows of the block.
        """
        kind = fixed.dtype.type
        _conjugate_gradient(
            rows.starts, rows.columns, rows.weights.astype(kind, copy=False), factors, fixed,
            (self.unobserved * gram).astype(kind), self.penalties(rows.lengths, len(fixed)).astype(kind),
            kind(self.alpha), kind(self.unobserved), steps,
        )  # fmt: skip

    def loss(self, rows: Rows, factors: Floats, fixed: Floats, row_gram: Doubles, gram: Doubles) -> float:
        """The block's share of the objective but for the penalty of `fixed`; `row_gram` is X'X of the block."""
        seen = float(_seen_loss(rows.starts, rows.columns, rows.weights, factors, fixed, self.alpha, self.unobserved))
        everywhere = self.unobserved * float((row_gram * gram).sum())
        penalties = self.penalties(rows.lengths, len(fixed))
        return seen + everywhere + float(penalties @ np.einsum("rd,rd->r", factors, factors, dtype=np.float64))


@njit(cache=True, nogil=True, fastmath=True)
def _conjugate_gradient(
    starts: Any, columns: Any, weights: Any, factors: Any, fixed: Any, gram: Any, penalties: Any,
    alpha: Any, unobserved: Any, steps: int,
) -> None:  # fmt: skip
    """Rows of A x = b, each from its present x, with A = a0 Y'Y + sum a w y y' + penalty and b = sum (a0 + a w) y."""
    width = factors.shape[1]
    left, direction, image = np.empty_like(fixed[0]), np.empty_like(fixed[0]), np.empty_like(fixed[0])
    none, whole = fixed.dtype.type(0), fixed.dtype.type(1)
    for row in range(len(starts) - 1):
        x = factors[row]
        if starts[row] == starts[row + 1]:
            x[:] = 0
            continue
        own, confidences = columns[starts[row] : starts[row + 1]], alpha * weights[starts[row] : starts[row + 1]]
        _residual(left, x, whole, own, confidences, fixed, gram, penalties[row], unobserved)
        direction[:] = left
        size = _dot(left, left)
        enough = size * _SOLVED
        for _ in range(steps):
            if size <= enough:  # solved: a further step would divide by nothing
                break
            _residual(image, direction, none, own, confidences, fixed, gram, penalties[row], unobserved)
            step = -size / _dot(direction, image)
            for d in range(width):
                x[d] += step * direction[d]
                left[d] += step * image[d]
            before, size = size, _dot(left, left)
            for d in range(width):
                direction[d] = left[d] + size / before * direction[d]


@njit(cache=True, nogil=True, fastmath=True)
def _residual(
    out: Any, x: Any, share: Any, columns: Any, confidences: Any, fixed: Any, gram: Any, penalty: Any, unobserved: Any
) -> None:
    """`out` = share b - A x. With share 0 it is minus the image of x."""
    width = len(x)
    for d in range(width):
        out[d] = -penalty * x[d] - _dot(gram[d], x)
    for entry in range(len(columns)):
        y, confidence = fixed[columns[entry]], confidences[entry]
        pull = share * (unobserved + confidence) - confidence * _dot(y, x)
        for d in range(width):
            out[d] += pull * y[d]


@njit(cache=True, nogil=True, fastmath=True)
def _dot(one: Any, other: Any) -> Any:
    total = one[0] * other[0]
    for d in range(1, len(one)):
        total += one[d] * other[d]
    return total


@njit(cache=True, nogil=True, fastmath=True)
def _seen_loss(starts: Any, columns: Any, weights: Any, factors: Any, fixed: Any, alpha: Any, unobserved: Any) -> Any:
    """Over the seen pairs: (a0 + a w)(s - 1)^2 less the a0 s^2 that the sum over all pairs holds too."""
    total = 0.0
    for row in range(len(starts) - 1):
        for entry in range(starts[row], starts[row + 1]):
            score = _dot(fixed[columns[entry]], factors[row])
            total += (unobserved + alpha * weights[entry]) * (score - 1.0) ** 2 - unobserved * score**2
    return total
