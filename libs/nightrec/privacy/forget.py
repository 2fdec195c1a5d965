"""Forget a user: what a deployment's folder holds of one person goes for good, and a certificate says so.

Upstream first, so that nothing comes back: raw files, then every Delta table below the warehouse and the reports (with
all versions, change feed and log), exported files, checkpoints of trainings that died. Then all is searched.
Each place is counted and booked in `forgotten` before it is cleared, and clearing again does nothing: killed anywhere,
the same command goes on. Aggregates that the person was part of (counts of items, item factors, rankers) stay as they
are until they are computed again; they name nobody.

What is kept of the person: the certificate's fingerprint, under a key that the table does not hold.
"""

from __future__ import annotations

import csv
import gzip
import hmac
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date as day
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from nightrec.config import Config
from nightrec.errors import NightrecError, UsageError
from nightrec.failpoint import reach
from nightrec.past.undo import is_quiet
from nightrec.privacy import pseudonyms, purge
from nightrec.privacy.person import OF_ITEMS, Person, mentions
from nightrec.raw_files import file_format
from nightrec.store import arrow, locked
from nightrec.tables import FORGOTTEN, PUBLISHED_TOPK

# Place of the certificate's last row: everything was cleared and the search found nothing.
DONE = "search of the whole folder"
_SALT = ".forgotten.key"
_TEMPORARY = ".forget-"
# The end of a line, and a carriage return that is none where lines end otherwise.
_END, _LONE = re.compile(rb"\r\n|\r|\n"), re.compile(r"\r(?!\n|\Z)")
Counts = dict[str, int]


def forget(config: Config, folder: Path, user: str, asked: day) -> Counts:
    """Clear what is held of a user, and certify it under the date `asked`; the rows removed, by place.

    `folder` is the deployment's: the search looks at all of it. Raises Fenced beside another writer, UsageError for
    paths that are no folders, a pseudonym in place of an id, or changes that no export has carried yet; NightrecError
    where the search finds the user in files that are none of the deployment's.
    """
    folders_only(config)
    ids = pseudonyms.of(config.privacy)
    if ids and ids.is_one(user):
        raise UsageError("a pseudonym was given, and the raw files hold ids: name the user as the log does")
    person = Person((user, ids.of(user)) if ids else (user,))
    with held(config) as found:
        book = _Certificate(config, ids, user, asked)
        exports = Path(config.paths.exports) / PUBLISHED_TOPK.name
        for kind in ("events", "items", "users"):
            _clear_raw(Path(config.paths.raw) / kind, person, partial(book, f"raw {kind}"))
        for path in found:
            if path.name != FORGOTTEN.name:
                _clear_table(path, person, config, exports, book)
        _clear_exports(exports, person, book)
        _clear_checkpoints(Path(config.paths.models), book)
        reach("forget.before_search")
        own = [Path(config.paths.raw), exports, *found]
        left = search(sorted({folder, *map(Path, config.paths.model_dump().values())}), person, own)
        if left:
            raise NightrecError(
                f"what the deployment holds is cleared, but {len(left)} other files still say the user: "
                f"{', '.join(map(str, left[:5]))}; remove them and run this again for the certificate"
            )
        book(DONE, 0)
    return book.counts


def search(folders: Sequence[Path], person: Person, own: Sequence[Path] = ()) -> list[Path]:
    """Files below the folders that say the person: in name or bytes, in what gzip holds, in the values of Parquet.

    In folders of the deployment's `own` raw files, tables and exports an item may have the id: a file of a known kind
    whose bytes say it counts where it is said otherwise than as an item's.
    An id shorter than person.LEAST is looked for in the columns of users only.
    """
    seen: set[Path] = set()
    left = []
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            if file in seen or not file.is_file():
                continue
            seen.add(file)
            if mentions(str(file.relative_to(folder)), person.ids):
                left.append(file)
            elif purge.says(file, person):
                is_own = any(file.is_relative_to(place) for place in own) and "_delta_log" not in file.parts
                left += [file] if not is_own or _says_beside_items(file, person) else []
    return left


def _says_beside_items(file: Path, person: Person) -> bool:
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


def folders_only(config: Config) -> None:
    """Raise UsageError for a path that is no folder."""
    away = [path for path in config.paths.model_dump().values() if "://" in path]
    if away:
        raise UsageError(f"files are rewritten and folders searched here, and {away[0]} is none: mount it as a folder")


