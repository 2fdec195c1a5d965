"""How sure a mean over users is: paired differences with bootstrap intervals, computed where the users are.

The bootstrap draws each user as often as a Poisson variable of mean 1 says (Chamandy et al. 2012, "Estimating
Uncertainty for Massive Data Streams"): no resample is ever put together, partitions add up their sums. A user's draws
follow from the user's id and the number of the resample alone, so an interval does not depend on partitions or on the
order of rows, and two figures of the same users are drawn alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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


@dataclass(frozen=True)
class Interval:
    """A mean over `users` with the bounds between which it lies in 95 of 100 resamples."""

    mean: float
    low: float
    high: float
    users: int

    @property
    def error(self) -> float:
        """The standard error that belongs to a normal distribution with these bounds."""
        return (self.high - self.low) / (2 * 1.959964)


def means(rows: DataFrame, columns: Sequence[str]) -> dict[str, Interval]:
    """The mean of each column over `rows`, one row per `user_id`; NULL counts as 0. No rows: no interval.

    A user that stands in several rows (one per cut) is drawn with all of them together, as their figures hang together.
    """
    wanted = [F.coalesce(F.col(name).cast("double"), F.lit(0.0)).alias(name) for name in columns]
    narrow = rows.select(F.xxhash64("user_id").alias("_user"), *wanted)
    parts = narrow.mapInArrow(_summing(list(columns)), "users long, sums array<double>, plain array<double>").toArrow()
    users = sum(parts["users"].to_pylist())
    if not users:
        return {}
    sums, plain = (
        np.sum([np.asarray(part) for part in parts[name].to_pylist()], axis=0) for name in ("sums", "plain")
    )
    drawn = sums.reshape(len(columns) + 1, RESAMPLES)
    spread = drawn[1:] / np.maximum(drawn[0], 1)
    low, high = np.percentile(spread, [2.5, 97.5], axis=1)
    return {
        name: Interval(float(plain[n] / users), float(low[n]), float(high[n]), users) for n, name in enumerate(columns)
    }


def _summing(columns: list[str]) -> Any:
    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        sums, plain, users = np.zeros((len(columns) + 1, RESAMPLES)), np.zeros(len(columns)), 0
        for batch in batches:
            values = np.array([batch[name].to_numpy(zero_copy_only=False) for name in columns]).T
            add_resamples(batch["_user"].to_numpy().view(np.uint64), np.ascontiguousarray(values), sums)
            plain += values.sum(0)
            users += len(batch)
        yield pa.RecordBatch.from_pydict({"users": [users], "sums": [sums.ravel()], "plain": [plain]})

    return work


@njit(cache=True, nogil=True)
def add_resamples(users: Any, values: Any, sums: Any) -> None:
    """Add the rows of `values` (U x C) to `sums` (1 + C x resamples) as often as each user is drawn; sums[0] counts."""
    for row in range(len(users)):
        for resample in range(sums.shape[1]):
            # splitmix64 (Steele et al. 2014) of user and resample.
            mixed = users[row] + np.uint64(resample + 1) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed ^= mixed >> np.uint64(31)
            draws = 0
            while draws < len(_POISSON) and mixed >= _POISSON[draws]:
                draws += 1
            if draws:
                sums[0, resample] += draws
                for column in range(values.shape[1]):
                    sums[column + 1, resample] += draws * values[row, column]
