"""A raw log to clean, generated from a seed: JSON lines of the raw contract as a collector delivers them.

Of every line it is decided on its own which optional fields it has; a share is a copy of another line, and a share
is broken in one of ten ways. Popularity of users and items falls as a power law.
"""

from __future__ import annotations

import gzip
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

FIRST_DATE = date(2026, 3, 1)
_KINDS = ("view", "impression", "click", "like", "favourite", "comment", "rating", "purchase")
_KIND_SHARES = (0.50, 0.20, 0.15, 0.04, 0.02, 0.02, 0.04, 0.03)
_WORDS = ("very", "good", "not", "what", "was", "hoped", "for", "arrived", "late", "blue", "again", "small", "gift")


@dataclass(frozen=True)
class Log:
    """What is in a log: `dates` ingest dates of `files` gzipped files of `lines` lines each.

    `hot_user` is the share of one user in all lines, `hot_item` that of one item; events then happen over `days` days,
    so that the hot user stays below a robot's rate.
    """

    lines: int
    files: int = 4
    dates: int = 3
    days: int = 1
    hot_user: float = 0.0
    hot_item: float = 0.0
    copies: float = 0.03
    broken: float = 0.02
    robots: float = 0.004
    seed: int = 17

    @property
    def total(self) -> int:
        return self.lines * self.files * self.dates

    @property
    def ingest_dates(self) -> list[date]:
        return [FIRST_DATE + timedelta(days=n) for n in range(self.dates)]


def write(log: Log, root: Path) -> int:
    """Write the log under `root`/events; bytes of its text before compression. The same bytes for the same `log`."""
    with ThreadPoolExecutor(2) as threads:
        return sum(threads.map(lambda part: _file(log, root, *part), np.ndindex(log.dates, log.files)))


def write_items(log: Log, root: Path) -> None:
    """A catalogue of the log's items: each with a title and one or two of 40 categories."""
    n = log.total // 40 + 10
    ranks = _text(np.arange(n))
    first, second = (_text(np.random.default_rng([log.seed, way]).integers(0, 40, n)) for way in (1, 2))
    lines = _joined(
        '{"item_id":"item-', ranks, '","title":"Item ', ranks, '","categories":["c', first, '","c', second, '"]}'
    )
    folder = root / "items" / f"ingest_date={FIRST_DATE}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "part-00.jsonl").write_text("\n".join(lines.to_pylist()) + "\n")


