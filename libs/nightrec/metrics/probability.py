"""How true predicted probabilities and ratings are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

Doubles = npt.NDArray[np.float64]
BINS = 20


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


def calibration(rows: DataFrame) -> Calibration:
    """Of `probability` (above 0, below 1) for `label` (0 or 1), over all rows."""
    odds = F.log(F.col("probability") / (1 - F.col("probability")))
    # Beyond odds of 1 to 22,000 (logarithm 10) all share the first bin.
    place = F.least(F.greatest(F.floor((odds + 10) * BINS / 20), F.lit(0)), F.lit(BINS - 1)).cast("int")
    lost = -F.when(F.col("label") == 1, F.log("probability")).otherwise(F.log(1 - F.col("probability")))
    sums = [F.count(F.lit(1)), F.sum("probability"), F.sum("label"), F.sum(lost)]
    counted = rows.groupBy(place.alias("_bin")).agg(*(total.alias(f"_{n}") for n, total in enumerate(sums))).toArrow()
    by_bin = np.zeros((4, BINS))
    by_bin[:, counted["_bin"].to_numpy()] = [counted[f"_{n}"].to_numpy() for n in range(4)]
    return Calibration(*by_bin)


def pooled(parts: Sequence[Calibration]) -> Calibration:
    """Over all rows of several."""
    return Calibration(*(sum(getattr(part, name) for part in parts) for name in ("rows", "expected", "seen", "lost")))


def root_mean_squared_error(rows: DataFrame) -> float:
    """Of `predicted` for `value`; 0 where there are no rows."""
    found = rows.agg(F.sqrt(F.avg((F.col("predicted") - F.col("value")) ** 2))).first()
    return found[0] or 0.0 if found else 0.0
