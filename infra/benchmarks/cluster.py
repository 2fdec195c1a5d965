"""One whole night on a standalone cluster of separate processes: the same tables as in one process.

A master and two one-core workers on this machine, REST submission off, beside `local[2]`: one `nightrec run` each on
the same raw log, from nothing to published lists. Then every table is compared row by row, in flow order: the first
that differs is where to look.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from itertools import zip_longest
from pathlib import Path
from typing import Any

import measure
from measure import Report

CHECKOUT = Path(__file__).resolve().parents[2]


def run(report: Report, *, smoke: bool) -> None:
    """One night each on the tests' shop: of 12 users and a single past cut with `smoke`, else of 2,000 and three."""
    sys.path[:0] = [str(CHECKOUT / "tests"), str(CHECKOUT / "tests/trust")]
    from deployments import small
    from spark_commands import standalone_cluster
    from synthetic import deployment

    with tempfile.TemporaryDirectory() as folder:
        alone, cluster, daemons = (Path(folder) / name for name in ("alone", "cluster", "daemons"))
        if smoke:
            toml, last = small(alone)
        else:
            toml, shop = deployment(alone, users=2000, items=400)
            last = shop.last
        report.figure("whole night", "one process, local[2]", "s", [night(alone, last)])
        shutil.copytree(alone / "raw", cluster / "raw")
        daemons.mkdir()
        with standalone_cluster(daemons) as running:
            options = '[spark.options]\n"spark.executor.memory" = "1g"\n"spark.executor.cores" = "1"\n'
            (cluster / "nightrec.toml").write_text(toml.read_text().replace("local[2]", running.master) + options)
            report.figure("whole night", "two one-core workers", "s", [night(cluster, last)])
            executors = running.log.read_text().count("Launching executor app-")
        report.check("whole night", executors == 2, f"{executors} executors on the two workers")
        compare(report, str(alone / "warehouse"), str(cluster / "warehouse"))


def versions() -> dict[str, str]:
    """Versions of what is measured."""
    return measure.versions("pyspark", "delta-spark", "torch", "horovod", "numba", "pyarrow")


def night(folder: Path, day: date) -> float:
    """Run a deployment's night by the command line; seconds with Spark's start. RuntimeError where it fails."""
    from spark_commands import environment

    command = ["nightrec", "run", "--config", str(folder / "nightrec.toml"), "--date", day.isoformat()]
    start = time.monotonic()
    ended = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stdout}\n{ended.stderr}")
    return time.monotonic() - start


def compare(report: Report, alone: str, cluster: str) -> None:
    """A check per table, and the goal: all tables equal to the last bit."""
    from checker import NOT_COMPARED

    from nightrec.tables import MANIFESTS, TABLES

    equal = []
    for table in TABLES:
        if table is MANIFESTS:  # it holds nothing but names of files
            continue
        names = [name for name in table.names if name not in NOT_COMPARED]
        here, there = (rows(warehouse, table, names) for warehouse in (alone, cluster))
        differing = [pair for pair in zip_longest(here, there) if pair[0] != pair[1]]
        first = f"; the first: {differing[0]}" if differing else ""
        report.check("same tables", not differing, f"{table.name}: {len(differing)} of {len(here)} rows differ{first}")
        equal.append(not differing)
    report.goal("whole night on a cluster, share of equal tables", "same tables", sum(equal) / len(equal), 1.0)


def rows(warehouse: str, table: Any, names: list[str]) -> list[str]:
    """Rows of a table in the order of its key, as text: to the last digit, and a NaN is equal to another."""
    from nightrec.store import arrow

    key = [name for name in table.key or names if name in names]
    found = arrow(warehouse, table, columns=names).to_pylist()
    return [str(row) for row in sorted(found, key=lambda row: str([row[name] for name in key]))]
