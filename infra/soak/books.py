"""The books on a million generated lines, 5 % of them broken in every way a fuzzer finds: prints what became of them.

    python infra/soak/books.py --lines 1000000 --seed 7

Every line's fate is known when it is written (tests/fated_lines.py). Exit code 1 where the books differ by one line.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
import fated_lines
import pyarrow.compute as pc
from nightrec_jobs import clean_events

from nightrec.config import Config, Paths, Spark
from nightrec.night import Night
from nightrec.report.books import FATES
from nightrec.session import session
from nightrec.store import Store, arrow
from nightrec.tables import CLEAN_EVENTS, LEDGER, REJECTED_EVENTS


def check(folder: Path, lines: int, seed: int) -> dict[str, object]:
    """Generate and clean so many lines under a folder; the figures. Raises AssertionError where a line is missing."""
    paths = Paths(**{name: str(folder / name) for name in Paths.model_fields})
    config = Config(paths=paths, spark=Spark(partitions=8))
    log = fated_lines.write(folder / "raw", lines, seed=seed)
    spark, started = session(config.spark, "books"), time.monotonic()
    store = Store(spark, paths.warehouse, run_id="soak")
    try:
        Night(spark, config, log.dates[-1], store=store).run("clean_events", clean_events.run)
    finally:
        store.close()
    seconds = time.monotonic() - started
    rows = arrow(paths.warehouse, LEDGER, {"stage": "clean_events"}).to_pylist()
    booked = Counter({(r["run_date"], r["fate"], r["reason"]): r["row_count"] for r in rows if r["fate"] in FATES})
    read = sum(r["row_count"] for r in rows if r["fate"] == "read")
    differing = {key: (booked[key], log.fates[key]) for key in booked | log.fates if booked[key] != log.fates[key]}
    assert not differing, f"books and what was written differ: {differing}"
    assert read == log.lines == sum(booked.values())
    clean, rejected = arrow(paths.warehouse, CLEAN_EVENTS), arrow(paths.warehouse, REJECTED_EVENTS)
    nulls = sum(clean[column.name].null_count for column in CLEAN_EVENTS.columns if not column.nullable)
    assert nulls == 0 and clean.num_rows == len(log.ids) == pc.count_distinct(clean["event_key"]).as_py()
    totals: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for (_, fate, reason), count in booked.items():
        totals["robot" if reason == "robot" else fate] += count
        reasons.update({reason: count} if reason else {})
    assert rejected.num_rows == totals["rejected"] + totals["robot"]
    broken = totals["rejected"] / read
    return {"lines": read, **dict(totals), "broken_share": round(broken, 4), "reasons": dict(reasons),
            "rows_of_nulls": nulls, "seconds_of_cleaning": round(seconds, 1)}  # fmt: skip


def main() -> None:
    """Check in a folder that is gone afterwards, and print the figures."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--lines", type=int, default=1_000_000)
    arguments.add_argument("--seed", type=int, default=7)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="nightrec-books-") as folder:
        try:
            found = check(Path(folder), options.lines, options.seed)
        except AssertionError as error:
            sys.exit(f"seed {options.seed}: {error}")
    for name, value in {"seed": options.seed, **found}.items():
        print(f"{name}: {value}")
    fates = (f"{found.get(fate, 0):,} {fate}" for fate in (*FATES, "robot"))
    print(f"{found['lines']:,} read = {' + '.join(fates)}")


if __name__ == "__main__":
    main()
