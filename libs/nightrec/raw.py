"""The raw door: the only code that reads what a user brings (JSON lines, CSV or Parquet in ingest_date folders).

Everything comes in as strings, exactly as logged: 64-bit ids and epoch milliseconds keep all their digits. What a
value means is decided behind the door, except for timestamps, lists and maps: events and profiles read them alike.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from nightrec.errors import BadInput

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

EVENT_FIELDS = ("user_id", "item_id", "event_type", "event_ts", "event_id", "value", "text", "sent_ts", "received_ts")
_ITEM_TYPES = {
    "item_id": "string", "title": "string", "description": "string",
    "categories": "array<string>", "tags": "array<string>", "attributes": "map<string,string>",
    "available_from": "timestamp", "available_until": "timestamp",
}
_USER_TYPES = {"user_id": "string", "attributes": "map<string,string>", "blocked_items": "array<string>"}
_FORMATS = {
    ".jsonl": "json", ".jsonl.gz": "json", ".json": "json", ".json.gz": "json",
    ".csv": "csv", ".csv.gz": "csv", ".parquet": "parquet",
}
_FOLDER = re.compile(r"ingest_date=(\d{4}-\d{2}-\d{2})")

# ISO-8601 to the minute or finer, or a bare date. Spark's own cast also takes "10:00", which it dates today.
_ISO = r"^(?!0000)\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)? ?(Z|UTC|[+-]\d{2}(:?\d{2})?)?)?$"
# 14 digits of milliseconds reach the year 5138; more would overflow the conversion.
_MILLISECONDS = r"^-?\d{1,14}$"


def ingest_dates(root: str, kind: str) -> list[date]:
    """Ingest dates that have a folder under `root`/`kind` (events, items or users), sorted.

    Hidden names and names of another shape are passed over. Raises BadInput where the root or its `events` folder is
    missing, or a folder names a day that no calendar has; a root without `items` or `users` has none.
    """
    children = _children(f"{root}/{kind}")
    if children is None:
        if _children(root) is None:
            raise BadInput(f"raw root {root} does not exist; paths.raw in the config names it")
        if kind == "events":
            raise BadInput(f"raw root {root} has no folder events; expected {root}/events/ingest_date=YYYY-MM-DD/*")
        return []
    found = []
    for name, is_folder in children:
        match = _FOLDER.fullmatch(name)
        if match and is_folder:
            try:
                found.append(date.fromisoformat(match[1]))
            except ValueError:
                raise BadInput(f"{root}/{kind}/{name}: {match[1]} is not a day of the calendar") from None
    return sorted(found)


def events(spark: SparkSession, root: str, dates: Sequence[date]) -> DataFrame:
    """One row per raw line of the given ingest dates; blank lines are no lines. Lazy: read it under `readable`.

    Columns: ingest_date date, file (name inside the folder), raw (the line as it came; Parquet and CSV rows as JSON),
    the strings of EVENT_FIELDS, context map<string,string>, and _corrupt: the line where it is not one JSON object of
    this shape in UTF-8 (or one CSV row as wide as the header), else NULL. Raises BadInput for files of unknown kind.
    """
    paths = [path for day in sorted(dates) for path in _files(root, "events", day)]
    return _read(spark, paths, EVENT_FIELDS, ("context",))


def items(spark: SparkSession, root: str, as_of: date) -> DataFrame | None:
    """The latest catalogue snapshot not after `as_of`, one row per item_id; None where there is none.

    Columns: item_id, title, description, categories array, tags array, attributes map, available_from and
    available_until timestamp; NULL where the snapshot does not say. Rows without an id, and broken lines, are left out;
    of several rows with one id the largest by content is kept. Lists may also be given as text: a|b.
    """
    return _snapshot(spark, root, "items", as_of, _ITEM_TYPES)


def users(spark: SparkSession, root: str, as_of: date) -> DataFrame | None:
    """The latest user snapshot not after `as_of`, one row per user_id, by the rules of `items`; None without one.

    Columns: user_id, attributes map<string,string>, blocked_items array<string>.
    """
    return _snapshot(spark, root, "users", as_of, _USER_TYPES)


def timestamp(text: Column) -> Column:
    """A logged time as a timestamp: ISO-8601 (without a zone: UTC; a bare date: its midnight) or epoch milliseconds.

    NULL where it is neither. Epoch seconds are not guessed at: they land in January 1970, which cleaning rejects.
    """
    trimmed = F.trim(text)
    milliseconds = F.when(trimmed.rlike(_MILLISECONDS), trimmed).try_cast("bigint")
    iso = F.when(trimmed.rlike(_ISO), trimmed).try_cast("timestamp")
    return F.coalesce(F.timestamp_millis(milliseconds), iso)


def is_blank(text: Column) -> Column:
    """Whether a text is missing or holds nothing but white space of any script."""
    return ~F.coalesce(text, F.lit("")).rlike(r"[^\s\p{Z}]")


@contextmanager
def readable() -> Iterator[None]:
    """Turn Spark's failure on a raw file, wherever the lazy frame is run, into BadInput that names the file.

    Nothing is read twice to find a truncated gzip or a Parquet file that is none: the night's own pass meets it.
    """
    try:
        yield
    except Exception as error:
        text = "\n".join(str(cause) for cause in _causes(error))
        match = re.search(r"FAILED_READ_FILE[^\n]*? reading file (\S[^\n]*?/ingest_date=[^/\n]+/[^\n]*?)\.(\s|$)", text)
        if match is None:
            raise
        name = urllib.parse.unquote(re.sub(r"^file:/+", "/", match[1]))
        raise BadInput(f"{name} cannot be read: {_why(text)}; mend or remove it and run again") from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _why(text: str) -> str:
    reasons = re.findall(r"(?:ZipException|EOFException|IOException|RuntimeException): ([^\n]+)", text)
    return reasons[-1].strip() if reasons else "it is damaged or not what its name says"


def _children(folder: str) -> list[tuple[str, bool]] | None:
    """Names in a folder, each with whether it is a folder; None where it does not exist. Hidden ones left out."""
    if "://" not in folder:
        if not Path(folder).is_dir():
            return None
        found = [(child.name, child.is_dir()) for child in Path(folder).iterdir()]
    else:
        from pyspark.sql import SparkSession

        spark: Any = SparkSession.active()
        path = spark._jvm.org.apache.hadoop.fs.Path(folder)
        system = path.getFileSystem(spark._jsc.hadoopConfiguration())
        if not system.exists(path):
            return None
        found = [(status.getPath().getName(), bool(status.isDirectory())) for status in system.listStatus(path)]
    return sorted(child for child in found if not child[0].startswith((".", "_")))


def _files(root: str, kind: str, day: date) -> list[str]:
    """Data files of one ingest date. BadInput names what is neither hidden nor of a known kind: no line goes unseen."""
    folder = f"{root}/{kind}/ingest_date={day}"
    paths = []
    for name, is_folder in _children(folder) or []:
        if is_folder:
            raise BadInput(f"{folder}/{name} is a folder; files are expected directly in {folder}")
        if _format(name) is None:
            known = ", ".join(_FORMATS)
            raise BadInput(f"{folder}/{name}: unknown kind of file; known are {known} (a _ in front has it ignored)")
        paths.append(f"{folder}/{name}")
    return paths


def _format(name: str) -> str | None:
    return next((form for suffix, form in _FORMATS.items() if name.lower().endswith(suffix)), None)


def _read(spark: SparkSession, paths: Sequence[str], strings: Sequence[str], maps: Sequence[str] = ()) -> DataFrame:
    """ingest_date, file, raw, the named strings and maps, _corrupt: of all the files, by their kinds."""
    readers: dict[str, Callable[..., DataFrame]] = {"json": _json, "csv": _csv, "parquet": _parquet}
    frames = []
    with readable():
        for form, reader in readers.items():
            chosen = [path for path in paths if _format(path) == form]
            if chosen:
                frames.append(reader(spark, chosen, strings, maps))
    if not frames:
        fields = [*(f"{name} string" for name in strings), *(f"{name} map<string,string>" for name in maps)]
        schema = f"ingest_date date, file string, raw string, {', '.join(fields)}, _corrupt string"
        return spark.createDataFrame([], schema)
    return reduce(lambda left, right: left.unionByName(right), frames)


def _place() -> list[Column]:
    """The ingest date and file name of a row, from its path: a column of the file cannot contradict the folder."""
    day = F.regexp_extract(F.col("_metadata.file_path"), r"ingest_date=([0-9-]{10})/[^/]*$", 1)
    # Spark gives the name as part of a URI, in which a + stands for itself.
    name = F.url_decode(F.replace(F.col("_metadata.file_name"), F.lit("+"), F.lit("%2B")))
    return [day.cast("date").alias("ingest_date"), name.alias("file")]


# File names are names, not patterns: a [ in one must not be expanded.
_AS_NAMED = {"__globPaths__": "false"}


def _json(spark: SparkSession, paths: list[str], strings: Sequence[str], maps: Sequence[str]) -> DataFrame:
    """JSON lines, each parsed once.

    The line is parsed inside {"e":[...]}: alone, Spark would read `{...} rubbish`, and of `{...}{...}` only the first.
    """
    text = spark.read.options(**_AS_NAMED).text(paths).select(*_place(), F.col("value").alias("_line"))
    fields = [*(f"{name} string" for name in strings), *(f"{name} map<string,string>" for name in maps)]
    schema = f"e array<struct<{', '.join(field.replace(' ', ':', 1) for field in fields)}>>, _corrupt string"
    wrapped = F.concat(F.lit('{"e":['), F.col("_line"), F.lit("]}"))
    parsed = (
        text.where(~is_blank(F.col("_line")))
        .withColumn("_parsed", F.from_json(wrapped, schema, {"columnNameOfCorruptRecord": "_corrupt"}))
    )
    is_one = F.col("_parsed._corrupt").isNull() & (F.size("_parsed.e") == 1) & F.is_valid_utf8("_line")
    event = F.when(is_one, F.get("_parsed.e", F.lit(0)))
    raw = F.make_valid_utf8("_line")
    return parsed.withColumn("_event", event).select(
        "ingest_date", "file", raw.alias("raw"), *(F.col(f"_event.{name}") for name in (*strings, *maps)),
        F.when(F.col("_event").isNull(), raw).alias("_corrupt"),
    )


def _csv(spark: SparkSession, paths: list[str], strings: Sequence[str], maps: Sequence[str]) -> DataFrame:
    """CSV with a header, quoted as in RFC 4180, empty cells missing; all files of one read have the same header."""
    reader = spark.read.options(header=True, multiLine=True, escape='"', enforceSchema=False, **_AS_NAMED)
    names = reader.csv(paths[:1]).columns
    schema = ", ".join([*(f"`{name}` string" for name in names), "_corrupt string"])
    found = reader.schema(schema).option("columnNameOfCorruptRecord", "_corrupt").csv(paths)
    row = F.to_json(F.struct(*(F.col(f"`{name}`") for name in names)))
    typed = [_field(found, name, "string").alias(name) for name in strings]
    read_maps = [_field(found, name, "map<string,string>").alias(name) for name in maps]
    unread = [F.col(n).isNotNull() & column.isNull() for n, column in zip(maps, read_maps, strict=True) if n in names]
    is_broken = reduce(lambda left, right: left | right, unread, F.lit(False))
    return found.select(
        *_place(), F.coalesce("_corrupt", row).alias("raw"), *typed, *read_maps,
        F.coalesce("_corrupt", F.when(is_broken, row)).alias("_corrupt"),
    )


def _parquet(spark: SparkSession, paths: list[str], strings: Sequence[str], maps: Sequence[str]) -> DataFrame:
    """Parquet with any types that cast to the contract's; raw is the row as JSON."""
    found = spark.read.options(mergeSchema=True, **_AS_NAMED).parquet(*paths)
    return found.select(
        *_place(), F.to_json(F.struct("*")).alias("raw"),
        *(_field(found, name, "string").alias(name) for name in strings),
        *(_field(found, name, "map<string,string>").alias(name) for name in maps),
        F.lit(None).cast("string").alias("_corrupt"),
    )


