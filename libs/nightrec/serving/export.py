"""The change feed of published_topk as folders of files for downstream systems, each version exactly once.

    exports/published_topk/version=00000012/manifest.json           what the folder holds
    exports/published_topk/version=00000012/parquet/part-*.parquet  one row per changed list
    exports/published_topk/version=00000012/jsonl/part-*.json       the same rows as JSON lines

A folder is written under a hidden name and renamed in one step, so whoever sees it sees all of it (on an object store,
where a rename is a copy file by file, wait for manifest.json to name them). The number is the last version of the table
that the folder covers; folders applied in order bring a sink to the table's state.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from nightrec.errors import UsageError
from nightrec.failpoint import reach

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_COLUMNS = ("list_id", "items", "changed_date")
_FORMATS = {"parquet": ("parquet", {"compression": "zstd"}), "jsonl": ("json", {"ignoreNullFields": "false"})}
# Spark's marker file says no more than the manifest does.
_NO_MARKER = {"mapreduce.fileoutputcommitter.marksuccessfuljobs": "false"}


def changes(feed: DataFrame, until: int) -> DataFrame:
    """One row per list that version `until` has otherwise than the version before the feed: what a sink must apply.

    Columns: change (upsert or delete), list_kind, list_key, list_id, items, changed_date; the last two are NULL in a
    delete, whose list_id is that of the list that is gone.
    RESTORE logs a list that it did not change as a delete and an insert of one version, the insert holds; and a way
    back may undo what no sink has seen yet. So what a list was before the feed is held against what it is after it.
    """
    # Before a row is what its version took away, after it what the version put there.
    is_after = ~F.col("_change_type").isin("delete", "update_preimage")
    row = F.struct(is_after.alias("is_kept"), F.struct(*_COLUMNS).alias("list"))
    order = F.struct("_commit_version", is_after)
    kept, was_there = F.col("last.is_kept"), ~F.col("first.is_kept")
    is_same = F.col("first.list") == F.col("last.list")
    return (
        feed.where(F.col("_commit_version") <= until)
        .groupBy("list_kind", "list_key")
        .agg(F.min_by(row, order).alias("first"), F.max_by(row, order).alias("last"))
        .where(F.when(was_there & kept, ~is_same).otherwise(was_there | kept))
        .select(
            F.when(kept, "upsert").otherwise("delete").alias("change"),
            "list_kind",
            "list_key",
            F.when(kept, F.col("last.list.list_id")).otherwise(F.col("first.list.list_id")).alias("list_id"),
            F.when(kept, F.col("last.list.items")).alias("items"),
            F.when(kept, F.col("last.list.changed_date")).alias("changed_date"),
        )
    )


def everything(published: DataFrame) -> DataFrame:
    """Every list as an upsert, in the columns of `changes`: the first export, for sinks that hold nothing yet.

    The table itself, not its feed from version 1 on: the same rows, and the feed of old versions is cleaned up in time.
    """
    return published.select(F.lit("upsert").alias("change"), "list_kind", "list_key", *_COLUMNS)


def prepared(spark: SparkSession, folder: str) -> str:
    """`folder`, created if missing, without what an export that died has left there."""
    files, path = _files(spark, folder)
    files.mkdirs(path)
    for status in files.listStatus(path):
        if status.getPath().getName().startswith(".version="):
            files.delete(status.getPath(), True)
    return folder


def nothing_new(latest: int, since: int, folder: str) -> bool:
    """Whether version `latest` of the table holds nothing beyond the exported version `since`.

    Raises UsageError where more was exported than the table has: the table was made anew, and its changes would never
    be told from those that sinks have already applied.
    """
    if since > max(latest, 0):
        raise UsageError(
            f"{folder} holds version {since} of published_topk, whose latest version is {latest}: the warehouse was "
            "made anew; move that folder away to export every list again"
        )
    return latest <= since


def exported_version(spark: SparkSession, folder: str) -> int:
    """Last version of the table that was exported to `folder`; 0, which holds no list, where there is none."""
    files, path = _files(spark, folder)
    names = [status.getPath().getName() for status in files.listStatus(path)]
    return max((int(name.removeprefix("version=")) for name in names if name.startswith("version=")), default=0)


def export(frame: DataFrame, folder: str, first: int, last: int, formats: Sequence[str]) -> dict[str, int]:
    """Write the changes of versions `first` to `last` as `folder`/version=`last`, whole or not at all.

    Returns the rows written per change, each counted once however many formats there are.
    """
    spark = frame.sparkSession
    name = f"version={last:08d}"
    hidden = f"{folder}/.{name}"
    observation = Observation()
    counted = frame.observe(
        observation, *(F.count_if(F.col("change") == change).alias(change) for change in ("upsert", "delete"))
    )
    for form in formats:
        kind, options = _FORMATS[form]
        counted.write.format(kind).options(**options, **_NO_MARKER).save(f"{hidden}/{form}")
    counts = {change: int(rows) for change, rows in observation.get.items()}
    manifest = {
        "table": "published_topk",
        "from_version": first,
        "to_version": last,
        "rows": sum(counts.values()),
        **counts,
        "files": {
            f"{form}/{part}": size for form in formats for part, size in _parts(spark, f"{hidden}/{form}").items()
        },
    }
    reach("export.before_manifest")
    _write(spark, f"{hidden}/manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    files, source = _files(spark, hidden)
    _, target = _files(spark, f"{folder}/{name}")
    reach("export.before_rename")
    if not files.rename(source, target):
        raise OSError(f"cannot rename {hidden} to {folder}/{name}")
    reach("export.after_rename")
    return counts


def _files(spark: SparkSession, place: str) -> tuple[Any, Any]:
    """Hadoop's file system for a folder or URI, and its path there: local disks, HDFS and object stores alike."""
    path = spark._jvm.org.apache.hadoop.fs.Path(place)  # type: ignore[union-attr]
    return path.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf()), path


def _parts(spark: SparkSession, folder: str) -> dict[str, int]:
    """Bytes of each data file in a folder, by name."""
    files, path = _files(spark, folder)
    return {status.getPath().getName(): int(status.getLen()) for status in files.listStatus(path)}


def _write(spark: SparkSession, place: str, text: str) -> None:
    files, path = _files(spark, place)
    stream = files.create(path)
    try:
        stream.write(bytearray(text.encode()))
    finally:
        stream.close()
