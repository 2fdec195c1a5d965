"""Item-to-item similarity in the order of time: what the same users took up next.

similarity(a, b) = t_ab / (sqrt(n_a n_b) + PRIOR), where a user who took up b at one of the REACH moments after that of
a adds 1/distance to t_ab, and n counts the users who have an item in their basket. Sums with 1/distance are those of
the sequential rules (SR) of Ludewig & Jannach, "Evaluation of session-based recommendation algorithms", 2018, which
divide by what belongs to a alone and thus favour a popular b; the geometric mean of both sides, as in a cosine, does
not. PRIOR keeps pairs of one user or two behind those that many vouch for.

An item stands at the last moment a user acted on it, and distance counts moments: events of one moment, a basket paid
at once or a day in a log of dates without times, are in no order, so they are no transitions of one another, and all of
them are one step away from all of the next moment's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import sparse

from nightrec.serving.pairs import Doubles, Ints, flat

REACH = 5
PRIOR = 10.0
# 1/distance in whole numbers: parts of the least common multiple of all distances.
_ONE = math.lcm(*range(1, REACH + 1))


@dataclass(frozen=True)
class Transitions:
    """`users` counts those who have an item in their basket, by item number."""

    users: Ints

    def weights(self, users: pa.RecordBatch, width: int) -> Any:
        """t_ab from row a to column b, in parts of _ONE."""
        items, offsets = flat(users["basket"])
        moments = users["own_moment"].flatten().to_numpy()
        user = np.repeat(np.arange(len(users)), np.diff(offsets))
        # Newest first: a step is one moment of one user, and the next step is the moment before it.
        begins = np.ones(len(items), np.bool_)
        begins[1:] = (np.diff(user) != 0) | (np.diff(moments) != 0)
        whose = user[begins]
        starts = np.append(np.flatnonzero(begins), len(items))
        steps = sparse.csr_matrix((np.ones(len(items)), items, starts), shape=(len(whose), width))
        total = sparse.csr_matrix((width, width))
        for distance in range(1, min(REACH, len(whose) - 1) + 1):
            later = np.flatnonzero(whose[:-distance] == whose[distance:])
            total = total + (steps[later + distance].T @ steps[later]) * float(_ONE // distance)
        return total

    def similarity(self, items: Ints, neighbours: Ints, sums: Doubles, /) -> Doubles:
        """See above."""
        both = np.sqrt(self.users[items].astype(np.float64) * self.users[neighbours])
        found: Doubles = sums / _ONE / (both + PRIOR)
        return found
