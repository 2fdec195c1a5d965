"""Lines that were set aside, mended and put back: they land where they belong, and nothing counts twice."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from nightrec_jobs import clean_events
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from nightrec import cli, quarantine
from nightrec.config import Config, Paths
from nightrec.errors import BadInput
from nightrec.night import Night
from nightrec.report import books
from nightrec.store import Store, arrow
from nightrec.tables import CLEAN_EVENTS, LATE_ARRIVALS, LEDGER

pytestmark = pytest.mark.usefixtures("interpreted")

FIRST, SECOND, THIRD = DAYS = [dt.date(2026, 3, day) for day in (8, 9, 10)]
Lines = dict[dt.date, list[str]]


def event(day: dt.date, **fields: Any) -> str:
    return json.dumps({"user_id": "u", "item_id": "i", "event_type": "view", "event_ts": f"{day}T10:00:00Z"} | fields)


def broken() -> Lines:
    """What came in; the numbers are those of `MENDED`."""
    return {
        FIRST: [
            event(FIRST, event_id="a"),
            event(FIRST, event_id="1", event_type="hover"),
            event(FIRST, event_id="2", value="?"),  # a good copy came on the third date, and was accepted
            event(FIRST, event_id="3") + "}", event(FIRST, event_id="3") + "}",  # twice the same
            event(FIRST, event_id="4", user_id="", text="nobody knows whose"),
        ],
        SECOND: [
            event(SECOND, event_id="b"),
            event(FIRST, event_id="5", user_id="five", event_ts="2006-03-08T10:00:00Z"),  # too late
            event(SECOND, event_id="6", item_id=["i"]),
        ],
        THIRD: [event(THIRD, event_id="c"), event(FIRST, event_id="2")],
    }  # fmt: skip


# The mended text by what is in the broken one; the last stays broken in another way.
MENDED = {
    "hover": event(FIRST, event_id="1", event_type="click"),
    '"?"': event(FIRST, event_id="2", value="1"),
    "}}": event(FIRST, event_id="3"),
    "2006-03-08": event(FIRST, event_id="5", user_id="five", event_ts="2026-03-06T10:00:00Z"),
    '["i"]': event(SECOND, event_id="6", item_id="  "),
}


@pytest.fixture
def deployment(spark: SparkSession, tmp_path: Path) -> Path:
    """Three dates cleaned; the path of the config."""
    root = tmp_path / "shop"
    for day, lines in broken().items():
        folder = root / "raw" / "events" / f"ingest_date={day}"
        folder.mkdir(parents=True)
        (folder / "part-0.jsonl").write_text("\n".join(lines))
    file = root / "nightrec.toml"
    file.write_text('[spark]\nmaster = "local[2]"\n[candidates]\nrepeats_allowed = false\n')
    run(spark, configured(file), THIRD)
    return file


def configured(file: Path) -> Config:
    return Config(paths=Paths(**{name: str(file.parent / name) for name in Paths.model_fields}))


def run(spark: SparkSession, config: Config, day: dt.date) -> None:
    store = Store(spark, config.paths.warehouse, run_id="test")
    Night(spark, config, day, store=store).run("clean_events", clean_events.run)
    store.close()


def call(*words: str) -> str:
    ended = CliRunner().invoke(cli.app, [*words], catch_exceptions=False)
    assert ended.exit_code == 0
    return ended.stdout


def mend(file: Path, printed: str) -> Path:
    """The printed lines, mended where MENDED says how, as a file."""
    rows = [json.loads(line) for line in printed.splitlines()]
    for row in rows:
        row["raw"] = next((new for part, new in MENDED.items() if part in row["raw"]), row["raw"])
    mended = file.parent / "mended.jsonl"
    mended.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return mended


def state(config: Config) -> dict[str, Any]:
    """Clean events by id, as date, type and user; the books of the lines; marks of late ones; raw files."""
    warehouse, root = config.paths.warehouse, Path(config.paths.raw)
    rows = arrow(warehouse, LEDGER, {"stage": "clean_events"}).to_pylist()
    fates = ("read", "accepted", "late", "duplicate", "rejected")
    clean, late = (arrow(warehouse, table).to_pylist() for table in (CLEAN_EVENTS, LATE_ARRIVALS))
    return {
        "clean": sorted((str(r["ingest_date"]), r["event_type"], r["user_id"], r["event_key"]) for r in clean),
        "books": sorted(
            (r["run_date"].day, r["fate"], r["reason"], r["row_count"]) for r in rows if r["fate"] in fates
        ),
        "late": [(r["ingest_date"], r["user_id"], r["first_date"]) for r in late],
        "files": sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()),
    }


@pytest.fixture
def same_session(monkeypatch: pytest.MonkeyPatch, spark: SparkSession) -> None:
    """A command ends its Spark session; the tests' goes on."""
    monkeypatch.setattr(type(spark), "stop", lambda session: None)
    monkeypatch.setattr("nightrec.parent.die_with_parent", lambda: None)


