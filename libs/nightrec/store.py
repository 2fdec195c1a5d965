"""The only code that touches Delta: opens, reads, replaces, merges, and keeps two attempts from both committing.

Every commit names its run in the commit's metadata and carries a transaction id of the application `nightrec` whose
version was drawn when the store was opened. Delta skips a version it has already seen; the store notices and raises
Fenced. So an attempt that began before another one's commit can never overwrite it.
"""

from __future__ import annotations

import fcntl
import json
import os
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, NoReturn, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.exceptions import DeltaError
from pyarrow.parquet import filters_to_expression

from nightrec.contract import Table, no_rows
from nightrec.errors import ContractError, Fenced, UsageError
from nightrec.failpoint import reach
from nightrec.past.leftovers import sweep
from nightrec.past.pieces import Part, Piece, Value, Where, fingerprint, part, piece
from nightrec.past.pieces import values as _values
from nightrec.tables import TABLES

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

APPLICATION = "nightrec"

# Readers without Spark must be able to open every table: column mapping reads as NULL there, deletion vectors not at
# all. Writer version 4 is the first with CHECKs and change feeds; reader version 1 is every reader's.
_PROPERTIES: dict[str, str | None] = {
    "delta.enableDeletionVectors": "false",
    "delta.dataSkippingNumIndexedCols": "0",
    "delta.minReaderVersion": "1",
    "delta.minWriterVersion": "4",
    # The store writes checkpoints itself: Spark took 0.8 to 1 s for each, in every tenth night for most tables at once.
    "delta.checkpointInterval": "1000000",
}

# Commits from one checkpoint to the next: whoever opens a table reads all commits since the last. Without any, opening
# the ledger took 48 ms, 45 times a night.
_CHECKPOINT_EVERY = 10

# A partition of so many files below SMALL_FILE bytes is compacted: two weeks of books or of new texts. Reading a small
# file costs 2 to 10 ms whatever it holds, and nobody would ever write a partition anew that is no date's.
MANY_FILES = 16
SMALL_FILE = 32 * 2**20


@dataclass(frozen=True)
class Commit:
    """What one write did: the table's version after it and Delta's own counts."""

    version: int
    rows: int
    metrics: Mapping[str, int] = field(default_factory=dict)


def predicate(where: Where, quoted: Callable[[Value], str] | None = None) -> str:
    """An SQL condition that fixes each column to a value, or to one of several; Spark's SQL by default."""
    literal = quoted or _literal
    return " AND ".join(f"{name} IN ({', '.join(literal(v) for v in _values(value))})" for name, value in where.items())


def _literal(value: Value) -> str:
    """An SQL literal; a quote or backslash in an id cannot end it, nor is ${env:NAME} filled in."""
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("$", "\\u0024") + "'"


def _quoted(value: Value) -> str:
    """The same in standard SQL, which deltalake speaks: a quote is doubled and a backslash is a character."""
    return _literal(value) if isinstance(value, date) else "'" + value.replace("'", "''") + "'"


def location(warehouse: str, table: Table) -> str:
    """Folder or URI of a table."""
    return f"{warehouse}/{table.name}"


def exists(warehouse: str, table: Table) -> bool:
    """Whether the table has been created."""
    return bool(DeltaTable.is_deltatable(location(warehouse, table)))


def arrow(warehouse: str, table: Table, where: Where | None = None, columns: list[str] | None = None) -> pa.Table:
    """Rows of a table without Spark, for what a person or one process reads; no rows where it does not exist yet."""
    # In one thread: a process that ends right after a read by Arrow's threads was aborted by them, 9 times in 12.
    return dataset(warehouse, table, where).to_table(columns=columns, use_threads=False)


def dataset(warehouse: str, table: Table, where: Where | None = None) -> pads.Dataset:
    """The rows of a table's latest version without Spark, to be read batch by batch, as often as one likes."""
    if not exists(warehouse, table):
        return pads.dataset(pa.table({name: [] for name in table.names}))
    filters = [(name, "in", list(_values(value))) for name, value in (where or {}).items()]
    rows = DeltaTable(location(warehouse, table)).to_pyarrow_dataset()
    return rows.filter(filters_to_expression(filters)) if filters else rows


