"""Where somebody's id is said: in texts, in rows, in raw lines.

Columns that hold users' ids are compared whole, whatever the id. In all other text (comments, contexts, sentences of
the audit, raw lines) an id counts where it stands as a word, neither preceded nor followed by a letter or digit, and
only from LEAST characters on: a user called 5 is not meant by "5 stars". Columns of items are left alone: an item may
have the id of a user.
"""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

LEAST = 6
# What stands where the id of somebody stood who is forgotten.
GONE = "(forgotten)"
# Fields of a raw line that never mean the user, even where they say the same: items have ids of their own.
MEANT = frozenset({"item_id", "event_type", "event_ts", "value", "sent_ts", "received_ts"})
# Columns and fields of items; list_key is a user's or an item's, as list_kind says.
OF_ITEMS = frozenset({"item_id", "because_item_id", "recent_items", "blocked_items", "list_key"})

Mask = npt.NDArray[np.bool_]
# Bytes searched at a time, and those searched twice, more than an id has.
_BLOCK, _OVERLAP = 2**24, 2**16


@lru_cache(maxsize=64)
def _words(ids: tuple[str, ...]) -> re.Pattern[str] | None:
    long = sorted((re.escape(name) for name in ids if len(name) >= LEAST), key=len, reverse=True)
    # [^\W_]: a letter or digit of any script.
    return re.compile(rf"(?<![^\W_])(?:{'|'.join(long)})(?![^\W_])") if long else None


def mentions(text: str, ids: Sequence[str]) -> bool:
    """Whether a text says one of the ids as a word."""
    words = _words(tuple(ids))
    return bool(words and words.search(text))


def replaced(text: str, ids: Sequence[str], by: str) -> str:
    """The text with every such word replaced."""
    words = _words(tuple(ids))
    return words.sub(lambda _: by, text) if words else text


def values(line: str, name: str) -> list[Any]:
    """All that a raw line of JSON has under a name, which may stand there twice: numbers as their digits, objects as
    lists of pairs. None of what is no object; raises as json.loads does. A byte order mark is passed over."""
    found = json.loads(line.removeprefix("\ufeff"), object_pairs_hook=list, parse_int=str, parse_float=str)
    pairs = found if isinstance(found, list) else []
    return [pair[1] for pair in pairs if isinstance(pair, tuple) and pair[0] == name]


