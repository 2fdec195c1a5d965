"""The store's other half: rows of a Delta table that go for good, with every version that held them.

DELETE would write the id it looks for into the table's own log, as the predicate of the commit. So partitions that hold
the person are written anew, and a predicate names only them.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake

from nightrec.contract import Table
from nightrec.failpoint import reach
from nightrec.privacy.person import Person, may_hold_text
from nightrec.store import _PROPERTIES, APPLICATION, _quoted, predicate
from nightrec.tables import PUBLISHED_TOPK

STAGE = "forget"
_TYPES = {"bigint": "long", "int": "integer"}
_ROWS = 65_536


@dataclass(frozen=True)
class Held:
    """What a table holds of a person: rows of its latest version, of files that only earlier versions or the change
    feed name, files of its log; the partitions of the first, and whether there is anything."""

    live: int
    earlier: int
    log: int
    partitions: tuple[tuple[tuple[str, Any], ...], ...]

    def __bool__(self) -> bool:
        return bool(self.live or self.earlier or self.log)


def tables(folder: str) -> list[Path]:
    """Every Delta table in a folder, at any depth."""
    return sorted(log.parent for log in Path(folder).rglob("_delta_log") if log.is_dir())


def held(path: Path, person: Person) -> Held:
    """What a table holds of a person. Every file in its folder is read, but only columns that may hold text."""
    target = DeltaTable(str(path))
    live = _live(target)
    rows = {file: sum(_count(batch, person) for batch in batches(path / file)) for file in _data(path)}
    values = dict(zip(*_partition_values(target), strict=True))
    touched = {values[file] for file in live if rows.get(file)}
    log = [file for file in (path / "_delta_log").iterdir() if file.is_file() and says(file, person)]
    return Held(
        sum(rows.get(file, 0) for file in live), sum(count for file, count in rows.items() if file not in live),
        len(log), tuple(sorted(touched, key=repr)),
    )  # fmt: skip


def rewrite(path: Path, person: Person, partitions: Sequence[tuple[tuple[str, Any], ...]]) -> None:
    """Write these partitions anew without the person, in a commit each."""
    for partition in partitions:
        target = DeltaTable(str(path))
        schema = pa.schema(target.schema().to_arrow())
        where = [(name, "in", [str(value)]) for name, value in partition]
        rows = target.to_pyarrow_dataset(file_pruning_predicate=where or None)

        def others(rows: Any = rows, schema: pa.Schema = schema) -> Iterator[pa.RecordBatch]:
            for batch in rows.to_batches(batch_size=_ROWS, use_threads=False):
                left = person.without(pa.Table.from_batches([batch]))
                yield from left.select(schema.names).cast(schema).to_batches()

        reach(f"forget.{path.name}.before_commit")
        write_deltalake(
            target,
            pa.RecordBatchReader.from_batches(schema, others()),
            mode="overwrite",
            predicate=predicate(dict(partition), quoted=_quoted) if partition else None,
            commit_properties=_properties(target),
        )
        reach(f"forget.{path.name}.after_commit")


def say_again(path: Path) -> None:
    """Before the history goes: a commit without rows that says what the last publication said, where the latest commit
    is none of `rewrite`, which says it already. Nothing where nothing was published."""
    target = DeltaTable(str(path))
    if _published(target) and not is_own_commit(path):
        nothing = pa.Table.from_pylist([], schema=pa.schema(target.schema().to_arrow()))
        write_deltalake(target, nothing, mode="append", commit_properties=_properties(target))


def drop_history(path: Path) -> None:
    """Leave only the latest version of a table: a checkpoint, its commit, the files that it names.

    There is no way back to an earlier version, and whoever still reads one fails. The change feed begins anew.
    """
    target = DeltaTable(str(path))
    target.create_checkpoint()
    version = f"{target.version():020d}"
    reach(f"forget.{path.name}.after_checkpoint")
    kept = re.compile(rf"{version}\.(json|checkpoint\..*parquet|checkpoint\.parquet)|_last_checkpoint")
    # The log first, from its beginning: no version is offered whose files are gone.
    for file in sorted((path / "_delta_log").rglob("*")):
        if file.is_file() and not kept.fullmatch(file.name):
            file.unlink()
            reach(f"forget.{path.name}.in_log")
    live = _live(target)
    for file in sorted(path.rglob("*")):
        inside = file.relative_to(path)
        if file.is_file() and inside.parts[0] != "_delta_log" and str(inside) not in live:
            file.unlink()
            reach(f"forget.{path.name}.in_files")
    for folder in sorted((f for f in path.rglob("*") if f.is_dir()), reverse=True):
        if folder.name != "_delta_log":
            with suppress(OSError):  # not empty
                folder.rmdir()


def empty(path: Path, where: dict[str, date | str] | None = None) -> None:
    """Take out all rows of a table, or of the partitions that `where` names; earlier versions stay until their end."""
    target = DeltaTable(str(path))
    target.delete(predicate(where, quoted=_quoted) if where else None, commit_properties=_properties(target))


def version(path: Path) -> int:
    """A table's latest version."""
    return int(DeltaTable(str(path)).version())


