"""Item-to-item similarity: how often two items are among the latest of the same users.

similarity(i, j) = n_ij / sqrt(n_i n_j), the cosine of the items' columns in the users x items matrix of zeros and ones
(Sarwar et al., "Item-Based Collaborative Filtering Recommendation Algorithms", 2001). n_i counts the users who have i
in their basket, n_ij those who have both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from nightrec.serving.pairs import Doubles, Ints, shared


@dataclass(frozen=True)
class Cooccurrence:
    """`users` are n_i by item number; pairs of fewer than `least` users are no neighbours."""

    users: Ints
    least: int

    def weights(self, users: pa.RecordBatch, width: int) -> Any:
        """n_ij."""
        return shared(users, width)

    def similarity(self, items: Ints, neighbours: Ints, sums: Doubles, /) -> Doubles:
        """The cosine."""
        cosine: Doubles = sums / np.sqrt(self.users[items].astype(np.float64) * self.users[neighbours])
        return np.where(sums >= self.least, cosine, 0.0)
