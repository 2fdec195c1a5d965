"""Spark ML's part in the benchmark `topk`: its own model class around our factors, and the anti-join it needs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pyarrow as pa


def race(users: int, items: int, some: int) -> dict[str, Any]:
    """Spark ML in turn with ours on the first `some` users: seconds, agreement of lists, the JVM's peak."""
    import topk
    from pyspark.ml.recommendation import ALSModel
    from pyspark.sql import functions as F

    from nightrec.config import Spark
    from nightrec.session import session

    data = topk.Data.of(users, items).part(0, some)
    with tempfile.TemporaryDirectory() as folder:
        partitions = 2 * topk.THREADS
        settings = Spark(master=f"local[{topk.THREADS}]", partitions=partitions, options={"spark.local.dir": folder})
        spark = session(settings, "topk")
        rows = np.repeat(np.arange(some, dtype=np.int32), np.diff(data.offsets))
        tables = {
            "users": _factors(data.users),
            "items": _factors(data.items),
            "seen": pa.table({"user": rows, "item": data.seen}),
        }
        frames = {name: _held(spark, table, Path(folder) / name, partitions) for name, table in tables.items()}
        factors = (frames[name]._jdf for name in ("users", "items"))
        java = spark._jvm.org.apache.spark.ml.recommendation.ALSModel("als", topk.RANK, *factors)
        model = ALSModel(java.setUserCol("user").setItemCol("item"))
        asked = topk.K + int(np.diff(data.offsets).max())

        def recommend(of: Any) -> Any:
            deep = model.recommendForUserSubset(of, asked).select("user", F.explode("recommendations").alias("_one"))
            left = deep.select("user", "_one.*").join(frames["seen"], ["user", "item"], "left_anti")
            best = F.sort_array(F.collect_list(F.struct((-F.col("rating")).alias("below"), "item")))
            return left.groupBy("user").agg(F.slice(best, 1, topk.K).alias("best"))

        wanted = frames["users"].select(F.col("id").alias("user"))
        lists: dict[str, Any] = {}

        def both() -> dict[str, list[float]]:
            topk.ours(data.part(0, 64))
            return measure.side_by_side(
                {
                    "ours": lambda: lists.update(ours=topk.ours(data)),
                    "Spark ML": lambda: recommend(wanted).write.format("noop").mode("overwrite").save(),
                },
                topk.RUNS,
            )

        times = topk.single_threaded(both)
        found = recommend(wanted.where(F.col("user") < topk.SAMPLE)).toArrow().sort_by("user")
        peak = measure.peak_memory(spark.sparkContext._gateway.proc.pid)
        spark.stop()
    below, item = found["best"].combine_chunks().flatten().flatten()
    theirs = item.to_numpy().reshape(-1, topk.K), -below.to_numpy().reshape(-1, topk.K)
    mine = tuple(part[: topk.SAMPLE] for part in lists["ours"])
    return {"times": times, "agreement": topk.agreement(mine, theirs), "peak": peak, "asked": asked}


def _factors(rows: Any) -> pa.Table:
    values = pa.array(rows.ravel())
    offsets = pa.array(np.arange(0, rows.size + 1, rows.shape[1], dtype=np.int32))
    return pa.table(
        {"id": pa.array(range(len(rows)), pa.int32()), "features": pa.ListArray.from_arrays(offsets, values)}
    )


def _held(spark: Any, table: pa.Table, path: Path, partitions: int) -> Any:
    """The table in Spark's memory, so that reading it costs nobody time."""
    spark.createDataFrame(table).repartition(partitions).write.parquet(str(path))
    frame = spark.read.parquet(str(path)).repartition(partitions).persist()
    frame.count()
    return frame