def is_own_commit(path: Path) -> bool:
    """Whether the latest commit is of `rewrite`."""
    told = json.loads(DeltaTable(str(path)).history(1)[0].get("userMetadata") or "{}")
    return bool(told.get("stage") == STAGE)


def put(warehouse: str, table: Table, rows: Sequence[dict[str, Any]], where: dict[str, date | str]) -> None:
    """Replace the rows that `where` names, in a table of plain columns; without Spark, also where there is no table."""
    place = f"{warehouse}/{table.name}"
    fields = [
        {"name": c.name, "type": _TYPES.get(c.type, c.type), "nullable": c.nullable, "metadata": {"comment": c.meaning}}
        for c in table.columns
    ]
    DeltaTable.create(
        place, Schema.from_json(json.dumps({"type": "struct", "fields": fields})), mode="ignore",
        partition_by=list(table.partition) or None, raise_if_key_not_exists=False,
        configuration=_PROPERTIES | {f"delta.constraints.{c.name}": c.check for c in table.columns if c.check},
    )  # fmt: skip
    target = DeltaTable(place)
    data = pa.Table.from_pylist(list(rows), schema=pa.schema(target.schema().to_arrow()))
    condition = predicate(where, quoted=_quoted)
    write_deltalake(target, data, mode="overwrite", predicate=condition, commit_properties=_properties(target))


def batches(file: Path) -> Iterator[pa.RecordBatch]:
    """A Parquet file's columns that may hold text."""
    with pq.ParquetFile(file) as opened:
        names = [field.name for field in opened.schema_arrow if may_hold_text(field.type)]
        if names:
            yield from opened.iter_batches(batch_size=_ROWS, columns=names, use_threads=False)


def says(file: Path, person: Person) -> bool:
    """Whether a file says the person: in its bytes, in what gzip holds, in the values of a Parquet file."""
    if file.suffix == ".parquet" and has_values_of(file, person):
        return True
    with file.open("rb") as stream:
        is_packed = stream.peek(2)[:2] == b"\x1f\x8b"
        if person.said_by(stream):
            return True
    if not is_packed:
        return False
    with suppress(gzip.BadGzipFile, EOFError, zlib.error), gzip.open(file) as inner:
        return person.said_by(inner)
    return False


def has_values_of(file: Path, person: Person) -> bool:
    """Whether values of a Parquet file, but those of items, are or say the person."""
    return any(_count(batch, person) for batch in batches(file))


def _count(batch: pa.RecordBatch, person: Person) -> int:
    return int((person.own(batch) | person.mentioned(batch)).sum())


def _data(path: Path) -> list[str]:
    """Every Parquet file of a table's folder but its log's, by its place there."""
    found = (file.relative_to(path) for file in path.rglob("*.parquet"))
    return sorted(str(file) for file in found if file.parts[0] != "_delta_log")


def _live(target: DeltaTable) -> set[str]:
    return set(_partition_values(target)[0])


def _partition_values(target: DeltaTable) -> tuple[list[str], list[tuple[tuple[str, Any], ...]]]:
    """Each live file's place in the table's folder, and its partition."""
    from urllib.parse import unquote

    files = pa.table(target.get_add_actions(flatten=True)).to_pylist()
    names = target.metadata().partition_columns
    return (
        [unquote(file["path"]) for file in files],
        [tuple((name, file[f"partition.{name}"]) for name in names) for file in files],
    )


def _published(target: DeltaTable) -> dict[str, Any]:
    """What the last publication said, when, and the last way back before it: who is served, and what was left behind,
    is known by the log alone (past.undo), whatever commits followed."""
    if Path(target.table_uri).name != PUBLISHED_TOPK.name:
        return {}
    commits = target.history()
    said = [{"written": each["timestamp"], **json.loads(each.get("userMetadata") or "{}")} for each in commits]
    last = next((each for each in said if "night" in each), {})
    back = next((each.get("way_back", each) for each in said if {"instead_of", "way_back"} & set(each)), None)
    return last if back is None or "instead_of" in last else {**last, "way_back": back}


def _properties(target: DeltaTable) -> CommitProperties:
    # A commit of the store's own application: an attempt that began before is fenced.
    token = (target.transaction_version(APPLICATION) or 0) + 1
    said = {**_published(target), "run_id": STAGE, "stage": STAGE}
    return CommitProperties(
        custom_metadata={"userMetadata": json.dumps(said, sort_keys=True)},
        app_transactions=[Transaction(APPLICATION, token)],
    )
