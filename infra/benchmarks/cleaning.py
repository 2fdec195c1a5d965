"""clean_events beside DuckDB: reading, checking and de-duplicating the same gzipped JSON lines on the same cores.

Ours is the job as a night runs it: raw files to two Delta tables and the books, in a session that has cleaned another
date before. DuckDB's is cleaning_duckdb.py: the same rules to Parquet. Then a skewed log, by Spark's task metrics.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import cleaning_duckdb
import cleaning_log
import duckdb
import measure
import psutil
import spark_tasks
from cleaning_log import Log
from measure import Report
from nightrec_jobs import clean_events, item_profiles, user_profiles

from nightrec.config import Config, Paths, Spark
from nightrec.night import Books, Night
from nightrec.session import session
from nightrec.store import Store, arrow
from nightrec.tables import CLEAN_EVENTS, LEDGER, REJECTED_EVENTS

CORES = 2
# What is compared of an accepted event. The key of an event without event_id is each one's own fingerprint.
_CONTENT = (
    "ingest_date, user_id, item_id, event_type, epoch_us(event_ts) AS event_us, value, text, weight, is_late, "
    "epoch_us(sent_ts) AS sent_us, epoch_us(received_ts) AS received_us, list_sort(map_entries(context)) AS context"
)


def versions() -> dict[str, str]:
    return measure.versions("pyspark", "delta-spark", "duckdb")


def run(report: Report, *, smoke: bool) -> None:
    """Speed beside DuckDB, then the same job and the profiles on a skewed log."""
    folder = Path(tempfile.mkdtemp(prefix="nightrec-cleaning-"))
    settings = Spark(master=f"local[{CORES}]", partitions=2 * CORES, driver_memory="1g" if smoke else "3g")
    spark = session(settings, "cleaning", warm=True)
    try:
        _beside_duckdb(report, spark, folder, smoke)
        # So many that one heavy key would show; left to itself, Spark would put small ones together.
        spark.conf.set("spark.sql.shuffle.partitions", "16")
        spark.conf.set("spark.sql.adaptive.coalescePartitions.enabled", "false")
        _skewed(report, spark, folder / "skewed", smoke)
    finally:
        spark.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _beside_duckdb(report: Report, spark: Any, folder: Path, smoke: bool) -> None:
    case = "gzipped JSON lines"
    log = Log(lines=3_000, robots=0.4) if smoke else Log(lines=125_000)
    first = Log(lines=1_000 if smoke else 20_000, dates=1, seed=18)
    raw, text = folder / "raw", cleaning_log.write(log, folder / "raw")
    cleaning_log.write(first, folder / "first")
    cold = measure.seconds(lambda: _clean(spark, folder / "first", folder / "first-out", first))
    outs: dict[str, list[Path]] = {"nightrec": [], "DuckDB": []}

    def out(name: str) -> Path:
        outs[name].append(folder / f"{name}-{len(outs[name])}")
        return outs[name][-1]

    cpu: dict[str, list[float]] = {"nightrec": [], "DuckDB": []}

    def counted(name: str, work: Callable[[], object]) -> None:
        before = _cpu_seconds()
        work()
        cpu[name].append(_cpu_seconds() - before)

    events, weights = Config().events, Config().event_weights()
    contestants: dict[str, Callable[[], object]] = {
        "nightrec": lambda: _clean(spark, raw, out("nightrec"), log),
        "DuckDB": lambda: cleaning_duckdb.clean(raw, out("DuckDB"), events, weights, threads=CORES),
    }
    took = measure.side_by_side(
        {name: partial(counted, name, work) for name, work in contestants.items()}, runs=1 if smoke else 3
    )
    for name, seconds in took.items():
        rates = [log.total / second for second in seconds]
        facts = {"MB_per_s": text / 1e6 / statistics.median(seconds), "processor_seconds": statistics.median(cpu[name])}
        report.figure(case, name, "lines/s", rates, **facts)
    report.figure("first cleaning of a session", "nightrec", "lines/s", [first.total / cold], seconds=cold)
    _compared(report, case, outs["nightrec"][-1], outs["DuckDB"][-1])
    ratio = statistics.median(took["DuckDB"]) / statistics.median(took["nightrec"])
    by_processor = statistics.median(cpu["DuckDB"]) / statistics.median(cpu["nightrec"])
    why = (
        f"by processor seconds the ratio is {by_processor:.2f}. Of 12 task seconds per 500,000 lines 5.2 went into "
        "reading, parsing and checking a line at a time and the shuffle, 3.5 (1.9 without column statistics) into "
        "sorting, numbering and the cache, 1.8 into Parquet; the rest is robots and counts. The JVM compiles beside"
    )
    report.goal("cleaning beside DuckDB", case, ratio, 0.5, why=why)
    report.note(f"DuckDB's processor seconds over ours: {by_processor:.2f}")
    report.note(f"{log.total:,} lines, {text / 1e6:.0f} MB of text in {log.files * log.dates} gzipped files")


def _cpu_seconds() -> float:
    """Processor time of this process and of the JVM it started, so far: what a busy machine does not stretch."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def _clean(spark: Any, raw: Path, out: Path, log: Log) -> Books:
    return _night(spark, raw, out, log.ingest_dates[-1], "clean_events", clean_events.run)


