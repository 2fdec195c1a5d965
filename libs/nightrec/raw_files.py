"""Files of the three formats as frames of strings, and strings as the values that the raw contract names."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.errors import AnalysisException
from pyspark.sql import functions as F

from nightrec.contract import no_rows
from nightrec.errors import BadInput

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

FORMATS = {
    ".jsonl": "json", ".jsonl.gz": "json", ".json": "json", ".json.gz": "json",
    ".csv": "csv", ".csv.gz": "csv", ".parquet": "parquet",
}

# ISO-8601 to the minute or finer, or a bare date. Spark's own cast also takes "10:00", which it dates today.
_ISO = r"^(?!0000)\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)? ?(Z|UTC|[+-]\d{2}(:?\d{2})?)?)?$"
# 14 digits of milliseconds reach the year 5138; more would overflow the conversion.
_MILLISECONDS = r"^-?\d{1,14}$"


def file_format(name: str) -> str | None:
    """json, csv or parquet, by a file's name; None where it is none of them."""
    return next((form for suffix, form in FORMATS.items() if name.lower().endswith(suffix)), None)


def read(spark: SparkSession, paths: Sequence[str], strings: Sequence[str], maps: Sequence[str] = ()) -> DataFrame:
    """ingest_date, file, raw, the named strings and maps, _corrupt: of all the files, by their kinds."""
    readers: dict[str, Callable[..., DataFrame]] = {"json": _json, "csv": _csv, "parquet": _parquet}
    frames = []
    for form, reader in readers.items():
        chosen = [path for path in paths if file_format(path) == form]
        if chosen:
            frames.append(reader(spark, chosen, strings, maps))
    if not frames:
        fields = [*(f"{name} string" for name in strings), *(f"{name} map<string,string>" for name in maps)]
        ddl = f"ingest_date date, file string, raw string, {', '.join(fields)}, _corrupt string"
        return no_rows(spark, ddl)
    return reduce(lambda left, right: left.unionByName(right), frames)


def _place() -> list[Column]:
    """The ingest date and file name of a row, from its path: a column of the file cannot contradict the folder."""
    path, name = F.col("_metadata.file_path"), F.col("_metadata.file_name")
    # The ten characters before the name and its slash; a pattern and a decoding cost every line a microsecond.
    day = F.substring(path, -F.length(name) - 11, F.lit(10))
    # Spark gives the name as part of a URI, in which a + stands for itself.
    decoded = F.url_decode(F.replace(name, F.lit("+"), F.lit("%2B")))
    return [day.cast("date").alias("ingest_date"), F.when(name.contains("%"), decoded).otherwise(name).alias("file")]


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
        text.where(F.col("_line").startswith("{") | ~is_blank(F.col("_line")))
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
    """CSV with a header, quoted as in RFC 4180, empty cells missing; each header is read by itself."""
    frames = [_csv_alike(spark, alike, strings, maps) for alike in _grouped(spark, paths, _header)]
    return reduce(lambda left, right: left.unionByName(right), frames)


def _grouped(spark: SparkSession, paths: list[str], columns: Callable[[SparkSession, str], str]) -> list[list[str]]:
    """Files by their columns: nights may differ, and Spark would give all files of one read the columns of one."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        try:
            groups.setdefault(columns(spark, path), []).append(path)
        except (OSError, EOFError, pa.ArrowException) as error:
            raise BadInput(f"{path} cannot be read: {error}; mend or remove it and run again") from error
    return list(groups.values())


def _header(spark: SparkSession, path: str) -> str:
    """First line of a text file; a local one is read here, for a Spark job each would take longer than the night."""
    if "://" in path:
        first = spark.read.options(**_AS_NAMED).text(path).first()
        return first[0] if first else ""
    opened = gzip.open if path.lower().endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8", errors="replace") as lines:
        return str(lines.readline()).rstrip("\r\n")


def _footer(spark: SparkSession, path: str) -> str:
    """Columns and types of a Parquet file."""
    if "://" in path:
        return spark.read.options(**_AS_NAMED).parquet(path).schema.json()
    return str(pq.read_schema(path).remove_metadata())


def _csv_alike(spark: SparkSession, paths: list[str], strings: Sequence[str], maps: Sequence[str]) -> DataFrame:
    """CSV files of one header."""
    reader = spark.read.options(header=True, multiLine=True, escape='"', **_AS_NAMED)
    names = reader.csv(paths[:1]).columns
    schema = ", ".join([*(f"`{name}` string" for name in names), "_corrupt string"])
    found = reader.schema(schema).option("columnNameOfCorruptRecord", "_corrupt").csv(paths)
    row = F.to_json(F.struct(*(F.col(f"`{name}`") for name in names)))
    texts = [_field(found, name, "string").alias(name) for name in strings]
    read_maps = [_field(found, name, "map<string,string>").alias(name) for name in maps]
    unread = [F.col(n).isNotNull() & column.isNull() for n, column in zip(maps, read_maps, strict=True) if n in names]
    is_broken = reduce(lambda left, right: left | right, unread, F.lit(False))
    return found.select(
        *_place(), F.coalesce("_corrupt", row).alias("raw"), *texts, *read_maps,
        F.coalesce("_corrupt", F.when(is_broken, row)).alias("_corrupt"),
    )


def _parquet(spark: SparkSession, paths: list[str], strings: Sequence[str], maps: Sequence[str]) -> DataFrame:
    """Parquet with any types that cast to the contract's, which may differ between files; raw is the row as JSON."""
    frames = [_parquet_alike(spark, alike, strings, maps) for alike in _grouped(spark, paths, _footer)]
    return reduce(lambda left, right: left.unionByName(right), frames)


def _parquet_alike(spark: SparkSession, paths: list[str], strings: Sequence[str], maps: Sequence[str]) -> DataFrame:
    """Parquet files of one schema. BadInput where Spark knows a type not at all, as pandas' nanoseconds."""
    try:
        found = spark.read.options(**_AS_NAMED).parquet(*paths)
    except AnalysisException as error:
        if error.getCondition() != "PARQUET_TYPE_ILLEGAL":
            raise
        said = str(error).partition("] ")[2].partition(" SQLSTATE")[0]
        raise BadInput(f"{paths[0]}: {said} Spark reads times in micro- or milliseconds; write the file so") from error
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
    return typed(_field(frame, name, "string"), type_)


def typed(text: Column, type_: str) -> Column:
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


def timestamp(text: Column) -> Column:
    """A logged time as a timestamp: ISO-8601 (without a zone: UTC; a bare date: its midnight) or epoch milliseconds.

    NULL where it is neither. Epoch seconds are not guessed at: they land in January 1970, which cleaning rejects.
    """
    trimmed = F.trim(text)
    milliseconds = F.when(trimmed.rlike(_MILLISECONDS), trimmed).try_cast("bigint")
    iso = F.when(trimmed.rlike(_ISO), trimmed).try_cast("timestamp")
    # Only what follows a year can be ISO-8601, and no milliseconds: one pattern is tried instead of both.
    return F.when(F.substring(trimmed, 5, 1) == "-", iso).otherwise(F.timestamp_millis(milliseconds))


def is_blank(text: Column) -> Column:
    """Whether a text is missing or holds nothing but white space of any script."""
    return ~F.coalesce(text, F.lit("")).rlike(r"[^\s\p{Z}]")
