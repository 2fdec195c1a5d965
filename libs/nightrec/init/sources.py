"""What a file of events holds, as batches of text columns: delimited text, JSON lines or Parquet, also compressed."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from nightrec.errors import BadInput, UsageError

# Tried in this order; MovieLens-1M writes "::", which Arrow reads as ":" with empty columns between.
DELIMITERS = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar", "::": "double colon"}
HEAD = 1 << 18
BATCH_ROWS = 200_000
NULLS = ["", "NULL", "null", "\\N"]


@dataclass
class Source:
    """One file of events: how to read it, and its columns. `skipped` counts lines with a wrong number of cells."""

    path: Path
    kind: Literal["csv", "jsonl", "parquet"]
    names: tuple[str, ...]
    delimiter: str = ""
    has_header: bool = True
    encoding: str = "utf8"
    skipped: int = field(default=0)

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The named columns (all) as text, some 200,000 rows at a time; cells that hold lists or maps are null.

        Raises BadInput where the file breaks off or stops being a table.
        """
        wanted = list(columns or self.names)
        self.skipped = 0
        read = {"csv": self._csv, "jsonl": self._jsonl, "parquet": self._parquet}[self.kind]
        try:
            for batch in read(wanted):
                yield pa.table({name: as_text(batch, name) for name in wanted})
        except (pa.ArrowInvalid, OSError, EOFError) as error:
            raise BadInput(f"{self.path} cannot be read to its end: {str(error).splitlines()[0]}") from None

    def _csv(self, wanted: list[str]) -> Iterator[pa.RecordBatch]:
        def skip(_: Any) -> str:
            self.skipped += 1
            return "skip"

        width = 2 if self.delimiter == "::" else 1
        spread = [cell for name in self.names for cell in (name, *(f"_{name}_{n}" for n in range(1, width)))]
        names = spread[: len(spread) - (width - 1)]
        reader = pa_csv.open_csv(
            pa.input_stream(str(self.path)),
            # one thread: Arrow calls the handler of a bad line from any of its threads
            read_options=pa_csv.ReadOptions(
                column_names=names,
                skip_rows=int(self.has_header),
                block_size=1 << 23,
                encoding=self.encoding,
                use_threads=False,
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=self.delimiter[0],
                invalid_row_handler=skip,
                newlines_in_values=True,
                quote_char=False if width == 2 else '"',
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=wanted,
                null_values=NULLS,
                strings_can_be_null=True,
            ),
        )
        yield from reader

    def _jsonl(self, _: list[str]) -> Iterator[pa.RecordBatch]:
        options = pa_json.ReadOptions(block_size=1 << 23, use_threads=False)
        yield from pa_json.open_json(pa.input_stream(str(self.path)), read_options=options)

    def _parquet(self, wanted: list[str]) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.path) as file:
            yield from file.iter_batches(BATCH_ROWS, columns=wanted)


def as_text(batch: pa.RecordBatch, name: str) -> pa.Array:
    """A column as text; whole numbers stay whole; null where it is missing or holds lists, structs or maps."""
    if name not in batch.schema.names:
        return pa.nulls(batch.num_rows, pa.string())
    column = batch.column(name)
    if pa.types.is_nested(column.type) or pa.types.is_null(column.type):
        return pa.nulls(len(column), pa.string())
    if pa.types.is_floating(column.type):
        # 1.3e12 (epoch milliseconds beside a null, as pandas writes them) would print as 1.3e+12
        whole = column.cast(pa.int64(), safe=False)
        exact = pc.and_(
            pc.equal(whole.cast(pa.float64(), safe=False), column.cast(pa.float64())), pc.less(pc.abs(column), 2**53)
        )
        return pc.if_else(exact, whole.cast(pa.string()), column.cast(pa.string()))
    text = column.cast(pa.string())
    return (
        pc.if_else(pc.is_in(text, value_set=pa.array(NULLS)), None, text) if pa.types.is_string(column.type) else text
    )


def open_source(path: Path) -> Source:
    """How a file is read, by its beginning. Raises UsageError where it is missing, BadInput where it is none."""
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    try:
        with pa.input_stream(str(path)) as stream:
            head = stream.read(HEAD)
    except (OSError, EOFError) as error:
        raise BadInput(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    if not head.strip():
        raise BadInput(f"{path} is empty: nothing to recommend from")
    if head[:4] == b"PAR1":
        return _parquet_source(path)
    if b"\0" in head:
        raise BadInput(f"{path} is not a table: it holds binary data that is not Parquet")
    if head.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == b"{":
        return _jsonl_source(path)
    return _csv_source(path, head)


def _parquet_source(path: Path) -> Source:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadInput(f"{path} is not whole Parquet: {str(error).splitlines()[0]}") from None
    return Source(path, "parquet", tuple(schema.names))


def _jsonl_source(path: Path) -> Source:
    try:
        first = next(
            iter(pa_json.open_json(pa.input_stream(str(path)), read_options=pa_json.ReadOptions(use_threads=False)))
        )
    except (pa.ArrowInvalid, OSError, EOFError) as error:
        raise BadInput(f"{path} is not JSON lines (one object per line): {str(error).splitlines()[0]}") from None
    return Source(path, "jsonl", tuple(first.schema.names))


def _csv_source(path: Path, head: bytes) -> Source:
    encoding = "utf8"
    try:
        text = head.decode("utf-8-sig", errors="strict" if len(head) < HEAD else "ignore")
    except UnicodeDecodeError:
        encoding, text = "latin-1", head.decode("latin-1")
    lines = text.splitlines()
    # the last line of a full head may be cut
    lines = [line for line in (lines[:-1] if len(head) == HEAD else lines) if line.strip()][:500]
    for delimiter in DELIMITERS:
        if delimiter == "::":
            table = [line.split(delimiter) for line in lines]
        else:
            table = list(csv.reader(io.StringIO("\n".join(lines)), delimiter=delimiter))
        width = max({len(row) for row in table}, key=[len(row) for row in table].count)
        if width >= 3 and sum(len(row) == width for row in table) >= 0.9 * len(table):
            header = is_header(table[0])
            if header and len(table) == 1:
                raise BadInput(f"{path} holds a header and no events")
            names = [cell.strip() for cell in table[0]] if header else []
            if len(set(names)) < width or "" in names:
                names = [f"column_{n + 1}" for n in range(width)]
            return Source(path, "csv", tuple(names), delimiter, header, encoding)
    raise BadInput(
        f"{path} is not a table of events: no {', '.join(DELIMITERS.values())} splits its lines into three columns or"
        " more (user, item, time); JSON lines and Parquet are read too"
    )


def is_header(row: list[str]) -> bool:
    """A header is a first row without numbers and dates: a row of events always has a time."""
    return not any(re.fullmatch(r"\s*[-+]?[\d.,:/TZ +\-]*\d[\d.,:/TZ +\-]*", cell) for cell in row)
