"""Pseudonyms in place of user ids: keyed hashes, made where raw lines come in.

A user's pseudonym is `pKEY-HASH`: HASH the first 32 hex digits of HMAC-SHA-256 of the id in UTF-8 under the key, KEY
eight digits that tell keys apart and follow from the key itself. So any system that has the key can look a user's list
up, and ids of two keys never pass for each other. What has the form already, under the same key, stays as it is: lists
go out under pseudonyms, and what is logged about them comes back so. An event_id becomes `eKEY-HASH` likewise: many
hold the user's id, or can be guessed.

Hashing is a function of Arrow columns that opens the key where it runs. A literal in Spark's own HMAC would show the
key in query plans, on Spark's pages and in its event log.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from nightrec.errors import UsageError
from nightrec.privacy.person import LEAST, MEANT, replaced, values

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from nightrec.config import Privacy

# The key itself; it wins over privacy.key_file.
VARIABLE = "NIGHTREC_PRIVACY_KEY"
# The fate under which clean_events books the key of each ingest date.
KEY = "key"
# White space of raw_files.is_blank.
_BLANK = " \t\n\x0b\f\r\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
_LEAST_KEY = 32


@dataclass(frozen=True)
class Pseudonyms:
    """How ids are hidden: the file that holds the key wherever this runs (unless VARIABLE does), and the key's name."""

    key_file: str
    key_id: str

    def of(self, user_id: str) -> str:
        """The pseudonym of a user; what is one already stays."""
        return self._hidden("p", user_id.encode()).decode()

    def of_event(self, event_id: str) -> str:
        """An event_id in its hidden form."""
        return self._hidden("e", event_id.encode()).decode()

    def fingerprint(self, text: str) -> str:
        """128 bits in hex of any text, under the key."""
        return hmac.digest(_secret(self.key_file, self.key_id), text.encode(), "sha256").hex()[:32]

    def is_one(self, user_id: str) -> bool:
        """Whether this is a pseudonym under the key."""
        return bool(re.fullmatch(rf"p{self.key_id}-[0-9a-f]{{32}}", user_id))

    def in_events(self, lines: DataFrame) -> DataFrame:
        """Raw lines of events with hidden user and event ids, also where text and context say the user's; `raw` and
        `_corrupt` stay as they came, for cleaning to read (see `in_rejected`)."""
        return self._in(lines, {"event_id": "e"}, texts=("text",), maps=("context",))

    def in_users(self, lines: DataFrame) -> DataFrame:
        """Rows of a users' snapshot with hidden user ids, also where the attributes say them."""
        return self._in(lines, {}, texts=(), maps=("attributes",))

    def in_rejected(self, rows: DataFrame) -> DataFrame:
        """Rows of rejected_events whose `raw` holds no id: see `line`."""
        from pyspark.sql.pandas.functions import arrow_udf

        def hidden(lines: pa.Array) -> pa.Array:
            return pa.array([None if line is None else self.line(line) for line in lines.to_pylist()], pa.string())

        return rows.withColumn("raw", arrow_udf(hidden, "string")("raw"))  # type: ignore[call-overload]

    def line(self, line: str) -> str:
        """A rejected line with the user's id hidden, as JSON; it can be cleaned again as it stands.

        Also where other values than an item, a time, a type or a number say the id as a word (person.MEANT); the
        event_id always, as that of clean events, so that both have one event_key. Of a line in which no user_id can be
        read, or an event_id that is none, only its length and a keyed fingerprint are kept: who knows what it holds.
        """
        try:
            users, events = values(line, "user_id"), values(line, "event_id")
            is_text = all(isinstance(said, str) for said in users) and not any(isinstance(e, list) for e in events)
            if not users or not is_text or not all(said.strip(_BLANK) for said in users):
                return self._left_out(line)
            known = [event for event in events if isinstance(event, str)]
            if all(self.is_one(said) for said in users) and all(self.of_event(event) == event for event in known):
                return line
            # Of names that stand there twice the last value is kept alone, as in cleaning.
            hidden = self._fields(json.loads(line), users)
            if known and known[-1] is events[-1]:
                hidden["event_id"] = self.of_event(known[-1])
            text = json.dumps(hidden, ensure_ascii=False)
            text.encode()  # lone surrogates, written as escapes
        except (ValueError, TypeError, KeyError, RecursionError):
            return self._left_out(line)
        open_ = [said for said in users if not self.is_one(said)]
        return self._left_out(line) if replaced(text, open_, "") != text else text

    def _fields(self, fields: Mapping[str, Any], users: Sequence[str]) -> dict[str, Any]:
        def walked(value: Any) -> Any:
            if isinstance(value, str):
                for said in users:
                    value = replaced(value, [said], self.of(said))
                return value
            if isinstance(value, dict):
                return {walked(name): walked(part) for name, part in value.items()}
            return [walked(part) for part in value] if isinstance(value, list) else value

        hidden = {walked(name): value if name in MEANT else walked(value) for name, value in fields.items()}
        return {**hidden, "user_id": self.of(users[-1])}

    def _left_out(self, line: str) -> str:
        return f"(not kept: {len(line.encode())} bytes, fingerprint {self.fingerprint(line)})"

    def _in(
        self, lines: DataFrame, ids: Mapping[str, str], texts: Sequence[str], maps: Sequence[str]
    ) -> DataFrame:
        from pyspark.sql import functions as F

        # Both in one pass through Python.
        columns = {"_pseudonym": self._column("p", "user_id")}
        found = lines.withColumns(columns | {name: self._column(kind, name) for name, kind in ids.items()})

        def said(text: Column) -> Column:
            return _replaced(text, F.col("user_id"), F.col("_pseudonym"))

        hidden = {name: said(F.col(name)) for name in texts}
        hidden |= {name: F.transform_values(name, lambda _, value: said(value)) for name in maps}
        return found.withColumns(hidden).withColumn("user_id", F.col("_pseudonym")).drop("_pseudonym")

    def _column(self, kind: str, name: str) -> Column:
        from pyspark.sql.pandas.functions import arrow_udf

        def hidden(ids: pa.Array) -> pa.Array:
            # Each id of a batch once: most users come back within ten thousand lines.
            found = ids.cast(pa.binary()).dictionary_encode()
            known = pa.array([self._hidden(kind, value) for value in found.dictionary.to_pylist()], pa.binary())
            return known.cast(pa.string()).take(found.indices)

        column: Column = arrow_udf(hidden, "string")(name)  # type: ignore[call-overload]
        return column

    def _hidden(self, kind: str, value: bytes) -> bytes:
        prefix = f"{kind}{self.key_id}-".encode()
        if value.startswith(prefix) and re.fullmatch(rb"[0-9a-f]{32}", value[len(prefix) :]):
            return value
        if not value.decode("utf-8", "replace").strip(_BLANK):
            return value
        message = value if kind == "p" else b"event " + value
        return prefix + hmac.digest(_secret(self.key_file, self.key_id), message, "sha256").hex()[:32].encode()


