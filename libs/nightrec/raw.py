"""The raw door: the only code that reads what a user brings (JSON lines, CSV or Parquet in ingest_date folders).

Everything comes in as strings, exactly as logged: 64-bit ids and epoch milliseconds keep all their digits. What a
value means is decided behind the door, except for timestamps, lists and maps: events and profiles read them alike.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import urllib.parse
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyspark.sql import Observation
from pyspark.sql import functions as F

from nightrec.errors import BadInput, causes
from nightrec.failpoint import reach
from nightrec.raw_columns import EVENTS, EVENTS_REQUIRED, ITEMS, TYPES, USERS, missing_in_lines
from nightrec.raw_files import FORMATS, file_format, first_lines, is_blank, mended, read, typed

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from nightrec.privacy.pseudonyms import Pseudonyms

EVENT_FIELDS = tuple(name for name, kind in EVENTS.items() if kind != "map")
# Lines of a file that are looked at for the names of its columns, and how many of them show that one is misnamed: a
# single line may have any name, and is quarantined.
_LOOKED_AT, _FEWEST = 50, 20
_FOLDER = re.compile(r"ingest_date=(\d{4}-\d{2}-\d{2})")


@dataclass(frozen=True)
class Snapshot:
    """A snapshot's rows, one per id, and what is counted of the lines that are none while the rows are read."""

    rows: DataFrame
    counted: Observation

    def rejected(self) -> dict[str, int]:
        """Lines left out, by reason. Call it after `rows` were read: until then it waits."""
        return {reason: int(count) for reason, count in self.counted.get.items() if count}


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


def events(spark: SparkSession, root: str, dates: Sequence[date], ids: Pseudonyms | None = None) -> DataFrame:
    """One row per raw line of the given ingest dates; blank lines are no lines. Lazy: read it under `readable`.

    Columns: ingest_date date, file (name inside the folder), raw (the line as it came; Parquet and CSV rows as JSON),
    the strings of EVENT_FIELDS, context map<string,string>, and _corrupt: the line where it is not one JSON object of
    this shape in UTF-8 (or one CSV row as wide as the header), else NULL. Raises BadInput for files of unknown kind,
    and for those whose columns are not the contract's (nightrec.raw_columns has the rules). With `ids`, user and event
    ids are hidden; not yet in raw and _corrupt.
    """
    paths = [path for day in sorted(dates) for path in files(root, "events", day)]
    with readable():
        if dates:
            path, first = names(spark, root, max(dates))
            missing_in_lines(path, first, EVENTS, _FEWEST)
        lines = read(spark, paths, EVENTS, EVENTS_REQUIRED, ("context",))
        return ids.in_events(lines) if ids else lines


def names(spark: SparkSession, root: str, day: date) -> tuple[str, list[set[str]]]:
    """An ingest date's first file of JSON lines, and the names in each of its first lines that are objects; both empty
    where there is no such file."""
    path = next((path for path in files(root, "events", day) if file_format(path) == "json"), None)
    if path is None:
        return "", []
    try:
        lines = first_lines(spark, path, _LOOKED_AT)
    except (OSError, EOFError, zlib.error):
        return path, []  # the night's own pass meets it, and says so
    found = []
    for line in lines:
        with suppress(ValueError, RecursionError):
            event = json.loads(line)
            if isinstance(event, dict):
                found.append(set(event))
    return path, found


def repairs(spark: SparkSession, root: str, dates: Sequence[date]) -> DataFrame | None:
    """ingest_date, line_id and raw of the lines that were mended (`repair`): which line each stands for, and its text.
    None where there is no file of them."""
    found = [path for day in dates for path in files(root, "events", day) if file_format(path) == "repair"]
    return mended(spark, found) if found else None


