"""One row per list, as it is served."""

from __future__ import annotations

from datetime import date

from pyspark.sql import DataFrame
from pyspark.sql import functions as F


def published_topk(ranked: DataFrame, run_date: date) -> DataFrame:
    """One row per list of `ranked`, its items nested best first, as in tables.PUBLISHED_TOPK.

    list_id is the fingerprint of kind, key and items in order, and publishing rewrites a list only where it differs.
    So a list whose items and order are those already served stays as it is: scores, reasons and changed_date are of the
    night that last changed what a reader sees. Scores move a little every night; rewriting for them would put every
    list into the change feed every night.
    """
    row = F.struct("rank", "item_id", "score", "source", "reason")
    return (
        ranked.groupBy("list_kind", "list_key")
        .agg(
            F.min("list_id").alias("list_id"),
            F.array_sort(F.collect_list(row)).alias("items"),
        )
        .withColumn("changed_date", F.lit(run_date))
    )
