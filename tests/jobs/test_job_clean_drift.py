# ruff: noqa: E501 (a change a line, so that they can be compared)
"""The raw columns change overnight: each change is accepted, quarantined or refused as nightrec.raw_columns says."""

from __future__ import annotations

import csv
import datetime as dt
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nightrec_jobs import clean_events
from pyspark.sql import SparkSession

from nightrec.config import Config, Events
from nightrec.errors import BadInput
from nightrec.night import Books, Night
from nightrec.store import Store, arrow
from nightrec.tables import CLEAN_EVENTS, LEDGER, REJECTED_EVENTS

pytestmark = pytest.mark.usefixtures("interpreted")

DAYS = [dt.date(2026, 3, day) for day in (7, 8, 9)]
TONIGHT = dt.date(2026, 3, 10)
LINES = 24
Row = dict[str, Any]


def rows(day: dt.date) -> list[Row]:
    """Lines of a night with every column filled."""
    return [
        {
            "user_id": str(n % 6), "item_id": str(n), "event_type": "rating", "event_ts": f"{day}T10:{n:02}:00Z",
            "event_id": f"{day}/{n}", "value": str(n % 5 + 1), "text": "fine", "sent_ts": f"{day}T10:{n:02}:01Z",
            "received_ts": f"{day}T10:{n:02}:02Z", "context": {"rank": str(n)},
        }
        for n in range(LINES)
    ]  # fmt: skip


def folder(root: str, day: dt.date) -> Path:
    found = Path(root) / "events" / f"ingest_date={day}"
    found.mkdir(parents=True, exist_ok=True)
    return found


