"""Files of the three formats as frames of strings, and strings as the values that the raw contract names.

A fourth kind, `.repair`, holds mended lines: what `nightrec repair` puts beside the files that they come from.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.errors import AnalysisException
from pyspark.sql import functions as F

from nightrec.contract import no_rows
from nightrec.errors import BadInput
from nightrec.raw_columns import check

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

FORMATS = {
    ".jsonl": "json", ".jsonl.gz": "json", ".json": "json", ".json.gz": "json",
    ".csv": "csv", ".csv.gz": "csv", ".parquet": "parquet", ".repair": "repair",
}
# A line of a `.repair` file: the quarantined line that it stands for (rejected_events.line_id), and its text mended.
MENDED = "line_id string, raw string"

# ISO-8601 to the minute or finer, or a bare date. Spark's own cast also takes "10:00", which it dates today.
_ISO = r"^(?!0000)\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)? ?(Z|UTC|[+-]\d{2}(:?\d{2})?)?)?$"
# 14 digits of milliseconds reach the year 5138; more would overflow the conversion.
_MILLISECONDS = r"^-?\d{1,14}$"


def file_format(name: str) -> str | None:
    """json, csv, parquet or repair, by a file's name; None where it is none of them."""
    return next((form for suffix, form in FORMATS.items() if name.lower().endswith(suffix)), None)


def read(
    spark: SparkSession,
    paths: Sequence[str],
    kinds: Mapping[str, str],
    required: Sequence[str],
    maps: Sequence[str] = (),
) -> DataFrame:
    """ingest_date, file, raw, the columns of `kinds` (nightrec.raw_columns) as strings but for `maps`, _corrupt: of all
    the files, by their formats. BadInput where a CSV or Parquet file has other columns than `kinds` ask for."""
    readers: dict[str, Callable[..., DataFrame]] = {"json": _json, "csv": _csv, "parquet": _parquet, "repair": _repair}
    shape = Shape(kinds, required, [name for name in kinds if name not in maps], maps)
    frames = []
    for form, reader in readers.items():
        chosen = [path for path in paths if file_format(path) == form]
        if chosen:
            frames.append(reader(spark, chosen, shape))
    if not frames:
        return no_rows(spark, f"ingest_date date, file string, raw string, {shape.ddl()}, _corrupt string")
    return reduce(lambda left, right: left.unionByName(right), frames)


class Shape(NamedTuple):
    """What is read of each file: columns by kind, those without which there is nothing, and what they become."""

    kinds: Mapping[str, str]
    required: Sequence[str]
    strings: Sequence[str]
    maps: Sequence[str]

    def ddl(self) -> str:
        """The columns read, as Spark DDL."""
        maps = [f"{name} map<string,string>" for name in self.maps]
        return ", ".join([*(f"{name} string" for name in self.strings), *maps])


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


def _json(spark: SparkSession, paths: list[str], shape: Shape) -> DataFrame:
    """JSON lines, each parsed once."""
    return _parsed(_text(spark, paths).select(*_place(), F.col("value").alias("_line")), shape)


def _repair(spark: SparkSession, paths: list[str], shape: Shape) -> DataFrame:
    """Mended lines: JSON lines within JSON lines."""
    mended = F.from_json("value", MENDED)["raw"]
    return _parsed(_text(spark, paths).select(*_place(), mended.alias("_line")), shape)


def mended(spark: SparkSession, paths: Sequence[str]) -> DataFrame:
    """ingest_date, line_id and raw of the lines in `.repair` files: which line each stands for, and its text."""
    return _text(spark, list(paths)).select(_place()[0], F.from_json("value", MENDED).alias("_mended")).select(
        "ingest_date", "_mended.line_id", "_mended.raw"
    )


def line_id(file: Column, raw: Column) -> Column:
    """What a raw line is known by among those of its ingest date; lines of one file with the same text are one."""
    return F.substring(F.sha2(F.concat(file, F.lit("\n"), raw), 256), 1, 32)


def _text(spark: SparkSession, paths: list[str]) -> DataFrame:
    return spark.read.options(**_AS_NAMED).text(paths)


