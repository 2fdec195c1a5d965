"""A file of events as a raw root in the contract, and a look at a raw root that is there already."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pa_dataset
import pyarrow.parquet as pq

from nightrec.errors import BadInput
from nightrec.init.columns import Guess
from nightrec.init.look import Figures, Look
from nightrec.init.sources import Source, open_source
from nightrec.init.times import ISO, objects, parsed_times
from nightrec.init.words import event_type

# Rows that are sorted by date in memory at once, some 100 bytes each.
BUCKET_ROWS = 4_000_000
CARRIED = ("event_id", "text")
_EPOCH = date(1970, 1, 1)
_DAY_RANGE = ((date(1990, 1, 1) - _EPOCH).days, (date(2100, 1, 1) - _EPOCH).days)
_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("event_type", pa.string()),
        ("event_ts", pa.string()),
        ("value", pa.float64()),
        ("event_id", pa.string()),
        ("text", pa.string()),
        ("_ts", pa.timestamp("us", "UTC")),
        ("_day", pa.int32()),
    ]
)


def convert_file(source: Source, guess: Guess, raw: Path) -> tuple[Figures, int]:
    """Write `raw`/events/ingest_date=.../events.parquet: one file per date of event, in the file's order.

    Every row of the file is written: one whose time cannot be read stands, as it came, in the last folder, where the
    night rejects and counts it. Returns the figures and the number of values that are no numbers (left empty).
    Memory: one bucket of rows; the whole file passes through one temporary Parquet file beside `raw`.
    """
    raw.parent.mkdir(parents=True, exist_ok=True)
    flat, part = raw.parent / f".{raw.name}.flat.parquet", raw.parent / f".{raw.name}.partial"
    shutil.rmtree(part, ignore_errors=True)
    try:
        per_day, lost = _flatten(source, guess, flat)
        dated = dict(sorted((day, rows) for day, rows in per_day.items() if day is not None))
        if not dated:
            raise BadInput(f"{source.path}: not one row has a time that reads as {guess.time_format}")
        look = Look()
        for days in _buckets(dated):
            _write_bucket(flat, days, None in per_day and days[-1] == max(dated), part, look)
        part.rename(raw)
        return look.figures(), lost
    finally:
        flat.unlink(missing_ok=True)
        shutil.rmtree(part, ignore_errors=True)


def _flatten(source: Source, guess: Guess, flat: Path) -> tuple[dict[int | None, int], int]:
    """Pass one: the contract's columns and the day of every row; rows per day (None: without a readable time)."""
    per_day: dict[int | None, int] = {}
    lost = 0
    wanted = [
        *guess.columns.values(),
        *(name for name in CARRIED if name in source.names and name not in guess.columns.values()),
    ]
    with pq.ParquetWriter(flat, _SCHEMA) as writer:
        for batch in source.batches(wanted):
            table, bad_values = _contract(batch, guess)
            lost += bad_values
            for entry in pc.value_counts(table["_day"]).to_pylist():
                per_day[entry["values"]] = per_day.get(entry["values"], 0) + entry["counts"]
            writer.write_table(table)
    return per_day, lost


def _contract(batch: pa.Table, guess: Guess) -> tuple[pa.Table, int]:
    """A batch in the contract's columns, and how many of its values are no numbers."""
    named = guess.columns

    def text(column: str | None) -> pa.Array:
        if column is None or column not in batch.column_names:
            return pa.nulls(batch.num_rows, pa.string())
        chunks = batch[column].combine_chunks()
        return pc.replace_substring_regex(chunks, r"\.0$", "") if column in guess.whole_numbers else chunks

    written = text(named["time"])
    times = parsed_times(written, guess.time_format)
    stamps = pa.Array.from_pandas(times).cast(pa.timestamp("us", "UTC"), safe=False)
    days = stamps.cast(pa.timestamp("us")).cast(pa.date32(), safe=False).cast(pa.int32())
    low, high = _DAY_RANGE
    days = pc.if_else(pc.and_(pc.greater_equal(days, low), pc.less(days, high)), days, None)
    iso = pc.strftime(stamps, "%Y-%m-%dT%H:%M:%SZ")
    kinds = pa.array([guess.default_type], pa.string()).take(pa.array(np.zeros(batch.num_rows, np.int64)))
    if "type" in named:
        coded = text(named["type"]).dictionary_encode()
        kinds = pa.array([event_type(word) for word in coded.dictionary.to_pylist()], pa.string()).take(coded.indices)
    values = text(named.get("value"))
    parsed = pd.to_numeric(objects(values), errors="coerce").to_numpy(dtype=float)
    numbers = pa.array(parsed, from_pandas=True)
    columns = [
        text(named["user"]),
        text(named["item"]),
        kinds,
        pc.coalesce(iso, written),
        numbers,
        *(text(name) for name in CARRIED),
        stamps,
        days,
    ]
    return pa.Table.from_arrays(columns, schema=_SCHEMA), int(numbers.null_count - values.null_count)