@dataclass(frozen=True)
class Person:
    """Somebody by all names: the id as the log has it, and the pseudonym where there are any."""

    ids: tuple[str, ...]

    def own(self, rows: pa.Table | pa.RecordBatch) -> Mask:
        """Which rows are the person's: of their user_id, of their list, or a rejected line that says them."""
        mask = np.zeros(rows.num_rows, bool)
        names, wanted = rows.schema.names, pa.array(self.ids)
        if "user_id" in names:
            mask |= _true(pc.is_in(rows["user_id"], value_set=wanted))
        if {"list_kind", "list_key"} <= set(names):
            is_user = pc.equal(rows["list_kind"], "user")
            mask |= _true(pc.and_(is_user, pc.is_in(rows["list_key"], value_set=wanted)))
        if "raw" in names:
            lines = rows["raw"]
            for row in np.flatnonzero(self._candidates(lines)):
                line = lines[row].as_py()
                mask[row] |= self.is_own_line(line) or mentions(line, self.ids)
        return mask

    def is_own_line(self, line: str) -> bool:
        """Whether a raw line of JSON is of the person's user_id."""
        try:
            return any(said in self.ids for said in values(line, "user_id") if isinstance(said, str))
        except (ValueError, RecursionError):
            return False

    def mentioned(self, rows: pa.Table | pa.RecordBatch) -> Mask:
        """Which rows say the person in some text, in columns of any nesting but those of items."""
        mask = np.zeros(rows.num_rows, bool)
        for name in rows.schema.names:
            column = rows[name]
            for chunk, start in _chunks(column):
                for texts, parents in _texts(name, chunk, np.arange(len(chunk))):
                    for at in np.flatnonzero(self._candidates(texts)):
                        mask[start + parents[at]] |= mentions(texts[int(at)].as_py(), self.ids)
        return mask

    def without(self, rows: pa.Table) -> pa.Table:
        """The rows of others, GONE where their texts said the person."""
        left = rows.filter(pa.array(~self.own(rows)))
        said = self.mentioned(left)
        if not said.any():
            return left
        for place, field in enumerate(left.schema):
            values = left[field.name].to_pylist()
            for row in np.flatnonzero(said):
                values[row] = self.scrubbed(values[row], field.name)
            left = left.set_column(place, field, pa.chunked_array([pa.array(values, field.type)]))
        return left

    def scrubbed(self, value: Any, name: str = "") -> Any:
        """A value of any nesting with GONE in place of the person; `name` is the column's or field's."""
        if name in OF_ITEMS or name in MEANT:
            return value
        if isinstance(value, str):
            return replaced(value, self.ids, GONE)
        if isinstance(value, dict):
            return {self.scrubbed(key): self.scrubbed(part, key) for key, part in value.items()}
        if isinstance(value, list):
            return [self.scrubbed(part) for part in value]
        # A map's entries are pairs.
        return tuple(self.scrubbed(part) for part in value) if isinstance(value, tuple) else value

    def said_in(self, content: bytes) -> bool:
        """Whether bytes say the person, as a word in UTF-8 or as JSON escapes it."""
        return self.said_by(io.BytesIO(content))

    def said_by(self, stream: IO[bytes] | gzip.GzipFile) -> bool:
        """The same of a stream, of which little is held at a time."""
        spelled = tuple(sorted({name for own in self.ids for name in (own, json.dumps(own)[1:-1])}))
        words, needles = _words(spelled), [name.encode() for name in spelled if len(name) >= LEAST]
        if not words:
            return False
        block, is_first = stream.read(_BLOCK), True
        while block:
            more = stream.read(_BLOCK)
            if any(needle in block for needle in needles):
                text = block.decode("utf-8", "replace")
                for found in words.finditer(text):
                    # What touches an edge stands whole in the block before or behind.
                    if (is_first or found.start() > 0) and (not more or found.end() < len(text)):
                        return True
            block, is_first = block[-_OVERLAP:] + more if more else b"", False
        return False

    def _candidates(self, texts: pa.Array | pa.ChunkedArray) -> Mask:
        """Which texts hold an id at all, quickly; also those that may spell it by JSON's escapes."""
        mask = np.zeros(len(texts), bool)
        for own in (*self.ids, "\\"):
            mask |= _true(pc.match_substring(texts, own))
        return mask


def _true(values: pa.Array | pa.ChunkedArray) -> Mask:
    found: Mask = pc.fill_null(values, False).to_numpy(zero_copy_only=False)
    return found.astype(bool)


def _chunks(column: pa.Array | pa.ChunkedArray) -> Iterator[tuple[pa.Array, int]]:
    start = 0
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        yield chunk, start
        start += len(chunk)


def may_hold_text(kind: pa.DataType) -> bool:
    """Whether values of a type may be or hold strings."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return may_hold_text(kind.value_type)
    plain = pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_temporal(kind)
    return not (plain or pa.types.is_boolean(kind))


def _texts(
    name: str, values: pa.Array, parents: npt.NDArray[np.int64]
) -> Iterator[tuple[pa.Array, npt.NDArray[np.int64]]]:
    """The arrays of strings within an array, each with the row that every string belongs to."""
    kind = values.type
    if name in OF_ITEMS:
        return
    if pa.types.is_dictionary(kind):
        yield from _texts(name, values.dictionary_decode(), parents)
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        yield values, parents
    elif pa.types.is_map(kind):
        offsets = values.offsets.to_numpy()
        rows = np.repeat(parents, np.diff(offsets))
        inner = slice(int(offsets[0]), int(offsets[-1]))
        for part in (values.keys, values.items):
            yield from _texts("", part[inner], rows)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        if may_hold_text(kind):
            flat = values.flatten()
            yield from _texts(name, flat, parents[values.value_parent_indices().to_numpy()])
    elif pa.types.is_struct(kind):
        for field, part in zip(kind, values.flatten(), strict=True):
            yield from _texts(field.name, part, parents)
