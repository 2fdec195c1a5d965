"""How true predicted probabilities and ratings are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

Doubles = npt.NDArray[np.float64]
BINS = 20
_SUMS = ("rows", "expected", "seen", "lost")


@dataclass(frozen=True)
class Calibration:
    """Of rows with a predicted probability, by bin: how many, how many ones were expected, how many came, and what was
    lost (cross-entropy, natural logarithm). BINS of each.

    The bins are of equal width in the logarithm of the odds, for most probabilities of a recommender lie below 0.05 and
    would share one bin of equal width.
    """

    rows: Doubles
    expected: Doubles
    seen: Doubles
    lost: Doubles

    @property
    def error(self) -> float:
        """Expected calibration error: the mean over rows of the absolute difference between their bin's mean
        probability and its share of ones (Naeini et al. 2015, "Obtaining Well Calibrated Probabilities Using Bayesian
        Binning"); 0 without rows."""
        return float(np.abs(self.expected - self.seen).sum() / max(self.rows.sum(), 1))

    @property
    def log_loss(self) -> float:
        """Mean binary cross-entropy; 0 without rows."""
        return float(self.lost.sum() / max(self.rows.sum(), 1))


def calibrated(probabilities: Doubles, labels: npt.NDArray[np.floating]) -> Calibration:
    """Of (N,) probabilities for (N,) labels, 0 or 1; those within 1e-12 of 0 or 1 are taken to be as far from it."""
    inside = np.clip(probabilities, 1e-12, 1 - 1e-12)
    # Beyond odds of 1 to 22,000 (logarithm 10) all share the first bin.
    odds = np.log(inside) - np.log1p(-inside)
    place = np.clip(np.floor((odds + 10) * BINS / 20), 0, BINS - 1).astype(np.int64)
    lost = -np.where(labels == 1, np.log(inside), np.log1p(-inside))
    every: tuple[npt.NDArray[np.floating], ...] = (np.ones(len(place)), probabilities, labels, lost)
    return Calibration(*(np.bincount(place, one, BINS).astype(np.float64) for one in every))


def calibration(rows: DataFrame) -> Calibration:
    """The same of `probability` and `label`, over all rows."""

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            found = calibrated(*(batch[name].to_numpy(zero_copy_only=False) for name in ("probability", "label")))
            sums = np.stack([getattr(found, name) for name in _SUMS])
            yield pa.RecordBatch.from_pydict({"sums": [sums.tobytes()]})

    parts = rows.select("probability", "label").mapInArrow(work, "sums binary").toArrow()["sums"].to_pylist()
    shape = (len(_SUMS), BINS)
    return Calibration(*np.sum([np.zeros(shape), *(np.frombuffer(part).reshape(shape) for part in parts)], axis=0))


def pooled(parts: Sequence[Calibration]) -> Calibration:
    """Over all rows of several."""
    return Calibration(*(sum(getattr(part, name) for part in parts) for name in _SUMS))


@dataclass(frozen=True)
class SquaredError:
    """Of so many predicted values, in a sum that can be pooled."""

    rows: int
    total: float

    @property
    def root(self) -> float:
        """Root mean squared error (RMSE), in the unit of the values; 0 without rows."""
        return math.sqrt(self.total / max(self.rows, 1))


def squared_error(rows: DataFrame) -> SquaredError:
    """Of `predicted` for `value`, over all rows."""
    found = rows.agg(F.count(F.lit(1)), F.sum((F.col("predicted") - F.col("value")) ** 2)).collect()[0]
    return SquaredError(int(found[0]), float(found[1] or 0.0))