# Strictly JSON. Spark by itself takes 'single quotes' and makes the id "NaN" of a NaN.
_STRICT = {
    "columnNameOfCorruptRecord": "_corrupt", "allowSingleQuotes": "false", "allowNonNumericNumbers": "false",
}  # fmt: skip


def _parsed(text: DataFrame, shape: Shape) -> DataFrame:
    """Lines (ingest_date, file, _line), blank ones left out, as the columns of one JSON object each.

    The line is parsed inside {"_line":[...],"_end":1}: alone, Spark would read `{...} rubbish`, and of `{...}{...}`
    only the first; without the end it would read `{...}]}`.
    """
    fields = shape.ddl().replace(", ", ",").replace("map<string,string>", "map<string;string>")
    fields = fields.replace(" ", ":").replace(";", ",")
    schema = f"_line array<struct<{fields}>>, _end string, _corrupt string"
    wrapped = F.concat(F.lit('{"_line":['), F.col("_line"), F.lit('],"_end":1}'))
    parsed = (
        text.where(F.col("_line").startswith("{") | ~is_blank(F.col("_line")))
        .withColumn("_parsed", F.from_json(wrapped, schema, _STRICT))
    )
    first = F.get("_parsed._line", F.lit(0))
    texts = [name for name in shape.strings if shape.kinds[name] not in ("list", "map")]
    is_one = (
        F.col("_parsed._corrupt").isNull() & F.col("_parsed._end").isNotNull() & (F.size("_parsed._line") == 1)
        & F.is_valid_utf8("_line") & ~_has_half_character(F.col("_line"))
        & ~_has_nested(F.col("_line"), first, texts)
    )
    event = F.when(is_one, first)
    raw = F.make_valid_utf8("_line")
    return parsed.withColumn("_event", event).select(
        "ingest_date", "file", raw.alias("raw"), *(F.col(f"_event.{name}") for name in (*shape.strings, *shape.maps)),
        F.when(F.col("_event").isNull(), raw).alias("_corrupt"),
    )


def _has_nested(line: Column, read: Column, names: Sequence[str]) -> Column:
    """Whether an object or a list stands where text is expected: Spark gives it as JSON text, which would be an id.

    A text may begin with a bracket too. Only lines in which one does are parsed once more; those that cannot be, for a
    name occurs twice in them, count as nested.
    """
    texts = [read[name] for name in names]
    begins = reduce(lambda left, right: left | right, (text.startswith("{") | text.startswith("[") for text in texts))
    whole = F.try_parse_json(line)
    # No function of an array's elements: with one in it, Spark would not compile the reading of all lines.
    kinds = (F.schema_of_variant(F.try_variant_get(whole, f"$.{name}", "variant")) for name in names)
    is_nested = whole.isNull() | F.concat_ws("\n", *kinds).rlike(r"(?m)^(OBJECT|ARRAY)")
    return F.when(begins, is_nested).otherwise(F.lit(False))


# Of a character beyond the first 65,536 JSON writes two halves; Spark reads one alone as "?", and all such ids as one.
_HALF = r"(?i)(?<!\\)(?:\\\\)*(?:\\ud[89ab]..(?!\\ud[c-f])|(?<!\\ud[89ab]..)\\ud[c-f])"


def _has_half_character(line: Column) -> Column:
    return F.when(line.contains("\\u"), line.rlike(_HALF)).otherwise(F.lit(False))


def _csv(spark: SparkSession, paths: list[str], shape: Shape) -> DataFrame:
    """CSV with a header, quoted as in RFC 4180, empty cells missing; each header is read by itself."""
    frames = [_csv_alike(spark, alike, shape) for alike in _grouped(spark, paths, _header)]
    return reduce(lambda left, right: left.unionByName(right), frames)