@pytest.mark.usefixtures("same_session")
def test_lines_are_mended_and_land_where_they_belong(deployment: Path) -> None:
    config, toml = configured(deployment), str(deployment)
    printed = call("rejected", "--config", toml)
    rows = [json.loads(line) for line in printed.splitlines()]
    assert [(row["ingest_date"], row["reason"]) for row in rows] == [
        ("2026-03-08", "bad_value"), ("2026-03-08", "broken_line"), ("2026-03-08", "missing_user_id"),
        ("2026-03-08", "unknown_event_type"), ("2026-03-09", "broken_line"), ("2026-03-09", "too_late"),
    ]  # fmt: skip
    chosen = call("rejected", "--config", toml, "--date", "2026-03-09", "--reason", "too_late")
    assert [json.loads(line) for line in chosen.splitlines()] == [rows[-1]]
    mended = mend(deployment, printed)
    told = call("repair", str(mended), "--config", toml)
    assert re.sub(r"\s+", " ", told).strip() == (
        "5 mended lines put back, 0 were there before, 1 are as they were; 2026-03-08, 2026-03-09 and the dates after "
        "were cleaned again. 4 are accepted now or copies of an accepted event; rejected still: 1 missing_item_id."
    )
    after = state(config)
    assert after["books"] == [
        (8, "accepted", "", 4), (8, "duplicate", "repaired", 4), (8, "read", "", 9),
        (8, "rejected", "missing_user_id", 1),
        (9, "accepted", "", 1), (9, "duplicate", "repaired", 2), (9, "late", "", 1), (9, "read", "", 5),
        (9, "rejected", "missing_item_id", 1),
        # The event that was accepted of its second delivery is now that of its first.
        (10, "accepted", "", 1), (10, "duplicate", "", 1), (10, "read", "", 2),
    ]  # fmt: skip
    assert books.balance(books.lines(config.paths.warehouse)).is_balanced
    assert [row[:3] for row in after["clean"]] == [
        ("2026-03-08", "click", "u"), *[("2026-03-08", "view", "u")] * 3, ("2026-03-09", "view", "five"),
        ("2026-03-09", "view", "u"), ("2026-03-10", "view", "u"),
    ]  # fmt: skip
    assert len({row[3] for row in after["clean"]}) == 7
    # It happened before the first ingest date: that of the 8th is the first night it would have changed.
    assert after["late"] == [(SECOND, "five", FIRST)]

    # Again the same, and from what is printed now: nothing is added.
    told = call("repair", str(mended), "--config", toml)
    assert told.startswith("0 mended lines put back, 5 were there before, 1 are as they were")
    assert state(config) == after
    rest = deployment.parent / "rest.jsonl"
    rest.write_text(call("rejected", "--config", toml))
    assert [json.loads(line)["file"][-7:] for line in rest.read_text().splitlines()] == ["0.jsonl", ".repair"]
    assert call("repair", str(rest), "--config", toml) == "Nothing to put back: 2 lines are as they were.\n"

    # What is rejected still can be mended once more.
    row = json.loads(rest.read_text().splitlines()[-1]) | {"raw": event(SECOND, event_id="6")}
    rest.write_text(json.dumps(row))
    machine = json.loads(call("repair", str(rest), "--config", toml, "--json"))
    assert (machine["added"], machine["landed"], machine["rejected"]) == (1, 1, {})
    assert [line for line in state(config)["books"] if line[0] == 9] == [
        (9, "accepted", "", 2), (9, "duplicate", "repaired", 3), (9, "late", "", 1), (9, "read", "", 6),
    ]  # fmt: skip


