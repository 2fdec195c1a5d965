"""A made-up magazine in the raw contract: most of what is read came out yesterday, so that new items are the task.

    python infra/quality/magazine.py --out var/magazine

Twenty-four days, 600 readers with tastes among twelve topics, 60 articles a day. An article is read by how well it is
made and how its topic is liked, half as much a day later, and not after four days. Its title has five of its topic's 25
words, and nobody else's: by construction texts tell whom a new article is for. A catalogue snapshot a day names what
has come out by then. The same bytes for the same seed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

FIRST, DAYS, READERS, ARTICLES, TOPICS, WORDS = date(2026, 3, 1), 24, 600, 60, 12, 25
# Days after which an article is read by 1/e as many; and after which nobody reads it.
_FADES, _ENDS = 1.2, 4.0


def main() -> None:
    """Command line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="raw root to write")
    arguments.add_argument("--seed", type=int, default=4)
    options = arguments.parse_args()
    print(f"{write(options.out, options.seed):,} events of {DAYS} days written to {options.out}")


def write(out: Path, seed: int = 4) -> int:
    """Write the log; how many events it has."""
    draw = np.random.default_rng(seed)
    taste = draw.dirichlet(np.full(TOPICS, 0.25), READERS)
    activity = draw.gamma(1.2, 1.6, READERS)
    topic = draw.integers(TOPICS, size=DAYS * ARTICLES)
    born = np.repeat(np.arange(DAYS), ARTICLES) + 0.7 * draw.random(DAYS * ARTICLES)
    quality = draw.lognormal(0, 1, DAYS * ARTICLES)
    titles = [" ".join(f"word{word}of{of}" for word in draw.choice(WORDS, 5, replace=False)) for of in topic]
    count = 0
    for day in range(DAYS):
        events = []
        for reader in range(READERS):
            now = day + 0.9 * draw.random()
            age = now - born
            fresh = np.where((age > 0) & (age < _ENDS), np.exp(-age / _FADES), 0.0)
            likes = quality * fresh * (taste[reader, topic] + 0.02)
            read = min(draw.poisson(activity[reader]), np.count_nonzero(likes))
            if read:
                chosen = draw.choice(len(likes), read, replace=False, p=likes / likes.sum())
                events += [_event(reader, int(article), now) for article in chosen]
        known = ({"item_id": f"a{n:05}", "title": titles[n]} for n in range((day + 1) * ARTICLES))
        _lines(out, "items", day, known)
        _lines(out, "events", day, events)
        count += len(events)
    return count


def _event(reader: int, article: int, moment: float) -> Mapping[str, Any]:
    then = datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC) + timedelta(days=moment)
    ids = {"user_id": f"r{reader:03}", "item_id": f"a{article:05}"}
    return {**ids, "event_type": "click", "event_ts": then.isoformat(timespec="seconds")}


def _lines(out: Path, kind: str, day: int, rows: Iterable[Mapping[str, Any]]) -> None:
    folder = out / kind / f"ingest_date={FIRST + timedelta(days=day)}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "part-0.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