def of(privacy: Privacy) -> Pseudonyms | None:
    """The pseudonyms of a deployment, None where it has none. Raises UsageError where the key cannot be used."""
    return Pseudonyms(privacy.key_file, _key_id(key(privacy.key_file))) if privacy.pseudonyms else None


def named(privacy: Privacy, user: str) -> str:
    """How the tables call a user."""
    ids = of(privacy)
    return ids.of(user) if ids else user


def key(file: str) -> bytes:
    """The key of VARIABLE, else of a file. Raises UsageError where it is missing, short, or for others to read."""
    said = os.environ.get(VARIABLE)
    if said is not None:
        found, place = said.strip().encode(), f"${VARIABLE}"
    else:
        found, place = _read(Path(file)), file
    if len(found) < _LEAST_KEY:
        raise UsageError(f"the key of {place} has {len(found)} characters, {_LEAST_KEY} are needed; {_mend(file)}")
    return found


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            found = opened.read(4096).strip()
    except OSError as error:
        raise UsageError(
            f"privacy.pseudonyms needs a key: {file}: {error.strerror} (privacy.key_file), and {VARIABLE} is not set; "
            + _mend(str(file))
        ) from None
    if mode & 0o077:
        raise UsageError(f"the key {file} has mode {mode:04o}, so others may read it; chmod 600 {file}")
    return found


def _mend(file: str) -> str:
    return f"""make one with (umask 077 && python3 -c 'print(__import__("secrets").token_hex(32))' > {file})"""


def _key_id(secret: bytes) -> str:
    return hmac.digest(secret, b"nightrec key id", "sha256").hex()[:8]


@lru_cache(maxsize=4)
def _secret(file: str, key_id: str) -> bytes:
    """The key of this process, which must be the one that the driver had."""
    found = key(file)
    if _key_id(found) != key_id:
        raise UsageError(
            f"the key here ({VARIABLE} or {file}) is {_key_id(found)}, and the night began with {key_id}: "
            "every worker needs the same"
        )
    return found


def _replaced(text: Column, user_id: Column, pseudonym: Column) -> Column:
    """The same as person.replaced in Spark, of one id per row."""
    from pyspark.sql import functions as F

    quoted = F.concat(F.lit("\\Q"), F.replace(user_id, F.lit("\\E"), F.lit("\\E\\\\E\\Q")), F.lit("\\E"))
    word = F.concat(F.lit(r"(?<![\p{L}\p{N}])"), quoted, F.lit(r"(?![\p{L}\p{N}])"))
    is_said = (F.length(user_id) >= LEAST) & text.contains(user_id)
    return F.when(is_said, F.regexp_replace(text, word, pseudonym)).otherwise(text)


def require_same_key(books: Sequence[Mapping[str, Any]], ids: Pseudonyms | None) -> None:
    """Raise UsageError where the books of clean_events say that dates were cleaned under another key, or none.

    Ids of two keys are strangers to each other: every user would be taken for a new one.
    """
    other = dates_of_other_keys(books, ids)
    if other:
        first = min(other)
        raise UsageError(
            f"{len(other)} ingest dates, {first} first, were cleaned {_told(other[first])}, and privacy now asks for "
            f"ids {_told(ids.key_id if ids else None)}; set it back, or start the history anew from the raw files with "
            "`nightrec rekey`"
        )


def dates_of_other_keys(books: Sequence[Mapping[str, Any]], ids: Pseudonyms | None) -> dict[date, str | None]:
    """Dates with lines that were cleaned under another key than this one's, each with that key's name, if any."""
    keys = {row["run_date"]: row["reason"] for row in books if row["fate"] == KEY}
    read = {row["run_date"] for row in books if row["fate"] == "read" and row["row_count"]}
    asked = ids.key_id if ids else None
    return {day: keys.get(day) for day in read if keys.get(day) != asked}


def _told(key_id: str | None) -> str:
    return f"under the key {key_id}" if key_id else "without pseudonyms"