def _grouped(spark: SparkSession, paths: list[str], columns: Callable[[SparkSession, str], str]) -> list[list[str]]:
    """Files by their columns: nights may differ, and Spark would give all files of one read the columns of one."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        try:
            groups.setdefault(columns(spark, path), []).append(path)
        except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
            raise BadInput(f"{path} cannot be read: {error}; mend or remove it and run again") from error
    return list(groups.values())


def _header(spark: SparkSession, path: str) -> str:
    """First line of a text file."""
    return next(iter(first_lines(spark, path, 1)), "")


def first_lines(spark: SparkSession, path: str, count: int) -> list[str]:
    """The first lines of a text file; of a local one without a Spark job, which for each would take longer than the
    night."""
    if "://" in path:
        return [row[0] for row in spark.read.options(**_AS_NAMED).text(path).take(count)]
    opened = gzip.open if path.lower().endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8", errors="replace") as lines:
        return [str(line).rstrip("\r\n") for line in islice(lines, count)]


def _footer(spark: SparkSession, path: str) -> str:
    """Columns and types of a Parquet file."""
    if "://" in path:
        return _typed_columns(spark, [path]).schema.json()
    return str(pq.read_schema(path).remove_metadata())


def _csv_alike(spark: SparkSession, paths: list[str], shape: Shape) -> DataFrame:
    """CSV files of one header."""
    reader = spark.read.options(header=True, multiLine=True, escape='"', **_AS_NAMED)
    names = reader.csv(paths[:1]).columns
    if not names:  # not even a header: a file without a line
        return no_rows(spark, f"ingest_date date, file string, raw string, {shape.ddl()}, _corrupt string")
    check(paths[0], dict.fromkeys(names, "string"), shape.kinds, shape.required)
    schema = ", ".join([*(f"`{name}` string" for name in names), "_corrupt string"])
    found = reader.schema(schema).option("columnNameOfCorruptRecord", "_corrupt").csv(paths)
    row = F.to_json(F.struct(*(F.col(f"`{name}`") for name in names)))
    return _columns(found, shape, F.coalesce("_corrupt", row), F.col("_corrupt"))


def _parquet(spark: SparkSession, paths: list[str], shape: Shape) -> DataFrame:
    """Parquet of types that say what the contract's do, which may differ between files; raw is the row as JSON."""
    frames = [_parquet_alike(spark, alike, shape) for alike in _grouped(spark, paths, _footer)]
    return reduce(lambda left, right: left.unionByName(right), frames)


def _parquet_alike(spark: SparkSession, paths: list[str], shape: Shape) -> DataFrame:
    """Parquet files of one schema."""
    found = _typed_columns(spark, paths)
    types = {field.name: field.dataType.simpleString() for field in found.schema}
    check(paths[0], types, shape.kinds, shape.required)
    return _columns(found, shape, F.to_json(F.struct("*")), F.lit(None).cast("string"))


def _typed_columns(spark: SparkSession, paths: list[str]) -> DataFrame:
    """Parquet files of one schema as Spark reads them. BadInput where it knows a type not at all, as pandas'
    nanoseconds, or two columns as one."""
    try:
        return spark.read.options(**_AS_NAMED).parquet(*paths)
    except AnalysisException as error:
        condition = error.getCondition() or ""
        said = str(error).partition("] ")[2].partition(" SQLSTATE")[0]
        if condition == "PARQUET_TYPE_ILLEGAL" and "NANOS" in said:
            mend = "Spark reads times in micro- or milliseconds; write the file so"
        elif condition.startswith("PARQUET_TYPE_"):
            mend = "Write that column as text or a number, or have the file ignored by a _ in front of its name"
        elif condition == "COLUMN_ALREADY_EXISTS":
            mend = "Names that differ in letter case only are one; write the file with one of them"
        else:
            raise
        raise BadInput(f"{paths[0]}: {said} {mend}") from error


def _columns(found: DataFrame, shape: Shape, raw: Column, corrupt: Column) -> DataFrame:
    """The columns of files that name theirs; a row with a map that cannot be read is broken like one of a wrong width.
    """
    texts = [_field(found, name, "string").alias(name) for name in shape.strings]
    maps = [_field(found, name, "map<string,string>").alias(name) for name in shape.maps]
    unread = [
        F.col(name).isNotNull() & column.isNull()
        for name, column in zip(shape.maps, maps, strict=True) if name in found.columns
    ]  # fmt: skip
    is_broken = reduce(lambda left, right: left | right, unread, F.lit(False))
    return found.select(
        *_place(), raw.alias("raw"), *texts, *maps, F.coalesce(corrupt, F.when(is_broken, raw)).alias("_corrupt")
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