@contextmanager
def held(config: Config) -> Iterator[list[Path]]:
    """Every Delta table below the warehouse and the reports, while no other process writes to any of them."""
    found = purge.tables(config.paths.warehouse) + purge.tables(config.paths.reports)
    with ExitStack() as locks:
        for warehouse in sorted({config.paths.warehouse, *(str(path.parent) for path in found)}):
            handle = locked(warehouse)
            if handle is not None:
                locks.enter_context(handle)
        yield found


class _Certificate:
    """The rows of FORGOTTEN of one request. Of a place that is counted again after a kill the larger count holds."""

    def __init__(self, config: Config, ids: pseudonyms.Pseudonyms | None, user: str, asked: day) -> None:
        self.warehouse, self.asked = config.paths.warehouse, asked
        secret = pseudonyms.key(config.privacy.key_file) if ids else _salt(Path(self.warehouse))
        self.fingerprint = hmac.digest(secret, f"forgotten {user}".encode(), "sha256").hex()[:32]
        rows = arrow(self.warehouse, FORGOTTEN, {"forgotten_date": asked}).to_pylist()
        self.others = [row for row in rows if row["fingerprint"] != self.fingerprint]
        self.counts: Counts = {r["place"]: r["row_count"] for r in rows if r["fingerprint"] == self.fingerprint}

    def __call__(self, place: str, count: int) -> None:
        """Book so many rows of a place, before they go; a place that holds none is booked once, as searched."""
        if count <= self.counts.get(place, -1):
            return
        self.counts[place] = count
        own = [
            {"forgotten_date": self.asked, "fingerprint": self.fingerprint, "place": name, "row_count": rows}
            for name, rows in sorted(self.counts.items())
        ]
        purge.put(self.warehouse, FORGOTTEN, [*self.others, *own], {"forgotten_date": self.asked})
        reach("forget.after_booking")


def _salt(warehouse: Path) -> bytes:
    """The key of certificates where there are no pseudonyms: made once, mode 0600, beside the tables."""
    file = warehouse / _SALT
    if not file.exists():
        temporary = file.with_name(f"{file.name}.{os.getpid()}")
        with os.fdopen(os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as opened:
            opened.write(secrets.token_hex(32))
        temporary.replace(file)
    return file.read_bytes()


def _clear_raw(folder: Path, person: Person, book: Callable[[int], None]) -> None:
    """Take the person's lines out of every raw file, also of those that nights pass over; files stay, if empty.

    Files of no known kind are left as they are; the search finds what they hold.
    """
    written: list[tuple[Path, Path]] = []
    count = 0
    for found in sorted(folder.rglob("*")):
        file = found.resolve()  # behind a link, what it leads to
        if file.name.startswith(_TEMPORARY):
            file.unlink()  # of an attempt that was killed
        elif file.is_file() and file_format(file.name):
            temporary = file.with_name(f"{_TEMPORARY}{file.name}")
            lines = _without(file, temporary, person)
            count += lines
            written += [(temporary, file)] if lines else []
    book(count)
    for temporary, file in written:
        _in_place(temporary, file)
        reach("forget.after_raw_file")


def _without(file: Path, temporary: Path, person: Person) -> int:
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


def _write(file: Path, content: bytes) -> None:
    with file.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())


def _in_place(temporary: Path, file: Path) -> None:
    # Hadoop's checksum of the old content would make the new one unreadable.
    file.with_name(f".{file.name}.crc").unlink(missing_ok=True)
    shutil.copymode(file, temporary)
    temporary.replace(file)


def _clear_table(path: Path, person: Person, config: Config, exports: Path, book: Callable[[str, int], None]) -> None:
    """Write a table anew without the person and drop its history; one that never held them stays as it is."""
    is_published = path == Path(config.paths.warehouse) / PUBLISHED_TOPK.name
    found = purge.held(path, person)
    if found and is_published:
        require_exported(path, exports)
    book(f"table {os.path.relpath(path, Path(config.paths.warehouse).parent)}", found.live)
    if found:
        book("earlier versions of tables and their change feeds", found.earlier)
        purge.rewrite(path, person, found.partitions)
        if is_published:
            purge.say_again(path)
            hand_over(path, exports)
        purge.drop_history(path)
    elif is_published:
        hand_over(path, exports)  # of an attempt that was killed before it did


