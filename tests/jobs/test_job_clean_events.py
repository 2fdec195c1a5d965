"""clean_events as a job: one pass against night by night, books, reruns, empty nights, a real shop's log."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from nightrec_jobs import clean_events
from pyspark.sql import SparkSession

from nightrec import adaptive
from nightrec.config import Config, Events
from nightrec.errors import BadInput
from nightrec.night import Books, Night
from nightrec.store import Store, arrow
from nightrec.tables import CLEAN_EVENTS, LEDGER, REJECTED_EVENTS

DAYS = [dt.date(2026, 3, day) for day in (8, 9, 10)]
RETAIL = Path(__file__).resolve().parents[3] / "shared" / "data" / "online_retail" / "raw"


def event(day: dt.date, **fields: Any) -> str:
    return json.dumps({"user_id": "u", "item_id": "i", "event_type": "view", "event_ts": f"{day}T10:00:00Z"} | fields)


def history() -> dict[dt.date, list[str]]:
    """Three nights that depend on one another: what one of them does with a line decides the fate of a later one."""
    first, second, third = DAYS
    return {
        first: [
            event(first, event_id="a"),
            event(first, event_id="b", value="?"),  # rejected: its good copy of the next night is accepted
            *(event(first, user_id="robot", item_id=f"i{n}") for n in range(4)),
            event(first, user_id="robot", event_id="c"),  # a robot's: so is this one's
            event(first, user_id="n", text="no id"),
            "broken",
        ],
        second: [
            event(second, event_id="a", user_id="other"),  # duplicate of the first night's, by its id
            event(second, event_id="b"),
            event(second, event_id="c"),
            event(first, user_id="n", text="no id"),  # duplicate by content
            event(second, event_id="d", user_id="late-copies"),
        ],
        third: [
            event(third, event_id="a"), event(third, event_id="b"),  # third and second copies
            event(third, user_id="robot"),  # no robot on this date
            event(first, user_id="slow"),  # late
            event(third, event_id="e"), event(third, event_id="e"),
        ],
    }


def write(root: str, day: dt.date, lines: list[str], part: int = 0) -> None:
    folder = Path(root) / "events" / f"ingest_date={day}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"part-{part}.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))


def content(warehouse: str) -> dict[str, list[str]]:
    """Every row of both tables and of the books that are about lines, in an order that files do not decide."""
    tables = (CLEAN_EVENTS, REJECTED_EVENTS)
    found = {table.name: sorted(map(str, arrow(warehouse, table).to_pylist())) for table in tables}
    return found | {"ledger": sorted(map(str, books(warehouse)))}


def books(warehouse: str) -> list[tuple[dt.date, str, str, int]]:
    rows = arrow(warehouse, LEDGER, {"stage": "clean_events"}).to_pylist()
    fates = ("read", "accepted", "late", "duplicate", "rejected")
    return [(r["run_date"], r["fate"], r["reason"], r["row_count"]) for r in rows if r["fate"] in fates]


def clean(spark: SparkSession, config: Config, store: Store, day: dt.date) -> Books:
    return Night(spark, config, day, store=store).run("clean_events", clean_events.run)


@pytest.fixture
def strict(config: Config) -> Config:
    return config.model_copy(update={"events": Events(robot_events_per_hour=3, late_after_days=1)})


def test_one_pass_is_night_by_night_and_again_the_same(
    spark: SparkSession, strict: Config, store: Store, tmp_path: Path,
) -> None:
    for day, lines in history().items():
        write(strict.paths.raw, day, lines)
    for day in DAYS:
        clean(spark, strict, store, day)
    by_night = content(strict.paths.warehouse)

    at_once = str(tmp_path / "at once")
    other = Store(spark, at_once, run_id="once")
    clean(spark, strict, other, DAYS[-1])
    other.close()
    assert content(at_once) == by_night

    # A night in the middle again: only its own date is replaced, and by the same.
    again = clean(spark, strict, store, DAYS[1])
    assert content(strict.paths.warehouse) == by_night
    assert again.rows("read") == len(history()[DAYS[1]])

    # The books, counted by hand.
    assert sorted(books(at_once)) == [
        (DAYS[0], "accepted", "", 2),
        (DAYS[0], "read", "", 9),
        (DAYS[0], "rejected", "bad_value", 1),
        (DAYS[0], "rejected", "broken_line", 1),
        (DAYS[0], "rejected", "robot", 5),
        (DAYS[1], "accepted", "", 3),
        (DAYS[1], "duplicate", "", 2),
        (DAYS[1], "read", "", 5),
        (DAYS[2], "accepted", "", 2),
        (DAYS[2], "duplicate", "", 3),
        (DAYS[2], "late", "", 1),
        (DAYS[2], "read", "", 6),
    ]
    rejected = arrow(at_once, REJECTED_EVENTS, {"ingest_date": DAYS[0]}, ["reason", "file", "raw"]).to_pylist()
    assert {"reason": "broken_line", "file": "part-0.jsonl.gz", "raw": "broken"} in rejected


def test_a_date_that_comes_late_makes_duplicates_of_later_ones(
    spark: SparkSession, strict: Config, store: Store, tmp_path: Path,
) -> None:
    first, second, third = DAYS
    lines = history()
    # The first date's folder is empty when the second night comes, and is booked so; its files come after that.
    (Path(strict.paths.raw) / "events" / f"ingest_date={first}").mkdir(parents=True)
    write(strict.paths.raw, second, lines[second])
    clean(spark, strict, store, second)
    write(strict.paths.raw, first, lines[first])
    write(strict.paths.raw, third, lines[third])
    clean(spark, strict, store, third)
    in_order = Store(spark, str(tmp_path / "in order"), run_id="order")
    for day in DAYS:
        clean(spark, strict, in_order, day)
    in_order.close()
    assert content(strict.paths.warehouse) == content(in_order.warehouse)


def in_order(spark: SparkSession, config: Config, folder: Path) -> dict[str, list[str]]:
    """What the three nights come to in a warehouse of their own, one after another, of the files that lie there now."""
    store = Store(spark, str(folder), run_id=folder.name)
    for day in DAYS:
        clean(spark, config, store, day)
    store.close()
    return content(store.warehouse)


def test_a_date_that_its_own_night_cleans_late_makes_duplicates_of_later_ones(
    spark: SparkSession, strict: Config, store: Store, tmp_path: Path,
) -> None:
    first, second, third = DAYS
    lines, root = history(), strict.paths.raw
    for day in (second, third):
        write(root, day, lines[day])
        clean(spark, strict, store, day)
    write(root, first, lines[first])
    clean(spark, strict, store, first)
    assert content(store.warehouse) == in_order(spark, strict, tmp_path / "in order")

    # Another file of it, which has what the second date was the first to bring; run again, nothing is news.
    write(root, first, [event(first, event_id="d")], part=1)
    assert clean(spark, strict, store, first).rows("read") > clean(spark, strict, store, first).rows("read")
    assert content(store.warehouse) == in_order(spark, strict, tmp_path / "again in order")

    # The files of the third are gone by now: what was kept of it stays, and its copy is the duplicate.
    before = arrow(store.warehouse, CLEAN_EVENTS, {"ingest_date": third}).num_rows
    shutil.rmtree(Path(root) / "events" / f"ingest_date={third}")
    write(root, first, [event(first, event_id="e"), event(first, event_id="new")], part=2)
    clean(spark, strict, store, first)
    assert arrow(store.warehouse, CLEAN_EVENTS, {"ingest_date": third}).num_rows == before
    keys = arrow(store.warehouse, CLEAN_EVENTS)["event_key"].to_pylist()
    assert len(keys) == len(set(keys))


def test_a_file_that_is_added_to_a_clean_date_is_read_by_the_next_night(
    spark: SparkSession, strict: Config, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second, third = DAYS
    lines, root = history(), strict.paths.raw
    for day in DAYS:
        write(root, day, lines[day])
    clean(spark, strict, store, first)
    read = clean_events.raw.events

    def and_then_more_comes(*args: Any) -> Any:
        found = read(*args)
        write(root, second, [event(second, event_id="e"), event(second, event_id="landed meanwhile")], part=1)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(clean_events.raw, "events", and_then_more_comes)
        clean(spark, strict, store, second)
    clean(spark, strict, store, third)
    assert content(store.warehouse) == in_order(spark, strict, tmp_path / "in order")


def test_raw_files_that_are_gone_take_nothing_away(spark: SparkSession, config: Config, store: Store) -> None:
    first, second, _ = DAYS
    for day in (first, second):
        write(config.paths.raw, day, [event(day)])
        clean(spark, config, store, day)
    before = content(config.paths.warehouse)
    for day in (first, second):
        shutil.rmtree(Path(config.paths.raw) / "events" / f"ingest_date={day}")
    assert clean(spark, config, store, second).lines == ()
    assert content(config.paths.warehouse) == before


def test_empty_nights_are_in_the_books(spark: SparkSession, config: Config, store: Store) -> None:
    first, second, third = DAYS
    write(config.paths.raw, first, [event(first)])
    write(config.paths.raw, second, [])
    # No folder at all for the third: that is an empty night too.
    clean(spark, config, store, third)
    assert {row for row in books(config.paths.warehouse) if row[1] == "read"} == {
        (first, "read", "", 1), (second, "read", "", 0), (third, "read", "", 0),
    }
    assert arrow(config.paths.warehouse, CLEAN_EVENTS).num_rows == 1


def test_a_night_that_cannot_begin_says_why(night: Night, config: Config) -> None:
    with pytest.raises(BadInput, match=r"raw root .*/raw does not exist"):
        night.run("clean_events", clean_events.run)
    write(config.paths.raw, night.date + dt.timedelta(days=1), [event(night.date)])
    with pytest.raises(BadInput, match=r"has no folder ingest_date=YYYY-MM-DD of 2026-03-10 or before"):
        night.run("clean_events", clean_events.run)
    assert arrow(config.paths.warehouse, LEDGER).num_rows == 0


def test_an_unreadable_file_stops_the_night_before_anything_is_written(night: Night, config: Config) -> None:
    write(config.paths.raw, night.date, [event(night.date)])
    file = Path(config.paths.raw) / "events" / f"ingest_date={night.date}" / "part-0.jsonl.gz"
    file.write_bytes(file.read_bytes()[:30])
    with pytest.raises(BadInput, match=r"ingest_date=2026-03-10/part-0\.jsonl\.gz cannot be read: "):
        night.run("clean_events", clean_events.run)
    assert arrow(config.paths.warehouse, CLEAN_EVENTS).num_rows == 0
    assert arrow(config.paths.warehouse, LEDGER).num_rows == 0


@pytest.mark.skipif(not RETAIL.is_dir(), reason="needs ../shared/data/online_retail")
def test_a_real_shop(spark: SparkSession, config: Config, store: Store) -> None:
    """Its first three days against a count of the same files without Spark."""
    real = config.model_copy(update={"paths": config.paths.model_copy(update={"raw": str(RETAIL)})})
    days = [dt.date(2010, 12, day) for day in (1, 2, 3)]
    files = [RETAIL / "events" / f"ingest_date={day}" / "part-0.jsonl.gz" for day in days]
    lines = [json.loads(line) for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]
    known = [line for line in lines if line.get("user_id")]
    found = clean(spark, real, store, days[-1])
    assert found.rows("read") == len(lines)
    by_reason = {reason: sum(rows for fate, r, rows in found.lines if (fate, r) == ("rejected", reason))
                 for reason in ("missing_user_id", "bad_value")}
    assert by_reason == {
        "missing_user_id": len(lines) - len(known),
        "bad_value": sum(line["value"] <= 0 for line in known),  # returns
    }
    assert found.rows("accepted") == sum(line["value"] > 0 for line in known)
    assert found.rows("read") == sum(found.rows(fate) for fate in ("accepted", "late", "duplicate", "rejected"))


def test_the_log_decides_once_whether_people_come_back(spark: SparkSession, config: Config, store: Store) -> None:
    days = [dt.date(2026, 3, 1), dt.date(2026, 3, 20), dt.date(2026, 3, 28), dt.date(2026, 3, 29)]
    for day in days:
        write(config.paths.raw, day, [event(day, user_id=user) for user in "abc"])
    assert config.candidates.repeats_allowed is None
    found = [clean(spark, config, store, day) for day in (days[1], days[2], days[2], days[3])]
    told = [[sentence for sentence in books.said if "repeats_allowed" in sentence] for books in found]
    # Twenty days show nothing of it yet; from the 28th on it is decided, and not anew.
    assert told[0] == told[2] == told[3] == [] and "true, as 100% of the events" in told[1][0]
    first, again = ([line for line in books.lines if line[0] == adaptive.SHOWN] for books in found[1:3])
    assert first == again and len(first) == 2
    rows = arrow(store.warehouse, LEDGER, {"stage": "clean_events"}).to_pylist()
    assert [(r["run_date"], r["row_count"]) for r in rows if r["reason"] == adaptive.LATER] == [(days[2], 6)]
    # Every stage of any night and of any past night is told so; who sets it is not asked.
    later = Night(spark, config, days[3], store=store)
    later.run("seen", lambda night: None)
    assert later.config.candidates.repeats_allowed is True
    assert later.at(days[0]).config.candidates.repeats_allowed is True
    said = config.model_copy(update={"candidates": config.candidates.model_copy(update={"repeats_allowed": False})})
    set_ = Night(spark, said, days[3], store=store)
    set_.run("seen", lambda night: None)
    assert set_.config.candidates.repeats_allowed is False


def test_what_the_log_shows_is_looked_at_again_when_it_has_doubled(
    spark: SparkSession, config: Config, store: Store
) -> None:
    first = dt.date(2026, 3, 1)
    days = [first + dt.timedelta(days=n) for n in (0, 2, 3, 5, 6, 7)]
    for day in days:
        write(config.paths.raw, day, [event(day, user_id=user) for user in "abc"])
    items = Path(config.paths.raw) / "items" / f"ingest_date={first}"
    items.mkdir(parents=True)
    (items / "part-0.jsonl").write_text('{"item_id": "i", "title": "a title"}')
    said = {day: clean(spark, config, store, day).said for day in days}
    rows = arrow(store.warehouse, LEDGER, {"stage": "clean_events"}).to_pylist()
    lengths = [(r["run_date"], r["row_count"]) for r in rows if r["reason"] == adaptive.LOG_DAYS]
    # Four days are the fewest that show anything, then eight.
    assert sorted(lengths) == [(days[2], 4), (days[5], 8)]
    assert [day for day, told in said.items() if told] == [days[2], days[5]]
    assert any("ranker.horizon_days, so the log decides: 1, as 3 users came back" in told for told in said[days[2]])
    # What texts say is looked at too: one item has no pairs.
    assert {r["reason"]: r["row_count"] for r in rows if r["run_date"] == days[5]}[adaptive.PAIRS] == 0
    # The horizon of a training that follows is the log's.
    night = Night(spark, config, days[5], store=store)
    night.decide()
    assert (night.config.ranker.horizon_days, night.config.profiles.recent_days) == (1, 28)
    assert night.training_cuts() == [days[5] - dt.timedelta(days=n) for n in (3, 2, 1)]
    assert night.cut(2).date == days[5] - dt.timedelta(days=2) and night.cut(2).is_replay
    # Who has set everything is not asked.
    closed = config.model_copy(update={
        "candidates": config.candidates.model_copy(update={"repeats_allowed": False, "texts": True}),
        "ranker": config.ranker.model_copy(update={"horizon_days": 5, "attention": 0}),
        "profiles": config.profiles.model_copy(update={"recent_days": 5}),
    })
    assert not adaptive.is_open(closed) and clean(spark, closed, store, days[5]).said == ()