def version(warehouse: str, table: Table) -> int:
    """Latest version of a table; -1 where it does not exist yet."""
    return int(DeltaTable(location(warehouse, table)).version()) if exists(warehouse, table) else -1


def partitions(warehouse: str, table: Table) -> list[dict[str, str]]:
    """The partitions that hold files, from the log alone."""
    return list(DeltaTable(location(warehouse, table)).partitions()) if exists(warehouse, table) else []


def content(warehouse: str, table: Table, where: Where) -> str:
    """Fingerprint of the rows of the partitions that `where` names, from the log alone: which files hold them.

    A data file never changes and its name never comes back, so an equal fingerprint means the same rows.
    """
    if not exists(warehouse, table):
        return ""
    return fingerprint(DeltaTable(location(warehouse, table)).file_uris(file_pruning_predicate=_partitions(where)))


def commits(warehouse: str, table: Table) -> list[dict[str, Any]]:
    """What the log says of each commit of a table, the latest first; none where it does not exist yet."""
    return list(DeltaTable(location(warehouse, table)).history()) if exists(warehouse, table) else []


# What deltalake says of a version whose log is gone: of all of it, of what it built on, of its own commit.
_GONE = ("No files in log segment", "No table metadata or protocol found", "not the same as the specified end version")


def _opens(warehouse: str, table: Table, version: int) -> bool:
    """Whether the log still has a version. Raises DeltaError where that cannot be told, as of a storage that fails."""
    try:
        DeltaTable(location(warehouse, table), version=version)
    except DeltaError as error:
        if not any(words in str(error) for words in _GONE):
            raise
        return False
    return True


def is_whole(warehouse: str, table: Table, version: int) -> bool:
    """Whether every file of a version is there. On an object store nobody looks: a restore finds out."""
    if "://" in warehouse:
        return True
    try:
        opened = DeltaTable(location(warehouse, table), version=version)
    except (DeltaError, OSError):  # its log is gone
        return False
    folder = Path(location(warehouse, table))
    files = pa.table(opened.get_add_actions())["path"].to_pylist()
    return all((folder / urllib.parse.unquote(file)).is_file() for file in files)


def rows(
    spark: SparkSession, warehouse: str, table: Table, where: Where | None = None, version: int | None = None
) -> DataFrame:
    """Rows of a table that exists, at a version or the latest, as a frame that keeps the contract."""
    wanted = {name: value for name, value in (where or {}).items() if name in table.partition}
    target = DeltaTable(location(warehouse, table), version=version)
    # Its URIs quote the warehouse's own path (a blank as %20), which Spark does not undo.
    root, found = target.table_uri.removeprefix("file://"), location(warehouse, table)
    files = [uri.removeprefix(root) for uri in target.file_uris(file_pruning_predicate=_partitions(wanted) or None)]
    if files:
        reader = spark.read.schema(table.schema()).option("basePath", found)
        frame = reader.parquet(*(f"{found}/{file}" for file in sorted(files)))
    else:
        frame = no_rows(spark, table.ddl())
    frame = table.checked(frame, "reading")
    return frame.where(predicate(where)) if where else frame


def files_of(warehouse: str, table: Table, version: int) -> list[str]:
    """Every file of a table's folder on a disk that makes it what it was at a version: its log and its data files."""
    folder = Path(location(warehouse, table))
    opened = DeltaTable(str(folder), version=version)
    log = [file.name for file in (folder / "_delta_log").iterdir() if file.name.partition(".")[0].isdigit()]
    names = [f"_delta_log/{name}" for name in log if int(name.partition(".")[0]) <= version]
    data = pa.table(opened.get_add_actions())["path"].to_pylist() if version or opened.file_uris() else []
    return [*names, *(urllib.parse.unquote(path) for path in data)]


