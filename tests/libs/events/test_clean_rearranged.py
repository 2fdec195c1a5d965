"""The same lines in another order, in other files, more than once, compressed otherwise: the same clean rows."""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

from nightrec_jobs import clean_events as job
from pyspark.sql import SparkSession

from nightrec import raw
from nightrec.config import Config, Events
from nightrec.events.clean import classified, clean_events
from nightrec.night import Night
from nightrec.store import Store, arrow
from nightrec.tables import CLEAN_EVENTS, LATE_ARRIVALS

DATES = [dt.date(2026, 3, 9), dt.date(2026, 3, 10)]
CASES, RUNS = 500, 20
SETTINGS = Events(robot_events_per_hour=5, late_window_days=30)
Lines = dict[dt.date, list[str]]


def case(draw: random.Random, name: str) -> Lines:
    """Some twenty lines of users and ids of their own, all of whose rules depend on other lines: copies under one id
    with other contents and times of delivery, copies without an id, robots, clocks that are off, late and broken ones.
    """
    lines: Lines = {day: [] for day in DATES}
    for _ in range(draw.randrange(10, 25)):
        day = draw.choice(DATES)
        moment = dt.datetime.combine(day, dt.time(draw.randrange(3)), dt.UTC)
        moment -= dt.timedelta(days=draw.choice((0, 0, 3, 40)))
        line: dict[str, Any] = {
            "user_id": f"{name}-{draw.randrange(3)}", "item_id": draw.choice("ab"),
            "event_type": draw.choice(("view", "rating", "hover")), "event_ts": moment.isoformat(),
        }  # fmt: skip
        if draw.random() < 0.6:
            line["event_id"] = f"{name}-{draw.randrange(8)}"
        if draw.random() < 0.7:
            line["value"] = draw.choice((1, "1", 1.0, 2, "?"))
        if draw.random() < 0.4:
            sent = moment + dt.timedelta(hours=draw.choice((0, 0, 5, -5)))
            received = sent + dt.timedelta(hours=draw.choice((0, 2)))
            line |= {"sent_ts": sent.isoformat(), "received_ts": received.isoformat()}
        if draw.random() < 0.3:
            line["context"] = dict(draw.sample([("a", "1"), ("b", "2"), ("c", "3")], 2))
        text = json.dumps(line)
        lines[day] += [text, text] if draw.random() < 0.1 else [text[: draw.choice((None, None, None, -1))]]
    robot = {"user_id": f"{name}-r", "event_type": "view", "event_ts": f"{DATES[0]}T01:00:00Z"}
    lines[DATES[0]] += [json.dumps(robot | {"item_id": f"{n}"}) for n in range(draw.choice((5, 6)))]
    lines[DATES[1]].append(json.dumps(json.loads(lines[DATES[0]][-1]) | {"user_id": f"{name}-s"}))
    return lines


def rearranged(draw: random.Random, lines: Lines) -> Lines:
    """In another order, and some of them again."""
    found = {day: list(each) for day, each in lines.items()}
    for day in draw.choices(DATES, k=draw.randrange(9)):
        found[day].append(draw.choice(lines[day]))
    for each in found.values():
        draw.shuffle(each)
    return found


def write(root: Path, lines: Lines, draw: random.Random, most: int) -> None:
    """Split among up to `most` files: plain, compressed at any level, in one piece or several, with any line ends."""
    for day, each in lines.items():
        folder = root / "events" / f"ingest_date={day}"
        folder.mkdir(parents=True)
        files = draw.randrange(1, most + 1)
        for number in range(files):
            end = draw.choice(("\n", "\r\n", "\n\n"))
            text = end.join(each[number::files]).encode()
            name = f"{draw.choice('zay')}{number}"
            if draw.random() < 0.5:
                cut = draw.randrange(len(text) + 1)
                pieces = [text] if draw.random() < 0.5 else [text[:cut], text[cut:]]
                packed = b"".join(gzip.compress(piece, draw.choice((1, 6, 9)), mtime=0) for piece in pieces)
                (folder / f"{name}.jsonl.gz").write_bytes(packed)
            else:
                (folder / f"{name}.json").write_bytes(text + draw.choice((b"", end.encode())))


def cleaned(spark: SparkSession, root: Path) -> list[dict[str, Any]]:
    """Clean rows, their contexts in order."""
    with classified(raw.events(spark, str(root), DATES), None, SETTINGS, Config().event_weights()) as found:
        rows = clean_events(found.events).toArrow().to_pylist()
    return [row | {"context": sorted(row["context"] or ())} for row in rows]


def digests(spark: SparkSession, root: Path) -> dict[str, str]:
    """A digest of the clean rows of each case, in an order that no file decides."""
    texts: dict[str, list[str]] = defaultdict(list)
    for row in cleaned(spark, root):
        texts[row["user_id"].split("-")[0]].append(str(sorted(row.items())))
    return {name: hashlib.sha256("\n".join(sorted(each)).encode()).hexdigest() for name, each in texts.items()}


def together(cases: list[Lines]) -> Lines:
    return {day: [line for case in cases for line in case[day]] for day in DATES}


def test_cases_rearranged_within_one_pass(spark: SparkSession, tmp_path: Path) -> None:
    draw = random.Random(11)
    planted = [case(draw, f"c{n}") for n in range(CASES)]
    write(tmp_path / "as planted", together(planted), random.Random(0), 1)
    write(tmp_path / "rearranged", together([rearranged(draw, lines) for lines in planted]), draw, 9)
    one, other = digests(spark, tmp_path / "as planted"), digests(spark, tmp_path / "rearranged")
    assert len(one) == CASES and len(set(one.values())) == CASES
    different = [name for name in one if one[name] != other.get(name)]
    assert not different and set(one) == set(other), f"{len(different)} cases differ, as {different[:3]}"


def test_whole_inputs_rearranged(spark: SparkSession, tmp_path: Path) -> None:
    draw = random.Random(12)
    planted = together([case(draw, f"c{n}") for n in range(20)])
    found = []
    for run in range(RUNS + 1):
        write(tmp_path / str(run), rearranged(draw, planted) if run else planted, draw, 3 if run else 1)
        found.append(sorted(str(sorted(row.items())) for row in cleaned(spark, tmp_path / str(run))))
    assert len(found[0]) > 100
    assert [run for run in range(1, RUNS + 1) if found[run] != found[0]] == []


def test_tables_rearranged(spark: SparkSession, config: Config, tmp_path: Path) -> None:
    """The job's tables: in one pass, and otherwise rearranged night by night."""
    draw = random.Random(13)
    planted = together([case(draw, f"c{n}") for n in range(20)])
    found = []
    for name, lines, nights in (("one", planted, DATES[1:]), ("two", rearranged(draw, planted), DATES)):
        write(tmp_path / name / "raw", lines, draw, 3)
        paths = {key: str(tmp_path / name / key) for key in ("raw", "warehouse")}
        settings = config.model_copy(update={"paths": config.paths.model_copy(update=paths), "events": SETTINGS})
        store = Store(spark, settings.paths.warehouse, run_id=name)
        for day in nights:
            Night(spark, settings, day, store=store).run("clean_events", job.run)
        store.close()
        rows = [arrow(store.warehouse, table).to_pylist() for table in (CLEAN_EVENTS, LATE_ARRIVALS)]
        found.append([sorted(str(sorted(row.items())) for row in each) for each in rows])
    assert found[0] == found[1] and all(found[0])
