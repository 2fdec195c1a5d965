"""The books on lines whose fates are known beforehand (tests/fated_lines.py): exact, whatever a fuzzer did to them."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from pathlib import Path

import fated_lines
from nightrec_jobs import clean_events
from pyspark.sql import SparkSession

from nightrec.config import Config
from nightrec.night import Night
from nightrec.report import books
from nightrec.store import Store, arrow
from nightrec.tables import CLEAN_EVENTS, LATE_ARRIVALS, LEDGER, REJECTED_EVENTS

LINES = 50_000


def booked(warehouse: str) -> Counter[tuple[dt.date, str, str]]:
    """Lines by ingest date, fate and reason, as the ledger has them."""
    rows = arrow(warehouse, LEDGER, {"stage": "clean_events"}).to_pylist()
    fates = {"accepted", "late", "duplicate", "rejected"}
    return Counter({(r["run_date"], r["fate"], r["reason"]): r["row_count"] for r in rows if r["fate"] in fates})


def test_every_line_is_booked_as_what_it_was_made(spark: SparkSession, config: Config, store: Store) -> None:
    log = fated_lines.write(Path(config.paths.raw), LINES)
    broken = sum(n for (_, fate, reason), n in log.fates.items() if fate == "rejected" and reason != "robot")
    assert 0.045 * LINES < broken < 0.06 * LINES
    Night(spark, config, log.dates[-1], store=store).run("clean_events", clean_events.run)
    warehouse = config.paths.warehouse
    assert booked(warehouse) == log.fates
    balance = books.balance(books.lines(warehouse))
    assert balance.is_balanced and balance.read == log.lines
    assert balance.reasons["robot"] == fated_lines.ROBOT_RATE + 1
    # The rows are the lines': each event once, none made of nothing, every rejected line with its text.
    clean, rejected = arrow(warehouse, CLEAN_EVENTS), arrow(warehouse, REJECTED_EVENTS)
    assert clean.num_rows == len(log.ids) == len(set(clean["event_key"].to_pylist()))
    for column in CLEAN_EVENTS.columns:
        assert column.nullable or clean[column.name].null_count == 0
    assert min(map(len, clean["user_id"].to_pylist())) > 0 and min(map(len, clean["item_id"].to_pylist())) > 0
    assert rejected.num_rows == sum(n for (_, fate, _), n in log.fates.items() if fate == "rejected")
    assert min(map(len, rejected["raw"].to_pylist())) > 0
    # Late events mark their users, each from the first night that would have known one of them; before the first
    # ingest date no night knew anything.
    marks: dict[tuple[dt.date, str], tuple[dt.date, int]] = {}
    for (arrived, user, happened), count in log.late.items():
        known = max(happened, log.dates[0])
        if known < arrived:
            before = marks.get((arrived, user), (known, 0))
            marks[arrived, user] = (min(before[0], known), before[1] + count)
    found = arrow(warehouse, LATE_ARRIVALS).to_pylist()
    assert {(r["ingest_date"], r["user_id"]): (r["first_date"], r["event_count"]) for r in found} == marks
    assert len(found) == len(marks) > 100


def test_lines_changed_by_chance_are_booked_too(spark: SparkSession, config: Config, store: Store) -> None:
    log = fated_lines.write(Path(config.paths.raw), 6_000, broken=0.5, free=1.0, seed=3)
    Night(spark, config, log.dates[-1], store=store).run("clean_events", clean_events.run)
    warehouse = config.paths.warehouse
    balance = books.balance(books.lines(warehouse))
    assert balance.is_balanced and balance.read == log.lines
    found = booked(warehouse)
    good = {key: count for key, count in log.fates.items() if key[1] != "any"}
    assert all(found[key] >= count for key, count in good.items())
    clean = arrow(warehouse, CLEAN_EVENTS)
    assert clean.num_rows == balance.accepted + balance.late >= len(log.ids)
    assert all(column.nullable or clean[column.name].null_count == 0 for column in CLEAN_EVENTS.columns)
    assert arrow(warehouse, REJECTED_EVENTS).num_rows == balance.rejected > 1_000
