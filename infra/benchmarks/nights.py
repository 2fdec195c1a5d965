"""Whether many nights slow the next one: sixty nights of a tiny shop, then an early and the last one side by side.

On so little data a night's time is what Spark, the tables' logs and their files cost: what would grow. All nights run
in one warm session, whose nights get quicker for a while as the JVM compiles; that would hide a growth. So the fifth
and the last night are run again at the end, in turn, each on a copy of the warehouse as it was before it.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import measure
from measure import Report, fresh

CHECKOUT = Path(__file__).resolve().parents[2]
# Days of events before the first night: its models learn from three past cuts a week apart; with `smoke` from one.
BEFORE, BEFORE_SMOKE = 30, 15
_COPIED = ("warehouse", "exports")


@dataclass
class Simulated:
    """Seconds of every night; of the early and of the last night run again, by stage; files; whether lists agreed."""

    nights: list[float] = field(default_factory=list)
    again: dict[int, list[dict[str, float]]] = field(default_factory=dict)
    files: dict[int, Counter[str]] = field(default_factory=dict)
    differing: list[int] = field(default_factory=list)


def run(report: Report, *, smoke: bool) -> None:
    """Sixty nights; with `smoke` two, of which the last is both the early and the late one."""
    nights, early, rounds = (2, 2, 1) if smoke else (60, 5, 5)
    with tempfile.TemporaryDirectory() as folder:
        before = BEFORE_SMOKE if smoke else BEFORE
        found: Simulated = fresh(simulate, folder, before, nights, early, rounds).result
    case = f"night {nights} beside night {early}"
    total = {}
    for number, runs in found.again.items():
        total[number] = [run.pop("night") for run in runs]
        told = {stage: round(statistics.median(run[stage] for run in runs), 2) for stage in runs[0]}
        report.figure(case, f"night {number}", "s", total[number], files=sum(found.files[number].values()), **told)
    report.figure("all nights", "in order", "s", found.nights)
    report.check(case, not found.differing, "each night run again publishes the lists of its first run")
    ratio = statistics.median(total[nights]) / statistics.median(total[early])
    report.goal("sixty nights", case, ratio, 1.2, at_most=True)
    first, last = (statistics.median(found.nights[at:][:3]) for at in (early - 2, max(nights - 3, 0)))
    report.note(f"as they came, while the session warmed up: nights {early - 1} to {early + 1} {first:.1f} s each, "
                f"the last three {last:.1f} s")  # fmt: skip
    report.note(f"files before night {nights}: {', '.join(f'{k} {v}' for k, v in found.files[nights].most_common(8))}")


def versions() -> dict[str, str]:
    """Versions of what is measured."""
    return measure.versions("pyspark", "delta-spark", "deltalake")


def simulate(folder: str, before: int, nights: int, early: int, rounds: int) -> Simulated:
    """Run the nights after `before` days one after the other, then the early and the last again, `rounds` times."""
    sys.path.insert(0, str(CHECKOUT / "tests"))
    from synthetic import deployment

    from nightrec import config as configuration
    from nightrec import runner
    from nightrec.night import Night
    from nightrec.session import session
    from nightrec.store import arrow
    from nightrec.tables import PUBLISHED_TOPK

    root, found = Path(folder), Simulated(again={early: [], nights: []})
    toml, shop = deployment(root, users=60, items=80, days=before + nights)
    settings = configuration.load(toml)
    spark = session(settings.spark, "nights", warm=True)

    def night(number: int) -> dict[str, float]:
        day, start = shop.last - timedelta(days=nights - number), time.perf_counter()
        with Night(spark, settings, day, warm=True) as opened:
            stages = {books.stage: books.seconds for books in runner.run(opened, nullcontext)}
        return {**stages, "night": time.perf_counter() - start}

    def lists() -> dict[Any, Any]:
        rows = arrow(settings.paths.warehouse, PUBLISHED_TOPK).to_pylist()
        return {(row["list_kind"], row["list_key"]): row["list_id"] for row in rows}

    published = {}
    for number in range(1, nights + 1):
        if number in found.again:
            found.files[number] = files(root / "warehouse")
            for name in _COPIED:
                shutil.copytree(root / name, root / f"before-{number}" / name)
        found.nights.append(night(number)["night"])
        published[number] = lists()
        print(f"  night {number}: {found.nights[-1]:.1f} s", flush=True)
    for _ in range(rounds):
        for number, runs in found.again.items():
            for name in _COPIED:
                shutil.rmtree(root / name)
                shutil.copytree(root / f"before-{number}" / name, root / name)
            runs.append(night(number))
            if lists() != published[number]:
                found.differing.append(number)
    spark.stop()
    return found


def files(warehouse: Path) -> Counter[str]:
    """Files on disk by table, those of its log apart."""
    found = (path.relative_to(warehouse).parts for path in warehouse.rglob("*") if path.is_file())
    return Counter(f"{parts[0]}{' log' if '_delta_log' in parts else ''}" for parts in found)