def _file(log: Log, root: Path, day: int, number: int) -> int:
    """One file of one ingest date."""
    rng = np.random.default_rng([log.seed, day, number])
    lines = _lines(log, rng, day)
    # Copies are of lines that all files share: some lie within an ingest date, some across dates.
    shared = _lines(replace(log, lines=log.lines // 50 + 1), np.random.default_rng([log.seed, 999]), 0)
    is_copy = rng.random(log.lines) < log.copies
    lines[is_copy] = shared[rng.integers(0, len(shared), int(is_copy.sum()))]
    folder = root / "events" / f"ingest_date={log.ingest_dates[day]}"
    folder.mkdir(parents=True, exist_ok=True)
    text = ("\n".join(lines.tolist()) + "\n").encode()
    (folder / f"part-{number:02}.jsonl.gz").write_bytes(gzip.compress(text, 4, mtime=0))
    return len(text)


def _lines(log: Log, rng: np.random.Generator, day: int) -> np.ndarray:
    """`log.lines` lines as an array of str objects."""
    n = log.lines
    acting = (rng.pareto(0.8, n) * 40).astype(np.int64) % (log.total // 12 + 9)
    users = _ids("u", acting, rng.random(n) < log.hot_user)
    users = pc.if_else(pa.array(rng.random(n) < log.robots), f"robot{day}", users)
    chosen = (rng.pareto(0.7, n) * 30).astype(np.int64) % (log.total // 40 + 9)
    items = _ids("item-", chosen, rng.random(n) < log.hot_item)
    kind = rng.choice(len(_KINDS), n, p=_KIND_SHARES)
    rated, bought, spoke = (kind == _KINDS.index(name) for name in ("rating", "purchase", "comment"))
    start = int(datetime(FIRST_DATE.year, FIRST_DATE.month, FIRST_DATE.day, tzinfo=UTC).timestamp() * 1000)
    end = start + (day + 1) * 86_400_000
    happened = end - 1 - (rng.random(n) * 86_400_000 * log.days).astype(np.int64)
    # Robots are robots by their rate: theirs lie in one hour.
    happened = np.where(np.array(pc.starts_with(users, "robot")), end - 3_600_000 + happened % 3_600_000, happened)
    value = np.where(rated, rng.integers(1, 6, n), rng.integers(1, 4, n))
    words = np.array(_WORDS, dtype=object)[rng.integers(0, len(_WORDS), (n, 8))]
    said = pa.array([" ".join(row) for row in words[spoke]], pa.string())
    event_id = _joined('"event_id":"', _hex(rng, n), "-", _hex(rng, n), '",')
    device = pa.array(["ios", "android", "web"]).take(pa.array(rng.integers(0, 3, n)))
    region = pa.array(["emea", "apac", "amer", "latam"]).take(pa.array(rng.integers(0, 4, n)))
    rank, list_id = _text(rng.integers(1, 40, n)), _hex(rng, n)
    context = _joined(
        ',"context":{"device":"', device, '","region":"', region, '","surface":"home","rank":', rank,
        ',"list_id":"', list_id, '"}',
    )  # fmt: skip
    text = pc.replace_with_mask(pa.array([""] * n), pa.array(spoke), _joined(',"text":"', said, '"'))
    parts = [
        "{", _some(rng, n, 0.7, event_id),
        '"user_id":"', users, '","item_id":"', items, '","event_type":"',
        pa.array(_KINDS).take(pa.array(kind)), '","event_ts":', _times(happened, rng.random(n) < 0.6),
        pc.if_else(pa.array(rated | bought), _joined(',"value":', _text(value)), ""), text,
        _some(rng, n, 0.6, _joined(',"sent_ts":', _times(happened + rng.integers(0, 90_000, n), rng.random(n) < 0.6))),
        _some(rng, n, 0.8, _joined(',"received_ts":"', _iso(happened + rng.integers(0, 99_000, n)), '"')),
        _some(rng, n, 0.6, context), "}",
    ]  # fmt: skip
    lines = np.array(_joined(*parts).to_pylist(), dtype=object)
    return _broken(lines, rng, log.broken)


def _broken(lines: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Breaks a share of the lines, each in one of ten ways."""
    ways = (
        lambda line: line[: len(line) // 2],
        lambda line: line + " rubbish",
        lambda line: f"not json: {line[9:15]}",
        lambda line: line.replace('"user_id":"', '"user":"'),
        lambda line: line.replace('"item_id":"', '"item_id":" ","was":"'),
        lambda line: line.replace('"event_ts":', '"event_ts":"yesterday","was":'),
        lambda line: line.replace('"event_ts":', '"event_ts":1773136800,"was":'),
        lambda line: line.replace('"event_type":"', '"event_type":"hover","was":"'),
        lambda line: line.replace('"value":', '"was":').replace("{", '{"value":"many",', 1),
        lambda line: line.replace('"event_ts":', '"event_ts":"2031-01-01T00:00:00Z","was":'),
    )
    for at in np.flatnonzero(rng.random(len(lines)) < share):
        lines[at] = ways[rng.integers(0, len(ways))](lines[at])
    return lines


def _ids(prefix: str, numbers: np.ndarray, is_hot: np.ndarray) -> pa.Array:
    return _joined(prefix, _text(np.where(is_hot, 0, numbers + 1)))


def _hex(rng: np.random.Generator, n: int) -> pa.Array:
    """16 hexadecimal digits each."""
    ends = np.arange(0, 16 * n + 16, 16, dtype=np.int32)
    digits = rng.bytes(8 * n).hex().encode()
    return pa.Array.from_buffers(pa.string(), n, [None, pa.py_buffer(ends), pa.py_buffer(digits)])


def _times(millis: np.ndarray, is_text: np.ndarray) -> pa.Array:
    """ISO-8601 in quotes where `is_text`, else epoch milliseconds."""
    return pc.if_else(pa.array(is_text), _joined('"', _iso(millis), '"'), _text(millis))


def _iso(millis: np.ndarray) -> pa.Array:
    return pc.strftime(pa.array(millis, pa.timestamp("ms", "UTC")), "%Y-%m-%dT%H:%M:%SZ")


def _text(numbers: np.ndarray) -> pa.Array:
    return pc.cast(pa.array(numbers), pa.string())


def _joined(*parts: pa.Array | str) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")


def _some(rng: np.random.Generator, n: int, share: float, texts: pa.Array) -> pa.Array:
    """`texts` in a share of the lines, nothing in the others."""
    return pc.if_else(pa.array(rng.random(n) < share), texts, "")