def _night(spark: Any, raw: Path, out: Path, day: date, stage: str, job: Any) -> Books:
    others = {name: str(out / name) for name in Paths.model_fields if name not in ("raw", "warehouse")}
    config = Config(paths=Paths(raw=str(raw), warehouse=str(out), **others))
    store = Store(spark, str(out), run_id=stage)
    try:
        return Night(spark, config, day, store=store).run(stage, job)
    finally:
        store.close()


def _compared(report: Report, case: str, ours: Path, theirs: Path) -> None:
    """The same counts by date, fate and reason, the same accepted rows, the same rejected texts."""
    books = arrow(str(ours), LEDGER, {"stage": "clean_events"}).to_pylist()
    booked = [(row["run_date"], row["fate"], row["reason"], row["row_count"]) for row in books]
    counts = sorted(row for row in booked if row[1] in ("accepted", "late", "duplicate", "rejected"))
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        found = sorted(db.execute(f"SELECT * FROM '{theirs}/counts.parquet'").fetchall())
        report.check(case, counts == found, f"{len(counts)} counts by date, fate and reason: {_told(counts)}")
        for table, columns, folder in (
            (CLEAN_EVENTS, _CONTENT, "clean"), (REJECTED_EVENTS, "reason, file, raw", "rejected"),
        ):  # fmt: skip
            db.register("ours", arrow(str(ours), table))
            theirs_too = f"read_parquet('{theirs}/{folder}/*/*.parquet', hive_partitioning = true)"
            one, other = (_print(db, columns, rows) for rows in ("ours", theirs_too))
            report.check(case, one == other, f"{one[0]:,} rows of {table.name} with the same content")
            if table.key:
                (keys,) = db.execute("SELECT count(DISTINCT event_key) FROM ours").fetchall()[0]
                report.check(case, keys == one[0], f"{keys:,} different event keys among them")


def _print(db: Any, columns: str, rows: str) -> tuple[int, ...]:
    """Count and two sums of hashes over all rows, whatever their order."""
    query = f"SELECT count(*), bit_xor(hash(r)), sum(hash(r)) FROM (SELECT {columns} FROM {rows}) r"
    found: tuple[int, ...] = db.execute(query).fetchall()[0]
    return found


def _told(counts: list[tuple[Any, ...]]) -> str:
    sums: dict[str, int] = {}
    for _, fate, reason, rows in counts:
        sums[reason or fate] = sums.get(reason or fate, 0) + rows
    return ", ".join(f"{name} {rows:,}" for name, rows in sums.items())


def _skewed(report: Report, spark: Any, folder: Path, smoke: bool) -> None:
    """One item in half of the events and one user with half of them: no task reads above 5 times what the median reads.

    The busy user acts 460 times an hour for 90 days: no robot by the default rate.
    """
    log = Log(
        lines=1_000 if smoke else 250_000, files=8, dates=1, days=90, hot_item=0.5, hot_user=0.5, copies=0.0, robots=0.0
    )
    name = f"an item in half of {log.total:,} events, a user with {log.total // 2:,}"
    cleaning_log.write(log, folder / "raw")
    cleaning_log.write_items(log, folder / "raw")
    for stage, job in (
        ("clean_events", clean_events.run), ("item_profiles", item_profiles.run), ("user_profiles", user_profiles.run),
    ):  # fmt: skip
        newest, start = spark_tasks.last_stage(spark), time.perf_counter()
        books = _night(spark, folder / "raw", folder / "out", log.ingest_dates[-1], stage, job)
        took = time.perf_counter() - start
        worst = spark_tasks.skew(spark, newest, log.total)
        over = {"rows_over_median": worst.rows, "cpu_over_median": worst.cpu}
        report.figure(name, stage, "lines/s", [log.total / took], **over)
        report.goal(f"largest task of {stage} over the median under skew", name, worst.rows, 5.0, at_most=True)
        if stage == "clean_events":
            kept = books.rows("accepted") + books.rows("late")
            report.check(name, books.rows("read") == log.total and kept > 0.97 * log.total, f"{kept:,} events kept")