def as_json(root: str, lines: list[Row], day: dt.date = TONIGHT) -> None:
    (folder(root, day) / "part-0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def as_csv(root: str, lines: list[Row]) -> None:
    with (folder(root, TONIGHT) / "part-0.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(line | ({"context": json.dumps(line["context"])} if "context" in line else {}) for line in lines)


def as_parquet(root: str, lines: list[Row], **types: pa.DataType) -> None:
    """Text columns and a map, but for the types that are named."""
    known = {name: pa.map_(pa.string(), pa.string()) if name == "context" else pa.string() for name in lines[0]} | types
    columns = {name: pa.array([line[name] for line in lines]).cast(type_) if name != "context" or name in types
               else pa.array([list(line[name].items()) for line in lines], type_) for name, type_ in known.items()}
    pq.write_table(pa.table(columns), folder(root, TONIGHT) / "part-0.parquet")


Change = Callable[[Row], Row]


def change(**values: Any) -> Change:
    """Other values for some columns: of functions their result; None takes the column out."""

    def changed(row: Row) -> Row:
        new = {name: value(row[name]) if callable(value) else value for name, value in values.items()}
        return {name: value for name, value in (row | new).items() if name not in new or value is not None}

    return changed


def renamed(before: str, after: str) -> Change:
    return lambda row: {after if name == before else name: value for name, value in row.items()}


def millis(text: str) -> int:
    return int(dt.datetime.fromisoformat(text).timestamp() * 1000)


ACCEPTED = "accepted"
Write = Callable[[str, list[Row]], None]
# What changed, how the night's lines are written, and what becomes of them.
CHANGES: dict[str, tuple[Write, Change, str]] = {
    # 1 added
    "added to JSON": (as_json, change(device={"os": ["x"]}), ACCEPTED),
    "added to CSV": (as_csv, change(device="x"), ACCEPTED),
    # 2 another order
    "order in CSV": (as_csv, lambda row: dict(reversed(row.items())), ACCEPTED),
    "order in Parquet": (as_parquet, lambda row: dict(reversed(row.items())), ACCEPTED),
    # 3 optional, dropped
    "text dropped from JSON": (as_json, change(text=None), r"none of the 24 lines of 2026-03-10 fills text, which 24 .*dropped_columns"),
    "sent_ts dropped from CSV": (as_csv, change(sent_ts=None), r"none of the 24 lines .* fills sent_ts, .*dropped_columns"),
    # 4 optional, renamed
    "received_ts renamed in JSON": (as_json, renamed("received_ts", "received_at"), r"fills received_ts, .* received_ts may be received_at in .*jsonl now"),
    # 5 required, dropped
    "item_id dropped from JSON": (as_json, change(item_id=None), r"none of the 24 lines of 2026-03-10 fills item_id.*; have the source mended$"),
    "item_id dropped from Parquet": (as_parquet, change(item_id=None), r"part-0\.parquet: column item_id is missing.*found are user_id, "),
    # 6 required, renamed
    "user_id renamed in CSV": (as_csv, renamed("user_id", "user"), r"part-0\.csv: column user_id is missing \(is it user\?\)"),
    "event_ts renamed in JSON": (as_json, renamed("event_ts", "event_time"), r"fills event_ts, .*event_ts may be event_time"),
    # 7 letter case
    "case in JSON": (as_json, renamed("user_id", "User_ID"), r"part-0\.jsonl: lines have User_ID, .*; user_id is\. Rename it"),
    "case in CSV": (as_csv, renamed("value", "Value"), r"part-0\.csv: column Value is not a column of the contract, value is;"),
    "case in Parquet": (as_parquet, renamed("event_type", "eventType"), r"column event_type is missing \(is it eventType\?\)"),
    # 8 number that was a string
    "numbers in JSON": (as_json, change(user_id=int, item_id=int, value=int), ACCEPTED),
    "integers in Parquet": (lambda root, lines: as_parquet(root, lines, user_id=pa.int64(), item_id=pa.int32(), value=pa.float64()), change(user_id=int, item_id=int, value=float), ACCEPTED),
    "fractions as ids in Parquet": (lambda root, lines: as_parquet(root, lines, user_id=pa.float64()), change(user_id=float), r"column user_id is double, expected are text or whole numbers"),
    # 9 time of another kind
    "milliseconds in JSON": (as_json, change(event_ts=millis, sent_ts=millis, received_ts=millis), ACCEPTED),
    "times in Parquet": (lambda root, lines: as_parquet(root, lines, event_ts=pa.timestamp("us", "UTC")), change(event_ts=dt.datetime.fromisoformat), ACCEPTED),
    "fractions as times in Parquet": (lambda root, lines: as_parquet(root, lines, sent_ts=pa.float64()), change(sent_ts=lambda text: float(millis(text))), r"column sent_ts is double, expected are times"),
    "unreadable times in JSON": (as_json, change(sent_ts=lambda text: f"at {text}"), r"none of the 24 lines .* fills sent_ts"),
    # 10 an object, 11 a list
    "an object as user_id in JSON": (as_json, change(user_id=lambda text: {"$oid": text}), "broken_line"),
    "an object as user_id in Parquet": (lambda root, lines: as_parquet(root, lines, user_id=pa.struct({"oid": pa.string()})), change(user_id=lambda text: {"oid": text}), r"column user_id is struct<oid:string>, expected are text"),
    "a list as text in JSON": (as_json, change(text=lambda text: [text]), "broken_line"),
    "a list as text in Parquet": (lambda root, lines: as_parquet(root, lines, text=pa.list_(pa.string())), change(text=lambda text: [text]), r"column text is array<string>, expected are text"),
    # 12 a context that is none
    "context a list in JSON": (as_json, change(context=["rank"]), "broken_line"),
    "context text in Parquet": (lambda root, lines: as_parquet(root, lines, context=pa.string()), change(context="rank=3"), "broken_line"),
    "context JSON text in Parquet": (lambda root, lines: as_parquet(root, lines, context=pa.string()), change(context=json.dumps), ACCEPTED),
    "context a number in Parquet": (lambda root, lines: as_parquet(root, lines, context=pa.int64()), change(context=3), r"column context is bigint, expected are a map or text"),
    # null throughout
    "value null in JSON": (as_json, lambda row: row | {"value": None, "event_type": "view"}, r"none of the 24 lines .* fills value"),
    "event_id empty in CSV": (as_csv, change(event_id=""), r"none of the 24 lines .* fills event_id"),
    "text null in Parquet": (lambda root, lines: as_parquet(root, lines, text=pa.null()), lambda row: row | {"text": None}, r"none of the 24 lines .* fills text"),
}  # fmt: skip


def clean(spark: SparkSession, config: Config, day: dt.date) -> Books:
    store = Store(spark, config.paths.warehouse, run_id="drift")
    try:
        return Night(spark, config, day, store=store).run("clean_events", clean_events.run)
    finally:
        store.close()


def kept(config: Config, day: dt.date = TONIGHT) -> list[Row]:
    found = arrow(config.paths.warehouse, CLEAN_EVENTS, {"ingest_date": day}).to_pylist()
    return sorted(found, key=lambda row: int(row["item_id"]))


@pytest.fixture(scope="module")
def nights(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three nights with every column filled, cleaned; and the fourth as it would be without a change."""
    root = tmp_path_factory.mktemp("nights")
    config = at(root)
    for day in (*DAYS, TONIGHT):
        as_json(config.paths.raw, rows(day), day)
    clean(spark, config, DAYS[-1])
    shutil.copytree(root, root / "unchanged", ignore=shutil.ignore_patterns("unchanged"))
    clean(spark, at(root / "unchanged"), TONIGHT)
    shutil.rmtree(folder(config.paths.raw, TONIGHT))
    return root


def at(root: Path, **events: Any) -> Config:
    config = Config(events=Events(**events))
    paths = {name: str(root / name) for name in type(config.paths).model_fields}
    return config.model_copy(update={"paths": type(config.paths)(**paths)})


@pytest.fixture
def night(nights: Path, tmp_path: Path) -> Config:
    for name in ("raw", "warehouse"):
        shutil.copytree(nights / name, tmp_path / name)
    return at(tmp_path)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_the_raw_columns(spark: SparkSession, nights: Path, night: Config, name: str) -> None:
    write, changed, expected = CHANGES[name]
    write(night.paths.raw, [changed(row) for row in rows(TONIGHT)])
    if expected in (ACCEPTED, "broken_line"):
        books = clean(spark, night, TONIGHT)
        assert books.rows("read") == LINES and books.rows("accepted" if expected == ACCEPTED else "rejected") == LINES
        assert kept(night) == (kept(at(nights / "unchanged")) if expected == ACCEPTED else [])
        rejected = arrow(night.paths.warehouse, REJECTED_EVENTS)["reason"].to_pylist()
        assert rejected == ([] if expected == ACCEPTED else [expected] * LINES)
    else:
        with pytest.raises(BadInput, match=expected):
            clean(spark, night, TONIGHT)
        dates = {row["run_date"] for row in arrow(night.paths.warehouse, LEDGER).to_pylist()}
        assert dates == {DAYS[-1], *DAYS} and kept(night) == []


def test_what_a_source_no_longer_fills_is_said_once(spark: SparkSession, night: Config) -> None:
    lines = [change(text=None)(row) for row in rows(TONIGHT)]
    as_json(night.paths.raw, lines)
    named = night.model_copy(update={"events": Events(dropped_columns=["text"])})
    assert clean(spark, named, TONIGHT).rows("accepted") == LINES
    assert {row["text"] for row in kept(night)} == {None} and {row["value"] for row in kept(night)} == {1, 2, 3, 4, 5}
    # A night of the past that is cleaned with tonight's does not stop it, but is told of.
    after = TONIGHT + dt.timedelta(days=1)
    shutil.rmtree(Path(night.paths.warehouse))
    as_json(night.paths.raw, rows(after), after)
    said = clean(spark, night, after).said
    assert "None of the 24 lines of 2026-03-10 fills text, which 24 were expected to fill." in said


def test_single_lines_stop_no_night(spark: SparkSession, night: Config) -> None:
    """Few lines show nothing of a column: a small night without comments, and lines of a fuzzer."""
    few = [change(text=None)(row) for row in rows(TONIGHT)[:19]]
    as_json(night.paths.raw, [renamed("user_id", "User_ID")(row) for row in few[:5]] + few[5:])
    books = clean(spark, night, TONIGHT)
    assert (books.rows("accepted"), books.rows("rejected")) == (14, 5)