def _field(frame: DataFrame, name: str, type_: str) -> Column:
    """A column of a file as `type_`, NULL where the file has none or it cannot be read so.

    Nested values become JSON text where text is asked for; text is read as JSON where a list or map is asked for.
    """
    found = next((field.dataType.simpleString() for field in frame.schema if field.name == name), None)
    column = F.col(f"`{name}`")
    if found is None:
        return F.lit(None).cast(type_)
    if type_ == "string":
        return F.to_json(column) if found.startswith(("struct", "array", "map")) else column.cast("string")
    if found.split("<", maxsplit=1)[0] == type_.split("<", maxsplit=1)[0]:
        return column.cast(type_)
    return _typed(_field(frame, name, "string"), type_)


def _typed(text: Column, type_: str) -> Column:
    """Text as the contract's type, NULL where it cannot be read so."""
    if type_ == "string":
        return text
    if type_ == "timestamp":
        return timestamp(text)
    parsed = F.from_json(text, type_)
    if type_.startswith("array"):
        parts = F.filter(F.split(text, r"\|"), lambda part: part != "")
        return F.when(F.ltrim(text).startswith("["), parsed).otherwise(parts)
    return parsed


def _snapshot(spark: SparkSession, root: str, kind: str, as_of: date, types: dict[str, str]) -> DataFrame | None:
    """The latest snapshot not after `as_of` that has files (an empty folder is a delivery that has not come)."""
    days = reversed([day for day in ingest_dates(root, kind) if day <= as_of])
    paths = next((files for day in days if (files := _files(root, kind, day))), None)
    if paths is None:
        return None
    key, *others = types
    found = _read(spark, paths, list(types))
    typed = found.where(F.col("_corrupt").isNull() & ~is_blank(F.col(key))).select(
        *(_typed(F.col(name), type_).alias(name) for name, type_ in types.items())
    )
    content = F.struct(*others)
    kept = typed.groupBy(key).agg(F.max_by(content, F.to_json(content)).alias("_kept"))
    return kept.select(key, *(F.col(f"_kept.{name}") for name in others))