def repair(spark: SparkSession, root: str, day: date, lines: Mapping[str, str]) -> str:
    """Put mended lines (text by line_id) beside the files of an ingest date, in a file of their own; its name.

    The name is the content's, so the same lines again are the same file; it is written under a hidden one first.
    """
    text = "".join(
        json.dumps({"line_id": name, "raw": line}, ensure_ascii=False) + "\n" for name, line in sorted(lines.items())
    )
    name = f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.repair"
    folder = f"{root}/events/ingest_date={day}"
    reach("repair.before_rename")
    if "://" in folder:
        _put(spark, f"{folder}/_{name}", f"{folder}/{name}", text.encode())
    else:
        hidden = Path(folder, f"_{name}")
        with hidden.open("wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(Path(folder, name))
    reach("repair.after_rename")
    return name


def _put(spark: SparkSession, hidden: str, path: str, content: bytes) -> None:
    """Write a file through Hadoop under a hidden name, then rename it."""
    jvm: Any = spark._jvm
    source, target = (jvm.org.apache.hadoop.fs.Path(name) for name in (hidden, path))
    context: Any = spark.sparkContext
    system = target.getFileSystem(context._jsc.hadoopConfiguration())
    stream = system.create(source, True)
    stream.write(content)
    stream.close()
    system.rename(source, target)


def items(spark: SparkSession, root: str, as_of: date) -> Snapshot | None:
    """The latest catalogue snapshot not after `as_of`, one row per item_id; None where there is none.

    Columns: item_id, title, description, categories array, tags array, attributes map, available_from and
    available_until timestamp; NULL where the snapshot does not say. Rows without an id, and broken lines, are left out
    and counted; of several rows with one id the largest by content is kept. Lists may also be given as text: a|b.
    """
    return _snapshot(spark, root, "items", as_of, ITEMS)


def users(spark: SparkSession, root: str, as_of: date, ids: Pseudonyms | None = None) -> Snapshot | None:
    """The latest user snapshot not after `as_of`, one row per user_id, by the rules of `items`; None without one.

    Columns: user_id, attributes map<string,string>, blocked_items array<string>. With `ids`, user ids are hidden.
    """
    return _snapshot(spark, root, "users", as_of, USERS, ids)


@contextmanager
def readable() -> Iterator[None]:
    """Turn Spark's failure on a raw file, wherever the lazy frame is run, into BadInput that names the file.

    Nothing is read twice to find a truncated gzip or a Parquet file that is none: the night's own pass meets it.
    """
    try:
        yield
    except Exception as error:
        text = "\n".join(str(cause) for cause in causes(error))
        match = re.search(r"FAILED_READ_FILE[^\n]*? reading file (\S[^\n]*?/ingest_date=[^/\n]+/[^\n]*?)\.(\s|$)", text)
        if match is None:
            raise
        name = urllib.parse.unquote(re.sub(r"^file:/+", "/", match[1]))
        raise BadInput(f"{name} cannot be read: {_why(text)}; mend or remove it and run again") from error


def _why(text: str) -> str:
    reasons = re.findall(r"(?:Zip|EOF|IO|Runtime|IllegalArgument)Exception: ([^\n]+)", text)
    return reasons[-1].strip(" .") if reasons else "it is damaged or not what its name says"


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


def files(root: str, kind: str, day: date) -> list[str]:
    """Data files of one ingest date, none where it has no folder.

    BadInput names what is neither hidden nor of a known kind: no line goes unseen.
    """
    folder = f"{root}/{kind}/ingest_date={day}"
    paths = []
    for name, is_folder in _children(folder) or []:
        if is_folder:
            raise BadInput(f"{folder}/{name} is a folder; files are expected directly in {folder}")
        if file_format(name) is None:
            known = ", ".join(FORMATS)
            raise BadInput(f"{folder}/{name}: unknown kind of file; known are {known} (a _ in front has it ignored)")
        paths.append(f"{folder}/{name}")
    return paths


def delivered(root: str, day: date) -> int:
    """How many files of events an ingest date has, without those of mended lines."""
    return sum(file_format(path) != "repair" for path in files(root, "events", day))


def marks(root: str, kind: str, day: date) -> str:
    """Fingerprint of the files of one ingest date, by their names, sizes and times of change."""
    found = [f"{path.rsplit('/', 1)[-1]} {_mark(path)}" for path in files(root, kind, day)]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:16]


def _mark(path: str) -> str:
    if "://" not in path:
        status = Path(path).stat()
        return f"{status.st_size} {status.st_mtime_ns}"
    from pyspark.sql import SparkSession

    spark: Any = SparkSession.active()
    place = spark._jvm.org.apache.hadoop.fs.Path(path)
    found = place.getFileSystem(spark._jsc.hadoopConfiguration()).getFileStatus(place)
    return f"{found.getLen()} {found.getModificationTime()}"


def _snapshot(
    spark: SparkSession, root: str, kind: str, as_of: date, kinds: dict[str, str], ids: Pseudonyms | None = None
) -> Snapshot | None:
    """The latest snapshot not after `as_of` that has files (an empty folder is a delivery that has not come)."""
    days = reversed([day for day in ingest_dates(root, kind) if day <= as_of])
    paths = next((found for day in days if (found := files(root, kind, day))), None)
    if paths is None:
        return None
    key, *others = kinds
    with readable():
        lines = read(spark, paths, kinds, (key,))
    is_broken, has_no_id = F.col("_corrupt").isNotNull(), is_blank(F.col(key))
    counted = Observation()
    observed = lines.observe(
        counted,
        F.count_if(is_broken).alias("broken_line"),
        F.count_if(~is_broken & has_no_id).alias(f"missing_{key}"),
    )
    rows = observed.where(~is_broken & ~has_no_id).select(
        *(typed(F.col(name), TYPES[kind]).alias(name) for name, kind in kinds.items())
    )
    if ids:
        rows = ids.in_users(rows)
    content = F.struct(*others)
    kept = rows.groupBy(key).agg(F.max_by(content, F.to_json(content)).alias("_kept"))
    return Snapshot(kept.select(key, *(F.col(f"_kept.{name}") for name in others)), counted)
