"""MovieLens-100K as a deployment: a raw root with one folder per day, and the config beside it.

    python infra/demo/movielens.py --out var/demo

Writes raw/events/ingest_date=YYYY-MM-DD/part-0.jsonl.gz (every rating in the folder of its own UTC day), one snapshot
of items and one of users in the folder of the first day, and nightrec.toml. The same bytes every time; what is there
already is left as it is.

What is known when: a rating arrives on its day. The source says of films only the year of release and not since when
they were on offer, so all are listed from the start; titles, genres and years are facts of the film and tell nothing of
later ratings. The users' ages and occupations are those of their registration.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

CONFIG = Path(__file__).resolve().parents[1] / "config" / "demo.toml"
SOURCES = ("ml-100k.inter", "ml-100k.item", "ml-100k.user")
# The bands of MovieLens's own later releases: the first year of each.
AGE_BANDS = (
    (56, "56 or older"), (50, "50-55"), (45, "45-49"), (35, "35-44"), (25, "25-34"), (18, "18-24"), (0, "under 18"),
)

Record = dict[str, Any]


def main() -> None:
    """Write the deployment where it is missing."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nightrec" / "movielens"
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="the deployment's folder")
    about = f"folder of {', '.join(SOURCES)}"
    arguments.add_argument("--source", default=cache, type=Path, metavar="FOLDER", help=about)
    options = arguments.parse_args()
    missing = [name for name in SOURCES if not (options.source / name).is_file()]
    if missing:
        sys.exit(f"{options.source} lacks {', '.join(missing)}; infra/setup/data.sh puts MovieLens-100K there")
    nights = deploy(options.source, options.out)
    done = f"{nights} nights written to" if nights else "there already:"
    print(f"MovieLens-100K {done} {options.out}")


def deploy(source: Path, out: Path) -> int:
    """Write the raw root and the config into `out`, each where it is missing; the nights written."""
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "nightrec.toml").exists():
        shutil.copyfile(CONFIG, out / "nightrec.toml")
    if (out / "raw").exists():
        return 0
    # The raw root appears whole or not at all.
    unfinished = out / ".raw"
    shutil.rmtree(unfinished, ignore_errors=True)
    nights = 0
    for day, group in groupby(ratings(source), key=lambda rating: str(rating["event_ts"])[:10]):
        if not nights:
            write(unfinished / "items", day, items(source))
            write(unfinished / "users", day, users(source))
        write(unfinished / "events", day, group)
        nights += 1
    unfinished.rename(out / "raw")
    return nights


def ratings(source: Path) -> Iterator[Record]:
    """The ratings as events, oldest first."""
    names = ("timestamp", "user_id", "item_id", "rating")
    for seconds, user, item, stars in sorted(tuple(int(row[name]) for name in names) for row in rows(source, "inter")):
        time = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        yield {"user_id": str(user), "item_id": str(item), "event_type": "rating", "event_ts": time, "value": stars}


def items(source: Path) -> Iterator[Record]:
    """The films: title, genres, year of release. One has neither a known title, nor genre, nor year."""
    for row in rows(source, "item"):
        yield {
            "item_id": row["item_id"],
            "title": "Unknown" if row["movie_title"] == "unkonwn" else row["movie_title"],
            "categories": [genre for genre in row["class"].split(" ") if genre not in {"", "unknown"}],
            "attributes": {"year": row["release_year"]} if row["release_year"].isdigit() else {},
        }


def users(source: Path) -> Iterator[Record]:
    """The people: age band, gender, occupation."""
    for row in rows(source, "user"):
        band = next(name for youngest, name in AGE_BANDS if int(row["age"]) >= youngest)
        attributes = {"age_band": band, "gender": row["gender"], "occupation": row["occupation"]}
        yield {"user_id": row["user_id"], "attributes": attributes}


def rows(source: Path, kind: str) -> Iterator[dict[str, str]]:
    """Rows of a tab-separated file whose header names and types its columns (user_id:token)."""
    header, *lines = (source / f"ml-100k.{kind}").read_text(encoding="utf-8").splitlines()
    names = [column.partition(":")[0] for column in header.split("\t")]
    for line in lines:
        yield dict(zip(names, line.split("\t"), strict=True))


def write(folder: Path, day: str, records: Iterator[Record]) -> None:
    """Records as gzipped JSON lines of one ingest date; no file name and no time in the bytes."""
    lines = "".join(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n" for record in records)
    target = folder / f"ingest_date={day}"
    target.mkdir(parents=True)
    (target / "part-0.jsonl.gz").write_bytes(gzip.compress(lines.encode(), compresslevel=6, mtime=0))


if __name__ == "__main__":
    main()