def require_exported(path: Path, exports: Path) -> None:
    """Raise UsageError where the change feed, which goes, has what no export has carried yet."""
    exported, latest = _exported(exports), purge.version(path)
    if not exported or exported >= latest or purge.is_own_commit(path):
        return
    # An export passes over nights that changed nothing.
    if not is_quiet(str(path.parent), exported):
        raise UsageError(
            f"{exports} holds version {exported} of published_topk and the table has version {latest}: run "
            "`nightrec export` first, forgetting drops the change feed"
        )


def hand_over(path: Path, exports: Path) -> None:
    """Let the next export begin behind the commits of purge, with an export of no rows."""
    exported, latest = _exported(exports), purge.version(path)
    if not exported or exported >= latest:
        return
    reach("forget.before_hand_over")
    manifest = {
        "table": PUBLISHED_TOPK.name, "from_version": exported + 1, "to_version": latest, "rows": 0, "upsert": 0,
        "delete": 0, "files": {},
    }  # fmt: skip
    hidden, place = exports / f".version={latest:08d}", exports / f"version={latest:08d}"
    shutil.rmtree(hidden, ignore_errors=True)
    hidden.mkdir()
    _write(hidden / "manifest.json", (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())
    hidden.rename(place)


def _exported(exports: Path) -> int:
    return max((int(folder.name.removeprefix("version=")) for folder in exports.glob("version=*")), default=0)


def _clear_exports(exports: Path, person: Person, book: Callable[[str, int], None]) -> None:
    """Take the person's lists out of exported files, and make the manifests agree."""
    written: list[tuple[Path, Path]] = []
    count = 0
    for file in sorted(exports.rglob("*")):
        temporary = file.with_name(f"{_TEMPORARY}{file.name}")
        if file.name.startswith(_TEMPORARY):
            file.unlink()
        elif file.suffix in (".parquet", ".json") and file.name != "manifest.json":
            rows = _exported_without(file, temporary, person)
            # Each change is there once per format.
            count += rows if file.suffix == ".parquet" or not (file.parent.parent / "parquet").is_dir() else 0
            written += [(temporary, file)] if rows else []
    book("exported files", count)
    for temporary, file in written:
        _in_place(temporary, file)
        reach("forget.after_exported_file")
    for manifest in sorted(exports.glob("version=*/manifest.json")):
        _agree(manifest)


def _exported_without(file: Path, temporary: Path, person: Person) -> int:
    if file.suffix == ".parquet":
        rows = pq.read_table(file)
        count = int((person.own(rows) | person.mentioned(rows)).sum())
        if count:
            pq.write_table(person.without(rows), temporary, compression="zstd")
        return count
    lines = file.read_bytes().splitlines(keepends=True)
    kept = []
    for line in lines:
        fields = json.loads(line)
        if fields["list_kind"] == "user" and fields["list_key"] in person.ids:
            continue
        scrubbed = person.scrubbed(fields)
        kept.append(line if scrubbed == fields else json.dumps(scrubbed, ensure_ascii=False).encode() + b"\n")
    changed = sum(one != other for one, other in zip(lines, kept, strict=False)) if len(lines) == len(kept) else 0
    count = len(lines) - len(kept) + changed
    if count:
        _write(temporary, b"".join(kept))
    return count


def _agree(manifest: Path) -> None:
    """Counts and sizes of an export's manifest as its files now are."""
    said = json.loads(manifest.read_text(encoding="utf-8"))
    sizes = {name: (manifest.parent / name).stat().st_size for name in said["files"]}
    if sizes == said["files"]:
        return
    changes = [change for name in sizes for change in _changes(manifest.parent / name)]
    forms = len({name.split("/", maxsplit=1)[0] for name in sizes})
    counts = {change: changes.count(change) // forms for change in ("upsert", "delete")}
    told = {**said, **counts, "rows": sum(counts.values()), "files": sizes}
    temporary = manifest.with_name(f"{_TEMPORARY}{manifest.name}")
    _write(temporary, (json.dumps(told, indent=1, sort_keys=True) + "\n").encode())
    _in_place(temporary, manifest)


def _changes(file: Path) -> Iterator[str]:
    if file.suffix == ".parquet":
        yield from pq.read_table(file, columns=["change"])["change"].to_pylist()
    else:
        yield from (json.loads(line)["change"] for line in file.read_bytes().splitlines())


def _clear_checkpoints(models: Path, book: Callable[[str, int], None]) -> None:
    """Remove what trainings that died left to go on from: the person's factors are among them, without a name."""
    found = sorted(models.glob("*/checkpoint"))
    book("checkpoints of trainings", len(found))
    for folder in found:
        shutil.rmtree(folder)
        reach("forget.after_checkpoint")
