"""How true predicted probabilities and ratings are."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def calibration_error(rows: DataFrame, bins: int = 20) -> float:
    """Expected calibration error of `probability` (0..1) for `label` (0 or 1), over all rows; 0 where there are none.

    The rows are cut into `bins` bins of equal width in the logarithm of the odds, for most probabilities of a
    recommender lie below 0.05 and would share one bin of equal width; the error is the mean over rows of the absolute
    difference between their bin's mean probability and its share of ones (Naeini et al. 2015, "Obtaining Well
    Calibrated Probabilities Using Bayesian Binning").
    """
    odds = F.log(F.col("probability") / (1 - F.col("probability")))
    # Beyond odds of 1 to 22,000 (logarithm 10) all share the first bin.
    place = F.least(F.greatest(F.floor((odds + 10) * bins / 20), F.lit(0)), F.lit(bins - 1))
    by_bin = rows.groupBy(place.alias("_bin")).agg(
        F.sum("probability").alias("_expected"), F.sum("label").alias("_seen"), F.count(F.lit(1)).alias("_rows")
    )
    found = by_bin.agg(F.sum(F.abs(F.col("_expected") - F.col("_seen"))), F.sum("_rows")).first()
    return found[0] / found[1] if found and found[1] else 0.0


def log_loss(rows: DataFrame) -> float:
    """Mean binary cross-entropy of `probability` for `label`, natural logarithm; 0 where there are no rows."""
    lost = -F.when(F.col("label") == 1, F.log("probability")).otherwise(F.log(1 - F.col("probability")))
    found = rows.agg(F.avg(lost)).first()
    return found[0] or 0.0 if found else 0.0


def root_mean_squared_error(rows: DataFrame) -> float:
    """Of `predicted` for `value`; 0 where there are no rows."""
    found = rows.agg(F.sqrt(F.avg((F.col("predicted") - F.col("value")) ** 2))).first()
    return found[0] or 0.0 if found else 0.0
