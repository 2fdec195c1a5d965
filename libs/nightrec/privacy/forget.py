"""Forget a user: what a deployment's folder holds of one person goes for good, and a certificate says so.

Upstream first, so that nothing comes back: raw files, then every Delta table below the warehouse and the reports (with
all versions, change feed and log), exported files, checkpoints of trainings that died. Then all is searched.
Each place is counted and booked in `forgotten` before it is cleared, and clearing again does nothing: killed anywhere,
the same command goes on. Aggregates that the person was part of (counts of items, item factors, rankers) stay as they
are until they are computed again; they name nobody.

What is kept of the person: the certificate's fingerprint, under a key that the table does not hold.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import date as day
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq

from nightrec.config import Config
from nightrec.errors import NightrecError, UsageError
from nightrec.failpoint import reach
from nightrec.past.undo import is_quiet
from nightrec.privacy import pseudonyms, purge
from nightrec.privacy.person import Person, mentions
from nightrec.privacy.raw_lines import says_beside_items, without
from nightrec.raw_files import file_format
from nightrec.store import arrow, locked
from nightrec.tables import FORGOTTEN, PUBLISHED_TOPK

# Place of the certificate's last row: everything was cleared and the search found nothing.
DONE = "search of the whole folder"
_SALT = ".forgotten.key"
_TEMPORARY = ".forget-"
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
                left += [file] if not is_own or says_beside_items(file, person) else []
    return left


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
            lines = without(file, temporary, person)
            count += lines
            written += [(temporary, file)] if lines else []
    book(count)
    for temporary, file in written:
        _in_place(temporary, file)
        reach("forget.after_raw_file")


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
