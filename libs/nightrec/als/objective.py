"""What factors are trained to minimise. Over rows x_u against columns y_i, n_u the entries of row u, I the columns:

implicit feedback, weights w_ui > 0 of the pairs that were seen:

    sum_seen (a0 + a w_ui) (x_u y_i - 1)^2  +  a0 sum_unseen (x_u y_i)^2  +  l sum_u (n_u + b I)^v |x_u|^2

explicit ratings r_ui:

    sum_seen (x_u y_i - r_ui)^2  +  l sum_u (n_u + b I)^v |x_u|^2

and likewise for the columns, with a `alpha`, a0 `unobserved`, l `regularisation`, v `frequency_power`, b
`frequency_offset`. a0 = 1, v = 1, b = 0 is Hu, Koren & Volinsky 2008 with the penalty of Zhou et al. 2008, as Spark ML
has it; v = 0 is `implicit`'s; a0 below 1 and b = a0 are what good results need according to Rendle et al. 2021,
"Revisiting the Performance of iALS on Item Recommendation Benchmarks".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nightrec.als import kernel

if TYPE_CHECKING:
    # Every worker imports this module; the config's pydantic costs each 0.3 s.
    from nightrec.config import Als

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.integer]
Reals = Floats | Doubles

# In double, after which a row's residual is below 1e-10 of where it began (ranks to 128, weights over three decades).
EXACT_STEPS = 1000


@dataclass(frozen=True)
class Rows:
    """Compressed rows: the entries of row r are columns[starts[r]:starts[r + 1]], in order of column, with weights."""

    starts: npt.NDArray[np.int64]  # R + 1
    columns: npt.NDArray[np.int32]
    weights: Floats  # ratings where feedback is explicit

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
    is_explicit: bool = False

    @classmethod
    def of(cls, settings: Als) -> Objective:
        """The objective that the config asks for."""
        return cls(
            settings.alpha, settings.regularisation,
            settings.unobserved, settings.frequency_power, settings.frequency_offset, settings.feedback == "explicit",
        )  # fmt: skip

    @property
    def everywhere(self) -> float:
        """The weight of Y'Y: what every pair pulls, seen or not."""
        return 0.0 if self.is_explicit else self.unobserved

    def terms(self, kind: np.dtype[np.floating]) -> npt.NDArray[np.floating]:
        """What an entry of weight w adds, as numbers of a kind: e0 + e1 w to A, t0 + t1 w times y to b (kernel.py)."""
        told = (1.0, 0.0, 0.0, 1.0) if self.is_explicit else (0.0, self.alpha, self.unobserved, self.alpha)
        return np.array(told, kind)

    def penalties(self, lengths: npt.NDArray[np.int64], columns: int) -> Doubles:
        """R: the weight of |x_u|^2 of each row."""
        scaled: Doubles = np.power(lengths + self.frequency_offset * columns, self.frequency_power, dtype=np.float64)
        return self.regularisation * scaled

    def solve(self, rows: Rows, factors: Reals, fixed: Reals, gram: Doubles, steps: int) -> None:
        """Improve `factors` (R x D, in place) against `fixed` (I x D) by `steps` of conjugate gradient at most.

        Both in float, or both in double for an exact solution: EXACT_STEPS from zero leave nothing to improve. `gram`
        is Y'Y over all columns (D x D). Rows without entries become zero. Each row is solved by itself, in one order
        of operations: its bits do not depend on the other rows.
        """
        kind = fixed.dtype
        kernel.solve(
            rows.starts, rows.columns, rows.weights.astype(kind, copy=False), factors, fixed,
            (self.everywhere * gram).astype(kind), self.penalties(rows.lengths, len(fixed)).astype(kind),
            self.terms(kind), steps,
        )  # fmt: skip
