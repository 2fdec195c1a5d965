"""Whose lists differ between two nights, and how. From ranked_topk: what a night made, published or not.

Two passes, batch by batch: which lists have another fingerprint, then the items of those alone. What is held at once is
a fingerprint per list, and the lists that differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from nightrec.errors import UsageError
from nightrec.store import dataset, partitions
from nightrec.tables import RANKED_TOPK

Key = tuple[str, str]


@dataclass(frozen=True)
class Change:
    """One list that differs: items that came in, went out (each with its rank), and moved (rank before, rank after)."""

    list_kind: str
    list_key: str
    entered: dict[str, int]
    left: dict[str, int]
    moved: dict[str, tuple[int, int]]

    def told(self) -> str:
        """In a line."""
        parts = [f"+{item} at {rank}" for item, rank in self.entered.items()]
        parts += [f"-{item} from {rank}" for item, rank in self.left.items()]
        parts += [f"{item} {before} to {after}" for item, (before, after) in self.moved.items()]
        return f"{self.list_kind} {self.list_key}: {', '.join(parts)}"


@dataclass(frozen=True)
class Difference:
    """Two nights' lists: how many are the same, differ, and are of one night only, by kind; and those not the same."""

    counts: dict[str, dict[str, int]]
    changes: list[Change]


def diff(warehouse: str, before: date, after: date) -> Difference:
    """What the lists of `after` have otherwise than those of `before`. UsageError where a night has none."""
    there = {part["run_date"] for part in partitions(warehouse, RANKED_TOPK)}
    for night in (before, after):
        if f"{night}" not in there:
            raise UsageError(f"no lists of {night}; there are some of {', '.join(sorted(there)) or 'no night'}")
    first, second = (_fingerprints(warehouse, night) for night in (before, after))
    counts: dict[str, Counter[str]] = {}
    for key in first.keys() | second.keys():
        fate = "gone" if key not in second else "new" if key not in first else "differ"
        counts.setdefault(key[0], Counter())["same" if first.get(key) == second.get(key) else fate] += 1
    other = {key for key in first.keys() | second.keys() if first.get(key) != second.get(key)}
    old, new = (_items(warehouse, night, other) for night in (before, after))
    changes = [_change(key, old.get(key, {}), new.get(key, {})) for key in sorted(other)]
    return Difference({kind: dict(counts[kind]) for kind in sorted(counts)}, changes)


def _batches(warehouse: str, night: date, columns: list[str], where: Any) -> Iterator[pa.RecordBatch]:
    rows = dataset(warehouse, RANKED_TOPK, {"run_date": night})
    yield from rows.scanner(columns=columns, filter=where, use_threads=False).to_batches()


def _fingerprints(warehouse: str, night: date) -> dict[Key, str]:
    """Of each list by its key; the first row of a list says it."""
    found: dict[Key, str] = {}
    for batch in _batches(warehouse, night, ["list_kind", "list_key", "list_id"], pc.field("rank") == 1):
        columns = (batch[name].to_pylist() for name in ("list_kind", "list_key", "list_id"))
        found |= {(kind, key): id_ for kind, key, id_ in zip(*columns, strict=True)}
    return found


def _items(warehouse: str, night: date, keys: set[Key]) -> dict[Key, dict[str, int]]:
    """Ranks by item of the lists asked for."""
    found: dict[Key, dict[str, int]] = {}
    if not keys:
        return found
    wanted = pc.field("list_key").isin(sorted({key for _, key in keys}))
    for batch in _batches(warehouse, night, ["list_kind", "list_key", "item_id", "rank"], wanted):
        for row in batch.to_pylist():
            if (key := (row["list_kind"], row["list_key"])) in keys:
                found.setdefault(key, {})[row["item_id"]] = row["rank"]
    return found


def _change(key: Key, old: dict[str, int], new: dict[str, int]) -> Change:
    def ranked(items: dict[str, int], but: dict[str, int]) -> dict[str, int]:
        return {item: rank for item, rank in sorted(items.items(), key=lambda pair: pair[1]) if item not in but}

    moved = {item: (old[item], rank) for item, rank in ranked(new, {}).items() if old.get(item, rank) != rank}
    return Change(*key, ranked(new, old), ranked(old, new), moved)