def _buckets(per_day: dict[int, int]) -> Iterator[list[int]]:
    """Days in order, as many together as BUCKET_ROWS allow."""
    days: list[int] = []
    held = 0
    for day, rows in per_day.items():
        if days and held + rows > BUCKET_ROWS:
            yield days
            days, held = [], 0
        days.append(day)
        held += rows
    yield days


def _write_bucket(flat: Path, days: list[int], with_undated: bool, part: Path, look: Look) -> None:
    """Pass two: the rows of some days, in the file's order within a day, each day in its folder."""
    field = pa_dataset.field("_day")
    wanted = (field >= days[0]) & (field <= days[-1])
    table = pa_dataset.dataset(flat).to_table(filter=(wanted | field.is_null()) if with_undated else wanted)
    look.add(
        table["user_id"].combine_chunks(),
        table["item_id"].combine_chunks(),
        table["event_type"].combine_chunks(),
        pd.Series(pc.if_else(pc.is_valid(table["_day"]), table["_ts"], None).to_pandas()),
    )
    day = pc.fill_null(table["_day"], days[-1])
    order = np.argsort(day.to_numpy(), kind="stable")
    table, day = table.take(order), day.to_numpy()[order]
    empty = [name for name in ("value", *CARRIED) if table[name].null_count == len(table)]
    table = table.drop_columns(["_ts", "_day", *empty])
    edges = [*np.flatnonzero(np.diff(day, prepend=day[0] - 1)).tolist(), len(day)]
    for start, end in pairwise(edges):
        folder = part / "events" / f"ingest_date={_EPOCH + timedelta(days=int(day[start]))}"
        folder.mkdir(parents=True)
        pq.write_table(table.slice(start, end - start), folder / "events.parquet")


def ingest_dates(raw: Path) -> list[tuple[date, Path]]:
    """The ingest folders of a raw root in order of date; folders with other names are passed over."""
    found = []
    for folder in sorted((raw / "events").glob("ingest_date=*")):
        try:
            found.append((date.fromisoformat(folder.name.removeprefix("ingest_date=")), folder))
        except ValueError:
            continue
    return found


def look_at(raw: Path) -> tuple[Figures, list[Path]]:
    """Figures of a raw root, and the files that cannot be read whole (left out here; the night says which lines)."""
    look, unread = Look(), []
    for _, folder in ingest_dates(raw):
        tables = []
        for file in sorted(
            path for path in folder.iterdir() if path.is_file() and not path.name.startswith(("_", "."))
        ):
            try:
                tables += list(open_source(file).batches(["user_id", "item_id", "event_type", "event_ts"]))
            except BadInput:
                unread.append(file)
        if tables:
            table = pa.concat_tables(tables).combine_chunks()
            column = {name: table[name].combine_chunks() for name in table.column_names}
            look.add(column["user_id"], column["item_id"], column["event_type"], _any_time(column["event_ts"]))
    return look.figures(), unread


def _any_time(text: pa.Array) -> pd.Series:
    """Times as the contract allows them: ISO 8601 or epoch milliseconds, cell by cell."""
    is_number = pc.fill_null(pc.match_substring_regex(text, r"^\d+$"), False)
    times = parsed_times(pc.if_else(is_number, None, text), ISO)
    if pc.any(is_number).as_py():
        times = times.fillna(parsed_times(pc.if_else(is_number, text, None), "epoch milliseconds"))
    return times