@pytest.mark.usefixtures("same_session")
def test_a_night_that_runs_again_keeps_what_was_mended(spark: SparkSession, deployment: Path) -> None:
    config = configured(deployment)
    mended = mend(deployment, call("rejected", "--config", str(deployment)))
    call("repair", str(mended), "--config", str(deployment))
    after = state(config)
    shutil.rmtree(config.paths.warehouse)
    for day in (FIRST, THIRD):
        run(spark, config, day)
    assert state(config) == after


def test_what_cannot_be_put_back(spark: SparkSession, deployment: Path, tmp_path: Path) -> None:
    config = configured(deployment)
    rows = quarantine.listed(config.paths.warehouse, None, [])
    good = {"ingest_date": "2026-03-08", "line_id": rows[0]["line_id"], "raw": event(FIRST)}
    file = tmp_path / "mended.jsonl"

    def refused(*lines: object) -> str:
        file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
        with pytest.raises(BadInput) as error:
            quarantine.put_back(night, quarantine.read(file))
        return str(error.value)

    store = Store(spark, config.paths.warehouse, run_id="test")
    night = Night(spark, config, quarantine.last_night(config.paths.warehouse), store=store)
    before = state(config)
    assert "line 2: JSONDecodeError" in refused(good, "{")
    assert "line 1: KeyError: 'line_id'; expected is a JSON object" in refused({"ingest_date": "2026-03-08"})
    assert "line 1: raw is no text; a line that shall stay as it is" in refused(good | {"raw": " "})
    assert refused(good, good | {"raw": "other"}).startswith("line 2 stands for the same line as one before it; ")
    assert "line 1 (none of 2026-03-08) is not in quarantine" in refused(good | {"line_id": "none"})
    assert "is not in quarantine" in refused(good | {"ingest_date": "2026-03-09"})
    # Raw files that are gone: cleaned again, the date would lose their rows.
    (Path(config.paths.raw) / "events" / "ingest_date=2026-03-08" / "part-0.jsonl").rename(tmp_path / "kept")
    assert "had 1 files when it was cleaned and has 0 now" in refused(good)
    (tmp_path / "kept").rename(Path(config.paths.raw) / "events" / "ingest_date=2026-03-08" / "part-0.jsonl")
    assert state(config) == before
    # A later date whose files are gone stays as it is, and its copy of an event remains the one that counts.
    shutil.rmtree(Path(config.paths.raw) / "events" / "ingest_date=2026-03-10")
    second = next(row for row in rows if '"?"' in row["raw"])
    file.write_text(json.dumps(second | {"raw": MENDED['"?"']}, default=str))
    quarantine.put_back(night, quarantine.read(file))
    assert (8, "duplicate", "", 1) in state(config)["books"]
    keys = [row[3] for row in state(config)["clean"]]
    assert len(keys) == len(set(keys)) == len(before["clean"])
    store.close()


def test_nothing_was_set_aside(tmp_path: Path) -> None:
    assert quarantine.listed(str(tmp_path), None, ["robot"]) == []
    with pytest.raises(BadInput, match="has no books of clean_events"):
        quarantine.last_night(str(tmp_path))
    with pytest.raises(BadInput, match="is no file; expected lines as"):
        quarantine.read(tmp_path / "none.jsonl")
