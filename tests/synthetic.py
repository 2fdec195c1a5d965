"""A tiny shop with two planted tastes, as raw files in the contract: the same bytes for the same arguments.

Even users like even items (records), odd users odd items (garden tools): any personal list must lean to its own half.
Import it as `from synthetic import write_raw` (tests/ is on the path of every test).
"""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

FIRST = date(2026, 1, 30)
_WORDS = (
    ("records", ("jazz", "blues", "opera", "soul"), ("trumpet record", "piano album", "concert tape", "vinyl single")),
    ("garden", ("lawn", "rose", "herb", "hedge"), ("garden spade", "watering can", "pruning shears", "flower pot")),
)


@dataclass(frozen=True)
class Shop:
    """What was written: the last ingest date, and what clean_events must book over all dates (read is their sum)."""

    last: date
    accepted: int
    duplicates: int
    rejected: int
    late: int


def item_id(index: int) -> str:
    """The id of an item; its parity is its taste."""
    return f"i{index:03d}"


def user_id(index: int) -> str:
    """The id of a user; its parity is its taste."""
    return f"u{index:03d}"


def taste(name: str) -> int:
    """0 for records, 1 for garden: of a user id or an item id."""
    return int(name[1:]) % 2


def write_raw(root: Path, users: int = 60, items: int = 80, days: int = 40, first: date = FIRST, seed: int = 7) -> Shop:
    """Write events, a catalogue on the first date and users. One event in ten goes to the other taste.

    The last date but one also brings a line that is no JSON, an event written twice and an event three days late.
    """
    draw = random.Random(seed)
    _catalogue(root, items, first)
    _users(root, users, first)
    accepted = 0
    for n in range(days):
        day = first + timedelta(days=n)
        lines = [_event(draw, day, user, items, at) for user in range(users) for at in range(draw.choice((0, 0, 1, 2)))]
        accepted += len(lines)
        if n == days - 2:
            late = {**_event(draw, day - timedelta(days=3), 0, items, 9), "event_id": "late"}
            lines = [*lines, lines[0], late]
            accepted += 1
        text = "".join(json.dumps(line) + "\n" for line in lines) + ("{broken\n" if n == days - 2 else "")
        folder = root / "events" / f"ingest_date={day}"
        folder.mkdir(parents=True)
        # A fixed time in the header keeps the bytes the same.
        (folder / "part-0.jsonl.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    return Shop(last=first + timedelta(days=days - 1), accepted=accepted, duplicates=1, rejected=1, late=1)


def _event(draw: random.Random, day: date, user: int, items: int, at: int) -> dict[str, Any]:
    own = user % 2 if draw.random() < 0.9 else 1 - user % 2
    # Squaring favours low numbers: every taste has a few popular items and a tail.
    item = 2 * int((items // 2) * draw.random() ** 2) + own
    moment = datetime(day.year, day.month, day.day, 8, tzinfo=UTC) + timedelta(minutes=10 * user + at)
    return {
        "event_id": f"{day}-{user}-{at}", "user_id": user_id(user), "item_id": item_id(item),
        "event_type": draw.choice(("view", "view", "click", "like", "purchase")), "event_ts": moment.isoformat(),
    }


def _catalogue(root: Path, items: int, day: date) -> None:
    lines = []
    for index in range(items):
        category, kinds, things = _WORDS[index % 2]
        kind, thing = kinds[index // 2 % 4], things[index // 8 % 4]
        lines.append({
            "item_id": item_id(index), "title": f"{kind} {thing} {index}".capitalize(), "categories": [category],
            "tags": [kind],
        })
    _snapshot(root / "items", day, lines)


def _users(root: Path, users: int, day: date) -> None:
    """Every tenth user blocks the item everybody of the own taste likes best; one user never did anything."""
    lines: list[dict[str, Any]] = [
        {
            "user_id": user_id(u), "attributes": {"region": ("north", "south")[u // 2 % 2]},
            "blocked_items": [item_id(u % 2)] if u % 10 == 0 else [],
        }
        for u in range(users)
    ]
    _snapshot(root / "users", day, [*lines, {"user_id": user_id(users), "attributes": {"region": "north"}}])


def _snapshot(folder: Path, day: date, lines: list[dict[str, Any]]) -> None:
    target = folder / f"ingest_date={day}"
    target.mkdir(parents=True)
    (target / "part-0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def rename_user(raw: Path, index: int, name: str) -> None:
    """Call a user by another id in every raw file."""
    for file in raw.rglob("part-0.jsonl*"):
        packed = file.suffix == ".gz"
        text = gzip.decompress(file.read_bytes()).decode() if packed else file.read_text()
        text = text.replace(f'"{user_id(index)}"', f'"{name}"')
        file.write_bytes(gzip.compress(text.encode(), mtime=0) if packed else text.encode())


def deployment(folder: Path, past_cuts: int = 3, **sizes: int) -> tuple[Path, Shop]:
    """A whole deployment: raw files and a nightrec.toml (also returned) whose models are as small as they may be."""
    shop = write_raw(folder / "raw", **sizes)
    config = folder / "nightrec.toml"
    config.write_text(
        "\n".join([
            "[spark]", 'master = "local[2]"', "partitions = 2", 'driver_memory = "2g"', "",
            "[als]", "rank = 8", "iterations = 3", "",
            "[lists]", "k = 5", "",
            "[candidates]", "als = 20", "cooccurrence = 20", "text = 20", "segment = 20", "popularity = 20",
            "repeats_allowed = false", "",
            "[ranker]", f"past_cuts = {past_cuts}", "horizon_days = 7", "hidden = [8]", "epochs = 2", "batch = 256",
            "trees = 10", "",
        ])
    )
    return config, shop
