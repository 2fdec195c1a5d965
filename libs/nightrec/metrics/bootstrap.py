"""How sure a mean over users is: paired differences with bootstrap intervals, computed where the users are.

The bootstrap draws each user as often as a Poisson variable of mean 1 says (Chamandy et al. 2012, "Estimating
Uncertainty for Massive Data Streams"): no resample is ever put together, partitions add up their sums. A user's draws
follow from the user's id and the number of the resample alone, so an interval does not depend on partitions or on the
order of rows; two figures of the same users are drawn alike, which makes their differences paired; and a user of
several cuts is drawn with all of them together, as they hang together.

Letters: U users of a batch, C figures, R resamples.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

Doubles = npt.NDArray[np.float64]

RESAMPLES = 1000
# P(N <= n) of a Poisson variable of mean 1, for n = 0 .. 7, as fractions of 2**64; more than 8 draws of one user do not
# occur in 10**6 users.
_CHANCES = [np.exp(-1) / np.prod(np.arange(1.0, n + 1)) for n in range(8)]
_POISSON = np.floor(np.cumsum(_CHANCES) * 2.0**64).astype(np.uint64)
# Users drawn at once: 4 MB of draws.
_USERS = 512


@dataclass(frozen=True)
class Interval:
    """A mean over `users` with the bounds between which it lies in 95 of 100 resamples."""

    mean: float
    low: float
    high: float
    users: int

    @classmethod
    def of(cls, mean: float, spread: Doubles, users: int) -> Interval:
        """From what the mean was in each resample; NaN where it drew nobody, as one in 20 does of three users."""
        low, high = np.nanpercentile(spread, [2.5, 97.5])
        return cls(mean, float(low), float(high), users)

    @property
    def error(self) -> float:
        """The standard error that belongs to a normal distribution with these bounds."""
        return (self.high - self.low) / (2 * 1.959964)


@dataclass(frozen=True)
class Resampled:
    """Sums of figures by name, over all rows (C) and over each resample (C x R), and how many rows stand in each sum.

    A row that has no figure (NULL, NaN) is in neither of its sums.
    """

    names: tuple[Hashable, ...]
    counts: Doubles
    totals: Doubles
    drawn: Doubles
    sums: Doubles

    def interval(self, name: Hashable, minus: Hashable | None = None) -> Interval | None:
        """The mean of a figure, or of its difference from another one of the same rows; None without any row."""
        users = int(self.counts[self.names.index(name)])
        if not users:
            return None
        mean, spread = self.mean(name)
        if minus is not None:
            other = self.mean(minus)
            mean, spread = mean - other[0], spread - other[1]
        return Interval.of(mean, spread, users)

    def mean(self, name: Hashable) -> tuple[float, Doubles]:
        """The mean of a figure, 0 without any row, and in each resample (R), NaN without any."""
        at = self.names.index(name)
        drawn = np.where(self.drawn[at] > 0, self.drawn[at], np.nan)
        return float(self.totals[at] / max(self.counts[at], 1)), self.sums[at] / drawn


def resampled(rows: DataFrame, names: Sequence[Hashable]) -> Resampled:
    """Of `rows` (`user_id`, `figures`: an array of doubles in the order of `names`), resampled by user."""
    width = len(names)
    narrow = rows.select(F.xxhash64("user_id").alias("_user"), "figures")
    parts = narrow.mapInArrow(_summing(width), "sums binary").toArrow()["sums"].to_pylist()
    shape = (2, width, RESAMPLES + 1)
    total = np.sum([np.zeros(shape), *(np.frombuffer(part).reshape(shape) for part in parts)], axis=0)
    return Resampled(tuple(names), total[0, :, 0], total[1, :, 0], total[0, :, 1:], total[1, :, 1:])


def pooled(parts: Sequence[Resampled]) -> Resampled:
    """All rows of several, each figure over those that have it."""
    names = tuple(dict.fromkeys(name for part in parts for name in part.names))
    sums = [
        np.zeros((len(names), *values.shape[1:]))
        for values in (parts[0].counts, parts[0].totals, parts[0].drawn, parts[0].sums)
    ]
    for part in parts:
        at = [names.index(name) for name in part.names]
        for total, values in zip(sums, (part.counts, part.totals, part.drawn, part.sums), strict=True):
            total[at] += values
    return Resampled(names, *sums)


def _summing(width: int) -> Any:
    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sums = np.zeros((2, width, RESAMPLES + 1))
        for batch in batches:
            figures = batch["figures"].flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
            users = batch["_user"].to_numpy().view(np.uint64)
            for start in range(0, len(users), _USERS):
                add(users[start : start + _USERS], figures[start : start + _USERS], sums)
        yield pa.RecordBatch.from_pydict({"sums": [sums.tobytes()]})

    return work


def add(users: npt.NDArray[np.uint64], figures: Doubles, sums: Doubles) -> None:
    """Add U x C figures to `sums` (2 x C x 1 + R): how many there are and what they sum to, of all and by resample."""
    drawn = np.ones((len(users), RESAMPLES + 1))
    draws(users, drawn[:, 1:])
    has = ~np.isnan(figures)
    sums[0] += has.astype(np.float64).T @ drawn
    sums[1] += np.where(has, figures, 0).T @ drawn


@njit(cache=True, nogil=True)
def draws(users: Any, out: Any) -> None:
    """How often each user (a number, U) is drawn in each resample (U x R)."""
    for row in range(len(users)):
        for resample in range(out.shape[1]):
            # splitmix64 (Steele et al. 2014) of user and resample.
            mixed = users[row] + np.uint64(resample + 1) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed ^= mixed >> np.uint64(31)
            drawn = 0
            while drawn < len(_POISSON) and mixed >= _POISSON[drawn]:
                drawn += 1
            out[row, resample] = drawn