def remove(warehouse: str, table: Table, where: Where, later_than: date | None = None) -> None:
    """Remove rows of a table in a warehouse that nobody else reads: those of `where` and, where given, of nights later
    than one."""
    target, later = DeltaTable(location(warehouse, table)), f"run_date > {_literal(later_than or date.max)}"
    target.delete(f"({predicate(where, quoted=_quoted)})" + (f" OR {later}" if later_than else ""))


class Log:
    """The tables of a warehouse as their logs have them now, each read once however much of it is asked for."""

    def __init__(self, warehouse: str) -> None:
        self.warehouse = warehouse
        self._files: dict[str, tuple[int, pa.Table]] = {}

    def piece(self, table: Table, wanted: Part) -> Piece:
        """The partitions that `wanted` names; of a table that does not exist yet no files, as of version -1."""
        if table.name not in self._files:
            self._files[table.name] = _listed(self.warehouse, table)
        return piece(table, wanted, *self._files[table.name])


def _listed(warehouse: str, table: Table) -> tuple[int, pa.Table]:
    """A table's version, and what the log says of each of its files."""
    if not exists(warehouse, table):
        return -1, pa.table({"path": pa.array([], pa.string()), "num_records": pa.array([], pa.int64())})
    opened = DeltaTable(location(warehouse, table))
    return int(opened.version()), pa.table(opened.get_add_actions(flatten=True))


def _partitions(where: Where) -> list[tuple[str, str, list[str]]]:
    """`where` as deltalake's filter of partitions, whose values are strings in the log."""
    return [(name, "in", [str(value) for value in _values(values)]) for name, values in where.items()]


