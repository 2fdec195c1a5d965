"""Item-to-item similarity by BM25, items as documents and users as words, as `bm25_weight` of benfred/implicit
(nearest_neighbours.py) has it.

similarity(i, j) = the sum over users of w_iu w_ju, where w_iu = c (k1 + 1) / (k1 norm_i + c) idf_u of the c days on
which u acted on i; norm_i = 1 - b + b length_i / mean length, length_i all days of i's users; and
idf_u = log N - log(1 + items of u) over N items. Unlike a cosine it counts users: what many share is nearer, what is
near everything less so, and a user of few items says more than one of many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse

from nightrec.serving.pairs import Doubles, Ints, flat

K1, B = 1.2, 0.75
# Weights are rounded to whole 2**-10ths: below 2**15 of them each, so that the products of 2**23 users are added up
# exactly in double precision, in any order.
UNIT = 2.0**-10


@dataclass(frozen=True)
class Bm25:
    """`lengths` by item number: days on which users acted on it, over all users who have it in their basket."""

    lengths: Ints

    def weights(self, users: pa.RecordBatch, width: int) -> Any:
        """The sums, in units of UNIT squared."""
        items, offsets = flat(users["basket"])
        days = users["own_days"].flatten().to_numpy()
        many = np.diff(offsets)
        norm = 1 - B + B * self.lengths * width / max(self.lengths.sum(), 1)
        rarity = np.maximum(np.log(max(width, 1)) - np.log1p(many), 0)
        weight = days * (K1 + 1) / (K1 * norm[items] + days) * np.repeat(rarity, many)
        rows = sparse.csr_matrix((np.rint(weight / UNIT), items, offsets), shape=(len(users), width))
        return rows.T @ rows

    def similarity(self, _items: Ints, _neighbours: Ints, sums: Doubles, /) -> Doubles:
        """As it is."""
        return sums * UNIT**2
