"""Raw files and exports without a person, and what in them says one: read as cleaning reads them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from nightrec.privacy import purge
from nightrec.privacy.person import OF_ITEMS, Person
from nightrec.raw_files import file_format

# The end of a line, and a carriage return that is none where lines end otherwise.
_END, _LONE = re.compile(rb"\r\n|\r|\n"), re.compile(r"\r(?!\n|\Z)")


def without(file: Path, temporary: Path, person: Person) -> int:
    """Write a raw file without the person as `temporary`, where it has them; the lines that said them."""
    form = file_format(file.name)
    if form == "parquet":
        return _parquet_without(file, temporary, person)
    others = _csv_without if form == "csv" else partial(_lines_without, is_repair=form == "repair")
    with _opened(file) as lines:
        count = sum(is_changed for _, is_changed in others(lines, person))
    if count:
        with _opened(file) as lines, temporary.open("wb") as target:
            # A fixed time in the header keeps the bytes the same.
            packed = gzip.GzipFile("", "wb", fileobj=target, mtime=0) if _is_packed(file) else target
            packed.writelines(line for line, _ in others(lines, person))
            if packed is not target:
                packed.close()
            target.flush()
            os.fsync(target.fileno())
    return count


def _is_packed(file: Path) -> bool:
    return file.name.lower().endswith(".gz")


def _opened(file: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(file)) if _is_packed(file) else file.open("rb")


def _lines_without(chunks: Iterable[bytes], person: Person, *, is_repair: bool) -> Iterator[tuple[bytes, bool]]:
    """Lines of JSON or broken ones, and whether each is changed: the person's are empty, others' do not say them.

    Like Hadoop's reader, by which cleaning reads, lines end at a carriage return too. A line of a `.repair` file is
    whose the line in its `raw` is.
    """
    needles = tuple(own.encode() for own in person.ids)
    for line in (line for chunk in chunks for line in chunk.splitlines(keepends=True)):
        if not any(needle in line for needle in needles) and b"\\" not in line:
            yield line, False
            continue
        end = line[len(line.rstrip(b"\r\n")) :]
        outer = _fields(line) if is_repair else None
        if outer is not None and isinstance(outer.get("raw"), str):
            inner, is_changed = _line_without(outer["raw"].encode("utf-8", "surrogatepass"), person)
            outer = outer | {"raw": inner.decode("utf-8", "replace")}
            left = _json(outer) if inner else b""
        else:
            left, is_changed = _line_without(line.rstrip(b"\r\n"), person)
        yield (left + end if left else b"", True) if is_changed else (line, False)


def _line_without(line: bytes, person: Person) -> tuple[bytes, bool]:
    """One line likewise, without its end."""
    fields = _fields(line)
    if person.is_own_line(line.decode("utf-8", "replace")) or (fields is None and person.said_in(line)):
        return b"", True
    if fields is None:
        return line, False
    scrubbed = person.scrubbed(fields)
    left = _json(scrubbed)
    # Of a name that stands there twice, fields have the last value alone, as cleaning does.
    is_changed = scrubbed != fields or (person.said_in(line) and not person.said_in(left))
    return (left, True) if is_changed else (line, False)


def _fields(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line.decode("utf-8", "replace").removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _json(value: object) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a character, which only an escape can write
        return json.dumps(value).encode()


def _csv_without(chunks: Iterable[bytes], person: Person) -> Iterator[tuple[bytes, bool]]:
    """Rows of CSV likewise; others' cells are quoted anew where they said the person."""
    at: list[int] = []
    header: list[str] = []
    for row, as_it_came in _csv_rows(chunks):
        if not header:  # empty lines may stand before it
            header, at = row, [place for place, name in enumerate(row) if name == "user_id"]
        if any(place < len(row) and row[place] in person.ids for place in at):
            yield b"", True
            continue
        names = [*header, *[""] * len(row)]
        scrubbed = [person.scrubbed(cell, name) for cell, name in zip(row, names, strict=False)]
        yield (as_it_came, False) if scrubbed == row else (_csv(scrubbed), True)