class Store:
    """One run's hold on a warehouse. Raises Fenced when another process writes to the same local warehouse, UsageError
    where another version of nightrec wrote it, with other columns.

    Logs reach back as many days as `nights` are kept (Config.nights_kept), and a week.
    """

    def __init__(self, spark: SparkSession, warehouse: str, run_id: str, nights: int = 30) -> None:
        self.spark = spark
        self.nights = nights
        self.warehouse = warehouse
        self.run_id = run_id
        self._lock = locked(warehouse)
        self._kept: dict[str, tuple[int, DataFrame]] = {}
        # What was read and written since whoever keeps books of it has emptied them.
        self.reads: dict[tuple[str, str], Piece] = {}
        self.writes: dict[tuple[str, str], tuple[Table, Where]] = {}
        self._tokens = {table.name: self._recorded(table, self._of_this_version(table)) + 1 for table in TABLES}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(failed=error is not None)

    def close(self, *, failed: bool = False) -> None:
        """Let the next writer in. The kernel does the same when the process dies.

        A process id that stays in the lock is that of a writer that was killed or `failed`, on a full disk, say: the
        next one clears away what it left.
        """
        for _, frame in self._kept.values():
            frame.unpersist()
        self._kept.clear()
        if self._lock is not None:
            if not failed:
                self._lock.truncate(0)
            self._lock.close()
            self._lock = None

    def read(self, table: Table, where: Where | None = None, version: int | None = None) -> DataFrame:
        """Rows of a table as a frame that keeps the contract; an empty one where nothing was ever written.

        The log says which files hold them and Spark reads those as Parquet, which is all there is to it without column
        mapping and deletion vectors. Delta's own reader runs a Spark job per table and query to pick the files: 240
        jobs and a fifth of a small night.
        """
        self._create(table)
        return rows(self.spark, self.warehouse, table, where, version)

    def kept(self, table: Table, columns: Sequence[str]) -> DataFrame:
        """Columns of a whole table in Spark's cache (memory, then disk), read anew when the table has changed.

        For sessions that read the same columns stage after stage: 157 small files cost each stage 1 to 2 s.
        """
        now = self.version(table)
        before, frame = self._kept.get(table.name, (None, None))
        if frame is not None and before != now:
            frame.unpersist()
        if frame is None or before != now:
            frame = self.read(table).select(*columns).persist()
            self._kept[table.name] = now, frame
        return frame

    def replace(self, table: Table, frame: DataFrame, where: Where) -> Commit:
        """Replace exactly the partitions that `where` names by `frame`, in one commit; an empty frame empties them.

        Raises ContractError when a row is outside `where`, breaks NOT NULL or a CHECK, or the frame's shape is wrong.
        """
        if set(where) != set(table.partition):
            raise ContractError(
                f"{table.name}: replace names {sorted(where)}, its partition is {sorted(table.partition)}"
            )
        return self._written(table, frame, {"replaceWhere": predicate(where)}, "overwrite", where)

    def append(self, table: Table, frame: DataFrame) -> Commit:
        """Add rows. The caller has left out what the table already holds."""
        commit = self._written(table, frame, {}, "append", {})
        self._compact(table)
        return commit

    def _written(
        self, table: Table, frame: DataFrame, options: Mapping[str, str], mode: str, where: Where
    ) -> Commit:
        self._create(table)
        checked = table.checked(frame, "writing")
        token = self._next_token(table)
        writer = checked.write.format("delta").mode(mode).options(**options)
        writer = writer.option("userMetadata", self._metadata(table))
        writer = writer.option("txnAppId", APPLICATION).option("txnVersion", token)
        reach(f"{table.name}.before_commit")
        try:
            writer.save(location(self.warehouse, table))
        except Exception as error:
            _raise(table, error)
        reach(f"{table.name}.after_commit")
        self._wrote(table, where)
        return self._committed(table, token)

    def put(self, table: Table, rows: Sequence[Mapping[str, Any]], where: Where) -> Commit:
        """Replace the partitions that `where` names by a handful of rows, without a Spark job.

        Raises ContractError where a row breaks the contract, or a partition's name is not in ASCII: the folder's name
        is then written in a way that Spark reads as another.
        """
        foreign = [value for values in where.values() for value in _values(values) if not str(value).isascii()]
        if foreign:
            raise ContractError(f"{table.name} (writing): {foreign[0]!r} names a partition and is not ASCII")
        self._create(table)
        target = DeltaTable(location(self.warehouse, table))
        token = self._next_token(table, target)
        schema = pa.schema(target.schema().to_arrow())
        unknown = sorted({name for row in rows for name in row} - set(table.names))
        if unknown:
            raise ContractError(f"{table.name} (writing): unexpected column {', '.join(unknown)}")
        try:
            data = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
            reach(f"{table.name}.before_commit")
            write_deltalake(
                target,
                data,
                mode="overwrite",
                predicate=predicate(where, quoted=_quoted) if where else None,
                commit_properties=self._properties(table, token),
            )
        except Exception as error:
            _raise(table, error)
        reach(f"{table.name}.after_commit")
        self._wrote(table, where)
        commit = Commit(int(target.version()), len(rows))
        self._checkpoint(table, target, 1)
        self._compact(table, target)
        return commit

    def clear(self, table: Table) -> None:
        """Remove all rows, and the files of every earlier version: there is no way back. For warehouses of trials."""
        if not exists(self.warehouse, table):
            return
        target = DeltaTable(location(self.warehouse, table))
        token = self._next_token(table, target)
        target.delete(commit_properties=self._properties(table, token))
        target.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False)

    def merge(
        self, table: Table, frame: DataFrame, fingerprint: str, said: Mapping[str, str] | None = None
    ) -> Commit:
        """Make the whole table equal to `frame` in one commit that touches only rows whose `fingerprint` differs.

        The commit's metadata hold what is `said`, and how many rows it `changed`. Nothing is committed where no row
        differs and what is said was said last. Metrics: inserted, updated, deleted, unchanged.
        `frame` is read twice (once to count), so it should be a table's rows and not a computation.
        """
        from pyspark.sql import functions as F

        source = table.checked(frame, "writing")
        target = self.read(table)
        old, new = F.col(f"t.{fingerprint}"), F.col(f"s.{fingerprint}")
        on = " AND ".join(f"t.{name} = s.{name}" for name in table.key)
        counted = (
            target.alias("t")
            .join(source.alias("s"), F.expr(on), "full_outer")
            .agg(
                F.count_if(old.isNull()).alias("inserted"),
                F.count_if(new.isNull()).alias("deleted"),
                F.count_if(old != new).alias("updated"),
                F.count_if(old == new).alias("unchanged"),
            )
            .first()
        )
        counts = {name: int(value) for name, value in counted.asDict().items()} if counted else {}
        changed = counts["inserted"] + counts["deleted"] + counts["updated"]
        if not changed:
            if said and not self._said(table, said):
                self._say(table, {**said, "changed": 0})
            self._wrote(table, {})
            return Commit(version(self.warehouse, table), 0, counts)
        token, noted = self._next_token(table), {**said, "changed": changed} if said else None
        with _session_options(
            self.spark,
            {
                "spark.databricks.delta.write.txnAppId": APPLICATION,
                "spark.databricks.delta.write.txnVersion": str(token),
                "spark.databricks.delta.commitInfo.userMetadata": self._metadata(table, noted),
            },
        ):
            self._merge(table, source, fingerprint, on)
        self._wrote(table, {})
        commit = Commit(self._committed(table, token).version, changed, counts)
        self._compact(table)
        return commit

    def _merge(self, table: Table, source: DataFrame, fingerprint: str, on: str) -> None:
        from delta.tables import DeltaTable as SparkDeltaTable

        target = SparkDeltaTable.forPath(self.spark, location(self.warehouse, table))
        reach(f"{table.name}.before_commit")
        try:
            (
                target.alias("t")
                .merge(source.alias("s"), on)
                .whenMatchedUpdateAll(condition=f"t.{fingerprint} <> s.{fingerprint}")
                .whenNotMatchedInsertAll()
                .whenNotMatchedBySourceDelete()
                .execute()
            )
        except Exception as error:
            _raise(table, error)
        reach(f"{table.name}.after_commit")

    def drop(self, table: Table, column: str, before: date, but: Where | None = None) -> None:
        """Remove the partitions of days before one, but those of `but`; older versions have them still."""
        target = DeltaTable(location(self.warehouse, table))
        token = self._next_token(table, target)
        names = [column, *(but or {})]
        assert set(names) <= set(table.partition), f"{table.name}: rows of {names} would be written anew"
        kept = f" AND NOT ({predicate(but, quoted=_quoted)})" if but else ""
        reach(f"{table.name}.before_commit")
        target.delete(f"{column} < {_literal(before)}{kept}", commit_properties=self._properties(table, token))
        reach(f"{table.name}.after_commit")

    def vacuum(self, table: Table, versions: Sequence[int]) -> int:
        """Remove the files that none of these versions holds, and what commits that died have left; returns how many.

        A version whose log is gone keeps nothing: nobody can open it any more.
        Of a table with a change feed, whose changes deltalake takes for such leavings, only files that the log names:
        those of old versions, and changes of commits before the first of these versions.
        """
        target = DeltaTable(location(self.warehouse, table))
        said = CommitProperties(custom_metadata={"userMetadata": self._metadata(table)})
        kept = [version for version in versions if _opens(self.warehouse, table, version)]
        gone = target.vacuum(
            retention_hours=0, dry_run=False, enforce_retention_duration=False, keep_versions=kept,
            full=not table.change_feed, commit_properties=said,
        )  # fmt: skip
        return len(gone) + (self._old_changes(table, kept[0]) if table.change_feed else 0)

    def _old_changes(self, table: Table, first: int) -> int:
        """Remove the changes of commits before a version. Nothing on an object store: a rule of its own may do so."""
        folder, removed = Path(location(self.warehouse, table)), 0
        if "://" in self.warehouse:
            return 0
        for file in (folder / "_delta_log").glob("*.json"):
            if file.stem.isdigit() and int(file.stem) < first:
                for line in file.read_text(encoding="utf-8").splitlines():
                    changes = folder / urllib.parse.unquote((json.loads(line).get("cdc") or {}).get("path", "-"))
                    removed += changes.is_file()
                    changes.unlink(missing_ok=True)
        return removed

    def restore(self, table: Table, version: int, said: Mapping[str, str]) -> Commit:
        """Make the table what it was at a version, in one commit that says `said`. Without Spark.

        Its change feed has every list of the files that differ, those that are the same too.
        """
        target = DeltaTable(location(self.warehouse, table))
        token = self._next_token(table, target)
        reach(f"{table.name}.before_commit")
        target.restore(version, commit_properties=self._properties(table, token, said))
        reach(f"{table.name}.after_commit")
        return self._committed(table, token)

    def _said(self, table: Table, said: Mapping[str, Any]) -> bool:
        """Whether the last commit that said anything said this."""
        for commit in commits(self.warehouse, table):
            before = json.loads(commit.get("userMetadata") or "{}")
            if said.keys() & before.keys():
                return {name: before.get(name) for name in said} == said
        return False

    def _say(self, table: Table, said: Mapping[str, Any]) -> None:
        """A commit without rows."""
        target = DeltaTable(location(self.warehouse, table))
        token = self._next_token(table, target)
        nothing = pa.Table.from_pylist([], schema=pa.schema(target.schema().to_arrow()))
        reach(f"{table.name}.before_commit")
        write_deltalake(
            target, nothing, mode="append", commit_properties=self._properties(table, token, said)
        )
        reach(f"{table.name}.after_commit")
        self._committed(table, token)

    def _properties(self, table: Table, token: int, said: Mapping[str, Any] | None = None) -> CommitProperties:
        return CommitProperties(
            custom_metadata={"userMetadata": self._metadata(table, said)},
            app_transactions=[Transaction(APPLICATION, token)],
        )

    def changes(self, table: Table, since: int) -> DataFrame:
        """The change feed after version `since`: the table's columns with _change_type and _commit_version.

        Raises ContractError where the table's contract keeps no feed.
        """
        if not table.change_feed:
            raise ContractError(f"{table.name} keeps no change feed")
        return (
            self.spark.read.format("delta")
            .option("readChangeFeed", "true")
            .option("startingVersion", since + 1)
            .load(location(self.warehouse, table))
        )

    def rows(
        self, table: Table, where: Where | None = None, after: date | None = None, until: date | None = None
    ) -> int:
        """Rows of the partitions that `where` names, or of dates of the first partition column, from the log alone."""
        return int(pc.sum(self._files(table, where, after, until)["num_records"]).as_py() or 0)

    def seen(
        self, table: Table, where: Where | None = None, after: date | None = None, until: date | None = None
    ) -> Piece:
        """What is about to be read, from the log alone; `reads` keeps it."""
        found = piece(table, part(table, where, after, until), *_listed(self.warehouse, table))
        self.reads[table.name, json.dumps(found.part)] = found
        return found

    def wrote(self) -> list[Piece]:
        """What `writes` names of the stages' tables, as it lies there now."""
        log = Log(self.warehouse)
        return [log.piece(table, part(table, where)) for table, where in self.writes.values() if table.stage]

    def _wrote(self, table: Table, where: Where) -> None:
        self.writes[table.name, json.dumps(part(table, where))] = table, where

    def changed_at(self, table: Table, where: Where | None = None, until: date | None = None) -> int:
        """When the newest file of those partitions was written, in milliseconds since 1970; 0 where there is none."""
        return int(pc.max(self._files(table, where, None, until)["modification_time"].cast(pa.int64())).as_py() or 0)

    def _files(self, table: Table, where: Where | None, after: date | None, until: date | None) -> pa.Table:
        """What the log says of each file of the partitions that `where` names and of the dates between, a row each."""
        if not exists(self.warehouse, table):
            return pa.table({"num_records": pa.array([], pa.int64()), "modification_time": pa.array([], pa.int64())})
        files = pa.table(DeltaTable(location(self.warehouse, table)).get_add_actions(flatten=True))
        for name, value in (where or {}).items():
            if name in table.partition:
                files = files.filter(pc.field(f"partition.{name}").isin(list(_values(value))))
        first = pc.field(f"partition.{table.partition[0]}") if table.partition else None
        if first is not None and after is not None:
            files = files.filter(first > after)
        return files if first is None or until is None else files.filter(first <= until)

    def _compact(self, table: Table, opened: DeltaTable | None = None) -> None:
        """Write each partition's small files anew as one where they have become MANY_FILES, in a commit per partition.

        Rows and change feed stay as they are, and readers of an older version find its files until they are vacuumed.
        By deltalake, in this process: the files that are due are 16 x 32 MiB at most, however large the table is.
        """
        target = opened or DeltaTable(location(self.warehouse, table))
        files = pa.table(target.get_add_actions(flatten=True))
        if files.num_rows < MANY_FILES:
            return
        before = int(target.version())
        columns = [f"partition.{name}" for name in table.partition]
        small = files.filter(pc.field("size_bytes") < SMALL_FILE)
        counted = small.group_by(columns).aggregate([("size_bytes", "count")])
        for row in counted.filter(pc.field("size_bytes_count") >= MANY_FILES).to_pylist():
            target.optimize.compact(
                partition_filters=_partitions({name: row[f"partition.{name}"] for name in table.partition}),
                target_size=SMALL_FILE,
                max_concurrent_tasks=1,
                commit_properties=CommitProperties(custom_metadata={"userMetadata": self._metadata(table)}),
            )
        self._checkpoint(table, target, int(target.version()) - before)

    def version(self, table: Table) -> int:
        """Latest version of a table; -1 where it does not exist yet."""
        return version(self.warehouse, table)

    def _create(self, table: Table) -> None:
        """Create the table from its contract where it is missing: NOT NULL, comments and CHECKs in one commit.

        By deltalake: Spark's CREATE TABLE took 0.2 to 2 s for each of the first night's 18 tables.
        """
        if exists(self.warehouse, table):
            return
        DeltaTable.create(
            location(self.warehouse, table),
            Schema.from_json(table.schema().json()),
            mode="ignore",
            partition_by=list(table.partition) or None,
            configuration=_PROPERTIES
            | self._reach(table)
            | ({"delta.enableChangeDataFeed": "true"} if table.change_feed else {})
            | {f"delta.constraints.{column.name}": column.check for column in table.columns if column.check},
            raise_if_key_not_exists=False,  # it has no list of CHECKs to know them from
        )

    def _opened(self, table: Table) -> DeltaTable | None:
        return DeltaTable(location(self.warehouse, table)) if exists(self.warehouse, table) else None

    def _of_this_version(self, table: Table) -> DeltaTable | None:
        """The table, where it exists; UsageError where another version of nightrec wrote it, with other columns."""
        opened, wanted = self._opened(table), set(table.names)
        found = {field.name for field in opened.schema().fields} if opened else wanted
        if found != wanted:
            other = ", ".join(sorted(found ^ wanted))
            self.close()
            raise UsageError(
                f"warehouse {self.warehouse} was written by another version of nightrec: its {table.name} has not the "
                f"same columns ({other}); use that version, or name a new folder as paths.warehouse and train there"
            )
        return opened

    def _recorded(self, table: Table, opened: DeltaTable | None = None) -> int:
        opened = opened or self._opened(table)
        return (opened.transaction_version(APPLICATION) or 0) if opened else 0

    def _next_token(self, table: Table, opened: DeltaTable | None = None) -> int:
        """This attempt's next transaction version; Fenced when another attempt has moved past it."""
        token = self._tokens[table.name]
        recorded = self._recorded(table, opened)
        if recorded >= token:
            raise Fenced(
                f"{table.name}: another attempt has committed since run {self.run_id} began; nothing was written"
            )
        self._tokens[table.name] = token + 1
        return token

    def _committed(self, table: Table, token: int) -> Commit:
        """The commit just made, if it is ours: Delta skips a used transaction version without a word."""
        target = DeltaTable(location(self.warehouse, table))
        last = target.history(1)[0]
        if json.loads(last.get("userMetadata") or "{}").get("run_id") != self.run_id:
            raise Fenced(f"{table.name}: another attempt committed version {token} before run {self.run_id} did")
        made = int(target.version())
        self._checkpoint(table, target, 1)
        metrics = {k: int(v) for k, v in (last.get("operationMetrics") or {}).items() if str(v).isdigit()}
        return Commit(made, metrics.get("numOutputRows", 0), metrics)

    def _reach(self, table: Table) -> dict[str, str | None]:
        """How far a table's log and old files reach back. What is fed to others, and gone back to, is cleaned up by the
        count of its nights alone (nightrec clean-up): Delta would refuse to read an old version by the clock."""
        kept = f"interval {3650 if table.change_feed else self.nights + 7} days"
        return {"delta.logRetentionDuration": kept, "delta.deletedFileRetentionDuration": kept}

    def _checkpoint(self, table: Table, target: DeltaTable, commits: int) -> None:
        """Write a checkpoint where one of the last so many commits is the tenth since the one before, and drop the
        log's files that are older than they need be."""
        if int(target.version()) % _CHECKPOINT_EVERY >= commits:
            return
        target.create_checkpoint()
        wanted, found = self._reach(table), target.metadata().configuration
        if any(found.get(name) != value for name, value in wanted.items()):
            properties = {name: str(value) for name, value in wanted.items()}
            said = CommitProperties(custom_metadata={"userMetadata": self._metadata(table)})
            target.alter.set_table_properties(properties, commit_properties=said)
        target.cleanup_metadata()

    def _metadata(self, table: Table, said: Mapping[str, Any] | None = None) -> str:
        return json.dumps({"run_id": self.run_id, "stage": table.stage or "ledger", **(said or {})}, sort_keys=True)


