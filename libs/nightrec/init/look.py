"""What a log of events looks like: size, span, kinds of events, how often people come back to the same item."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

# Pairs of a user and an item are held for this many events at most; beyond it for half of the users, a quarter ...
PAIRS_HELD = 4_000_000


@dataclass(frozen=True)
class Figures:
    """Counts over the events that have a user, an item and a time.

    `repeat_share`: of the events of the later half of the log's days, the share whose user and item met on an earlier
    day (0 where there is one day only); measured over one user in `one_user_in`. `busiest` is the user with most
    events in one clock hour.
    """

    rows: int
    incomplete: int
    users: int
    items: int
    first: date | None
    last: date | None
    types: dict[str, int]
    repeat_share: float
    one_user_in: int
    busiest: tuple[str, int]

    @property
    def days(self) -> int:
        """Days from the first event to the last, both counted; 0 where there is none."""
        return (self.last - self.first).days + 1 if self.first and self.last else 0


class Look:
    """Adds up figures batch by batch in bounded memory: hashes instead of ids, a share of the users for the pairs."""

    def __init__(self) -> None:
        self.rows = self.incomplete = 0
        self.types: Counter[str] = Counter()
        self.busiest = ("", 0)
        self.one_user_in = 1
        self._users, self._items = _Distinct(), _Distinct()
        self._pairs: list[np.ndarray] = []
        self._held = 0
        self._first: np.datetime64 | None = None
        self._last: np.datetime64 | None = None

    def add(self, user: pa.Array, item: pa.Array, kind: pa.Array, times: pd.Series) -> None:
        """Add events; a day must not be split over two calls if its busiest hour is to be found exactly."""
        self.rows += len(user)
        whole = pc.and_(pc.and_(pc.is_valid(user), pc.is_valid(item)), pa.array(times.notna().to_numpy()))
        self.types.update({str(e["values"]): e["counts"] for e in pc.value_counts(kind).to_pylist()})
        keep = np.asarray(whole)
        self.incomplete += int(len(keep) - keep.sum())
        if not keep.any():
            return
        user, item = pc.filter(user, whole), pc.filter(item, whole)
        stamps = times[keep].dt.tz_localize(None).to_numpy().astype("datetime64[h]")
        users, items = _hashes(user), _hashes(item)
        self._users.add(users)
        self._items.add(items)
        self._hour(user, users, stamps)
        self._first = min(self._first or stamps.min(), stamps.min())
        self._last = max(self._last or stamps.max(), stamps.max())
        self._pair(users, items, stamps.astype("datetime64[D]").astype(np.int64).astype(np.uint64))

    def figures(self) -> Figures:
        """What was added up."""
        return Figures(
            self.rows,
            self.incomplete,
            self._users.count(),
            self._items.count(),
            _day(self._first),
            _day(self._last),
            dict(sorted(self.types.items(), key=lambda entry: (-entry[1], entry[0]))),
            self._repeats(),
            self.one_user_in,
            self.busiest,
        )

    def _hour(self, user: pa.Array, users: np.ndarray, stamps: np.ndarray) -> None:
        """Keep the user with most events in one hour; of equals the one first in order of ids."""
        cells = (
            pd.DataFrame({"user": users, "hour": stamps.astype(np.int64)}).groupby(["user", "hour"], sort=False).size()
        )
        most = int(cells.max())
        if most < self.busiest[1]:
            return
        busy = np.isin(users, cells[cells == most].index.get_level_values("user"))
        name = min(pc.unique(pc.filter(user, pa.array(busy))).to_pylist())
        if most > self.busiest[1] or name < self.busiest[0]:
            self.busiest = (name, most)

    def _pair(self, users: np.ndarray, items: np.ndarray, days: np.ndarray) -> None:
        kept = users % np.uint64(self.one_user_in) == 0
        pair = (users * np.uint64(0x9E3779B97F4A7C15)) ^ items
        self._pairs.append(np.column_stack([pair, days, users])[kept])
        self._held += int(kept.sum())
        while self._held > PAIRS_HELD:
            self.one_user_in *= 2
            self._pairs = [rows[rows[:, 2] % np.uint64(self.one_user_in) == 0] for rows in self._pairs]
            self._held = sum(len(rows) for rows in self._pairs)

    def _repeats(self) -> float:
        if not self._pairs or self._first is None or self._last is None:
            return 0.0
        rows = np.concatenate(self._pairs)
        pair, day = rows[:, 0], rows[:, 1]
        first = pd.Series(day).groupby(pair).transform("min").to_numpy()
        middle = (
            self._first.astype("datetime64[D]").astype(np.int64) + self._last.astype("datetime64[D]").astype(np.int64)
        ) / 2
        later = day > middle
        return float((day[later] > first[later]).mean()) if later.any() else 0.0


class _Distinct:
    """A count of distinct hashes that folds what it holds whenever it has doubled."""

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []
        self._held, self._fold_at = 0, 1_000_000

    def add(self, hashes: np.ndarray) -> None:
        part = np.unique(hashes)
        self._parts.append(part)
        self._held += len(part)
        if self._held > self._fold_at:
            self._fold_at = max(1_000_000, 2 * self.count())

    def count(self) -> int:
        self._parts = [np.unique(np.concatenate(self._parts))] if self._parts else []
        self._held = sum(map(len, self._parts))
        return self._held


def _hashes(ids: pa.Array) -> np.ndarray:
    """64-bit hashes of ids, each distinct id hashed once."""
    coded = ids.dictionary_encode()
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    hashed: np.ndarray = pd.util.hash_array(
        coded.dictionary.to_numpy(zero_copy_only=False).astype(object), categorize=False
    )
    taken: np.ndarray = hashed[coded.indices.to_numpy(zero_copy_only=False)]
    return taken


def _day(stamp: np.datetime64 | None) -> date | None:
    return None if stamp is None else stamp.astype("datetime64[D]").astype(date)
