"""Measure nightrec beside its peers: `make bench`, or `make bench ONLY=topk` for one of them.

Each benchmark writes infra/benchmarks/results/NAME.json; the README's table is generated from these files. The last
lines say of every goal whether it was met.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from pathlib import Path

from measure import Report, machine

HERE = Path(__file__).resolve().parent
# In the order in which they run. Each is a module of this folder.
BENCHMARKS: tuple[str, ...] = ("als", "topk", "embedding", "cleaning", "ranker", "nights", "cluster", "growth")


def run(name: str, *, smoke: bool, results: Path | None) -> Report:
    """Run one benchmark; its figures go into `results`, if that is given."""
    print(f"{name}", flush=True)
    report, start = Report(), time.monotonic()
    module = importlib.import_module(name)
    module.run(report, smoke=smoke)
    found = {
        "benchmark": name,
        "machine": machine(),
        "versions": module.versions(),
        "minutes": round((time.monotonic() - start) / 60, 1),
        **report.plain(),
    }
    if results:
        results.mkdir(parents=True, exist_ok=True)
        (results / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    return report


def main() -> None:
    """Command line; exit status 1 where the contestants of a benchmark did not do equal work."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help=f"one of {', '.join(BENCHMARKS)}")
    parser.add_argument("--smoke", action="store_true", help="tiny data, no results: does it run at all")
    asked = parser.parse_args()
    if asked.only and asked.only not in BENCHMARKS:
        parser.error(f"there is no benchmark {asked.only}; there are {', '.join(BENCHMARKS)}")
    names = (asked.only,) if asked.only else BENCHMARKS
    reports = [run(name, smoke=asked.smoke, results=None if asked.smoke else HERE / "results") for name in names]
    print()
    for report in reports:
        print(*report.lines(), sep="\n")
    sys.exit(any(not check.holds for report in reports for check in report.checks))


if __name__ == "__main__":
    main()