def _csv_rows(chunks: Iterable[bytes]) -> Iterator[tuple[list[str], bytes]]:
    """Rows of CSV, each with its bytes. As for Spark, the first end of a line says whether carriage returns are ends;
    where they are not, one alone is a blank here."""
    came: list[bytes] = []

    def texts() -> Iterator[str]:
        first = _END.search(head) if (head := next(rest, b"")) else None
        by_returns = first is not None and first[0] == b"\r"
        for number, chunk in enumerate(chain([head], rest)):
            for line in chunk.splitlines(keepends=True) if by_returns else [chunk]:
                came.append(line)
                text = _LONE.sub(" ", line.decode("utf-8", "replace"))
                yield text if number else text.removeprefix("\ufeff")

    rest = iter(chunks)
    csv.field_size_limit(2**31 - 1)  # of the whole process; a cell may be longer than Python's 131,072 characters
    for row in csv.reader(texts()):
        yield row, b"".join(came)
        came.clear()


def _csv(row: Sequence[str]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerow(row)
    return out.getvalue().encode()


def _parquet_without(file: Path, temporary: Path, person: Person) -> int:
    # Times of 12 bytes, read as nanoseconds, would be written as such, which cleaning refuses.
    with pq.ParquetFile(file, coerce_int96_timestamp_unit="us") as opened:
        count = sum(int((person.own(_strings(b)) | person.mentioned(b)).sum()) for b in opened.iter_batches())
        if not count:
            return 0
        schema = _as_spark_reads(opened)
        with pq.ParquetWriter(temporary, schema) as writer:
            for group in range(opened.num_row_groups):
                rows = opened.read_row_group(group)
                own = pa.array(~person.own(_strings(rows)))
                writer.write_table(person.without(rows.filter(own)).cast(schema))
    return count


def _as_spark_reads(opened: pq.ParquetFile) -> pa.Schema:
    """A file's columns, with times of 12 bytes as the moments of UTC that they are for Spark."""
    leaves = [opened.schema.column(place) for place in range(len(opened.schema))]
    moments = {leaf.path for leaf in leaves if leaf.physical_type == "INT96"}
    fields = [f.with_type(pa.timestamp("us", "UTC")) if f.name in moments else f for f in opened.schema_arrow]
    return pa.schema(fields, opened.schema_arrow.metadata)


def _strings(rows: pa.Table | pa.RecordBatch) -> pa.Table:
    """Only the user_id, as text: a log may have numbers."""
    if "user_id" not in rows.schema.names:
        return pa.table({"_": pa.nulls(rows.num_rows)})
    return pa.table({"user_id": rows["user_id"].cast(pa.string())})


def says_beside_items(file: Path, person: Person) -> bool:
    """Whether a file that says the person says them otherwise than as an item's id; True of other kinds of files."""
    form = file_format(file.name)
    if form is None:
        return True
    if form == "parquet":
        schema = pq.read_schema(file)
        footer = " ".join(schema.names).encode() + b" ".join((schema.metadata or {}).values())
        return person.said_in(footer) or purge.has_values_of(file, person)
    with _opened(file) as chunks:
        texts = _csv_beside_items(chunks) if form == "csv" else _lines_beside_items(chunks, is_repair=form == "repair")
        return any(person.said_in(text) for text in texts)


def _lines_beside_items(chunks: Iterable[bytes], *, is_repair: bool) -> Iterator[bytes]:
    """Lines of JSON without the values that name items; broken ones whole."""

    def beside(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        items = OF_ITEMS - ({"list_key"} if ("list_kind", "user") in pairs else set())
        return [(name, value) for name, value in pairs if name not in items]

    for line in (line for chunk in chunks for line in chunk.splitlines()):
        try:
            text = line.decode().removeprefix("\ufeff")
            if is_repair:
                outer = json.loads(text)
                yield str(outer["line_id"]).encode()
                text = outer["raw"]
            yield _json(json.loads(text, object_pairs_hook=beside))
        except (ValueError, TypeError, KeyError, RecursionError):
            yield line


def _csv_beside_items(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Rows of CSV likewise; those of another width than the header's whole."""
    header: list[str] = []
    for row, as_it_came in _csv_rows(chunks):
        if header and len(row) == len(header):
            cells = (cell for cell, name in zip(row, header, strict=True) if name not in OF_ITEMS)
            yield "\n".join(cells).encode()
        else:
            header = header or row
            yield as_it_came