class _session_options:
    """Session settings that hold inside a `with` only: MERGE takes its transaction id no other way."""

    def __init__(self, spark: SparkSession, options: Mapping[str, str]) -> None:
        self.spark, self.options = spark, options

    def __enter__(self) -> None:
        for key, value in self.options.items():
            self.spark.conf.set(key, value)

    def __exit__(self, *_: object) -> None:
        for key in self.options:
            self.spark.conf.unset(key)


def _raise(table: Table, error: Exception) -> NoReturn:
    told = _explained(table, error)
    if told is error:
        raise error  # from itself it would be its own cause, for ever
    raise told from error


def _explained(table: Table, error: Exception) -> Exception:
    """Delta's complaint about a row as a ContractError in one line; other failures as they are."""
    text = str(error)
    if any(
        word in text
        for word in (
            "DELTA_VIOLATE",
            "DELTA_NOT_NULL",
            "NOT_NULL_CONSTRAINT",
            "DELTA_REPLACE_WHERE",
            "Invariant",
            "failed validation check",
            "declared as non-nullable",
        )
    ):
        start = max(text.find("[DELTA_"), 0)
        return ContractError(
            f"{table.name} (writing): {text[start:].splitlines()[0]} {' '.join(text[start:].splitlines()[1:4])}"
        )
    # Two of Spark's words and two of deltalake's.
    concurrent = "ConcurrentTransaction", "DELTA_CONCURRENT", "a concurrent transaction", "Concurrent transaction"
    if any(word in text for word in concurrent):
        return Fenced(f"{table.name}: another attempt committed at the same moment; nothing was written")
    return error


def locked(warehouse: str) -> IO[str] | None:
    """An exclusive kernel lock on a local warehouse: on a local disk two writer processes can lose commits."""
    if "://" in warehouse:
        return None
    Path(warehouse).mkdir(parents=True, exist_ok=True)
    handle = (Path(warehouse) / ".lock").open("a+")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.seek(0)
        holder = handle.read().strip() or "unknown"
        handle.close()
        raise Fenced(
            f"process {holder} is writing to {warehouse}; wait for it to end, then run this night again"
        ) from None
    handle.seek(0)
    if handle.read().strip():
        for table in TABLES:
            sweep(Path(location(warehouse, table)))
    handle.truncate(0)
    handle.write(str(os.getpid()))
    handle.flush()
    return handle
