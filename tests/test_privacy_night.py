"""A whole night with pseudonyms and planted canaries; then one of its users is forgotten, killed at every place."""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nightrec_jobs import clean_events, export, user_profiles
from pyspark.sql import SparkSession
from spark_commands import BIN, environment
from synthetic import deployment, rename_user, user_id

from nightrec import config as configuration
from nightrec.errors import Fenced, NightrecError, UsageError
from nightrec.night import Night
from nightrec.privacy import forget, pseudonyms, purge
from nightrec.privacy.person import GONE, Person
from nightrec.store import Store, arrow, exists, locked, version
from nightrec.tables import (
    CANDIDATES,
    CLEAN_EVENTS,
    FORGOTTEN,
    LEDGER,
    PUBLISHED_TOPK,
    RANKED_TOPK,
    REJECTED_EVENTS,
    RUNS,
    TABLES,
    USER_PROFILES,
)

pytestmark = pytest.mark.usefixtures("interpreted")

# A user with events and lists, one whose lines are all rejected, one who only sends broken lines.
CANARY, REJECTED, BROKEN = "canary-7e3f", "canary-rejected-19", "canary-broken-55"
CANARIES = (CANARY, REJECTED, BROKEN)
THANKS = f"thanks, {CANARY}!"
SECRET = "5ecretkey" * 5
EVENT_LOG = '"spark.eventLog.enabled" = "true"\n"spark.eventLog.compress" = "false"\n'


@dataclass
class Deployment:
    """A folder after one night, what the night printed, and every command line seen while it ran."""

    folder: Path
    last: dt.date
    said: str = ""
    commands: set[str] = field(default_factory=set)

    @property
    def toml(self) -> Path:
        return self.folder / "nightrec.toml"

    @property
    def config(self) -> configuration.Config:
        return configuration.load(self.toml)

    @property
    def warehouse(self) -> str:
        return self.config.paths.warehouse

    def copy(self, to: Path) -> Deployment:
        shutil.copytree(self.folder, to, ignore=shutil.ignore_patterns("events-log"))
        return Deployment(to, self.last)

    def pseudonym(self, user: str) -> str:
        return pseudonyms.named(self.config.privacy, user)


def plant(raw: Path, last: dt.date) -> None:
    """Call the eighth user CANARY, and let raw files of every form, and others' lines, speak of the canaries."""
    rename_user(raw, 7, CANARY)
    folder = raw / f"events/ingest_date={last}"
    event = {"user_id": CANARY, "item_id": "i003", "event_type": "comment", "event_ts": f"{last}T10:00:00Z"}
    lines = [
        json.dumps({**event, "text": f"I am {CANARY}", "context": {"account": CANARY}, "event_id": f"{CANARY}/1"}),
        json.dumps({**event, "event_ts": "never", "note": CANARY}),
        json.dumps(event).replace("canary", "c\\u0061nary"),
        json.dumps({**event, "user_id": user_id(1), "text": THANKS}),
        json.dumps({**event, "user_id": f"{CANARY}0", "item_id": "i005"}),  # another user, whose id begins so
        json.dumps({**event, "user_id": REJECTED, "event_type": "?", "text": REJECTED}),
        f'{{"user_id": "{BROKEN}", "item_id": "i0',
        f"{CANARY} {BROKEN}",
        json.dumps({"uid": BROKEN}),
    ]
    (folder / "more.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "_ignored.jsonl").write_text(lines[0] + "\n")
    names = ("user_id", "item_id", "event_type", "event_ts", "text")
    at = f"{last}T11:00:00Z"
    values = [(CANARY, "i007", "view", at, ""), (user_id(3), "i009", "view", at, "a, b")]
    cells = [",".join(f'"{cell}"' for cell in row) for row in values]
    (folder / "table.csv.gz").write_bytes(gzip.compress("\n".join([",".join(names), *cells, ""]).encode()))
    rows = [dict(zip(names, row, strict=True)) for row in values]
    pq.write_table(pa.Table.from_pylist([{**row, "item_id": "i011"} for row in rows]), folder / "table.parquet")


def watch(commands: set[str], stop: threading.Event) -> None:
    """Every command line and environment-free process title of this machine, ten times a second."""
    while not stop.wait(0.1):
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                commands.add(process.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    folder = tmp_path_factory.mktemp("shop")
    toml, shop = deployment(folder, past_cuts=1, days=18, users=40, items=40)
    plant(folder / "raw", shop.last)
    (folder / "events-log").mkdir()
    (folder / "privacy.key").write_text(SECRET)
    (folder / "privacy.key").chmod(0o600)
    more = f'[privacy]\npseudonyms = true\n\n[spark.options]\n{EVENT_LOG}"spark.eventLog.dir" = "{folder}/events-log"\n'
    toml.write_text(toml.read_text() + more)
    made = Deployment(folder, shop.last)
    stop = threading.Event()
    watcher = threading.Thread(target=watch, args=(made.commands, stop))
    watcher.start()
    try:
        ended = subprocess.run(
            [BIN / "nightrec", "run", "--config", toml, "--date", str(shop.last)], cwd=folder, env=environment(),
            capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
    finally:
        stop.set()
        watcher.join()
    made.said = ended.stdout + ended.stderr
    assert ended.returncode == 0, made.said[-3000:]
    return made


def values(warehouse: str) -> str:
    return "\n".join(str(arrow(warehouse, table).to_pylist()) for table in TABLES)


def test_no_canary_and_no_key_leaves_the_raw_files(done: Deployment) -> None:
    """Tables with log and all versions, exports, models, reports, event logs, what was printed, command lines."""
    left = [file for file in done.folder.rglob("*") if file.is_file()]
    for user in CANARIES:
        person = Person((user,))
        found = {"/".join(file.relative_to(done.folder).parts[:2]) for file in left if purge.says(file, person)}
        # What another user wrote about them is that user's text: nobody can tell whose id is in it.
        by_others = {"warehouse/clean_events", "warehouse/user_profiles"} if user == CANARY else set()
        assert {name for name in found if not name.startswith("raw/")} == by_others, found
        assert not person.said_in(done.said.encode())
        assert not [line for line in done.commands if user in line]
    events = [file for file in (done.folder / "events-log").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in events) > 100_000
    assert any("nightrec" in line and "java" in line for line in done.commands)
    for secret in (SECRET, SECRET.encode().hex()):
        assert not [file for file in left if secret.encode() in file.read_bytes() and file.name != "privacy.key"]
        assert secret not in done.said and not [line for line in done.commands if secret in line]
    told = values(done.warehouse).replace(THANKS, "")
    for user in CANARIES:
        assert user not in told
    for table in (CLEAN_EVENTS, USER_PROFILES, CANDIDATES, RANKED_TOPK):
        assert done.pseudonym(CANARY) in str(arrow(done.warehouse, table).to_pylist()), table.name
    # Neither writer puts the smallest and largest value of a column into the log.
    commits = [file.read_text() for file in Path(done.warehouse).glob("*/_delta_log/*.json")]
    smallest = [told for text in commits for told in re.findall(r'minValues\\?":(.*?})', text)]
    assert len(commits) > 50 and set(smallest) <= {"{}"}
    kept = arrow(done.warehouse, REJECTED_EVENTS)["raw"].to_pylist()
    assert sum(line.startswith("(not kept:") for line in kept) == 4
    assert sum(done.pseudonym(REJECTED) in line for line in kept) == 1


def test_people_are_asked_for_by_their_id_and_called_by_their_pseudonym(done: Deployment) -> None:
    shown = [
        subprocess.run(
            [BIN / "nightrec", "show", user, "--config", done.toml, "--json"], cwd=done.folder, env=environment(),
            capture_output=True, text=True, timeout=60, check=True,
        ).stdout
        for user in (CANARY, done.pseudonym(CANARY))
    ]  # fmt: skip
    assert shown[0] == shown[1]
    assert json.loads(shown[0])["user_id"] == done.pseudonym(CANARY) and CANARY not in shown[0]


def others(warehouse: str, person: Person) -> dict[str, str]:
    """A digest per table of the rows that neither belong to the person nor speak, or spoke, of them."""
    person, found = Person((*person.ids, GONE)), {}
    for table in TABLES:
        if table in (FORGOTTEN, LEDGER, RUNS) or not exists(warehouse, table):
            continue
        rows = arrow(warehouse, table)
        kept = rows.filter(pa.array(~(person.own(rows) | person.mentioned(rows)))).to_pylist()
        lines = sorted(str(row) for row in kept)
        found[table.name] = f"{len(lines)} {hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"
    return found


@pytest.fixture
def here(done: Deployment, tmp_path: Path) -> Deployment:
    return done.copy(tmp_path / "shop")


def erase(deployment: Deployment, user: str = CANARY) -> forget.Counts:
    return forget.forget(deployment.config, deployment.folder, user, dt.date(2026, 3, 1))


def is_gone(deployment: Deployment, user: str) -> bool:
    person = Person((user, deployment.pseudonym(user)))
    return not [file for file in deployment.folder.rglob("*") if file.is_file() and purge.says(file, person)]


def test_a_forgotten_user_is_nowhere_and_the_others_are_as_they_were(
    here: Deployment, spark: SparkSession, tmp_path: Path
) -> None:
    person = Person((CANARY, here.pseudonym(CANARY)))
    before, lists = others(here.warehouse, person), arrow(here.warehouse, PUBLISHED_TOPK).num_rows
    assert not is_gone(here, CANARY)
    counts = erase(here)
    assert is_gone(here, CANARY)
    assert others(here.warehouse, person) == before and len(before) >= 15
    assert arrow(here.warehouse, PUBLISHED_TOPK).num_rows == lists - 1
    # Lines of the user, one of another who spoke of them, one that nobody can parse.
    assert counts["raw users"] == 1 and counts["raw events"] >= 7
    for name in ("clean_events", "rejected_events", "candidates", "ranked_topk", "als_user_factors", "user_embeddings"):
        assert counts[f"table warehouse/{name}"] > 0, name
    assert counts["table warehouse/published_topk"] == 1 == counts["exported files"]
    raw = (here.folder / f"raw/events/ingest_date={here.last}/more.jsonl").read_text()
    assert f'"{CANARY}0"' in raw and "thanks, (forgotten)!" in raw and BROKEN in raw

    certificate = arrow(here.warehouse, FORGOTTEN).to_pylist()
    assert {row["place"]: row["row_count"] for row in certificate} == counts
    assert len({row["fingerprint"] for row in certificate}) == 1 and CANARY not in str(certificate)
    assert {row["forgotten_date"] for row in certificate} == {dt.date(2026, 3, 1)}
    # Again: nothing is found, and nothing changes.
    versions = {table.name: version(here.warehouse, table) for table in TABLES}
    assert erase(here) == counts
    assert {table.name: version(here.warehouse, table) for table in TABLES} == versions

    # The nights go on, by Spark too, and the user does not come back.
    night = Night(spark, here.config, here.last)
    night.run("clean_events", clean_events.run)
    night.run("user_profiles", user_profiles.run)
    assert is_gone(here, CANARY)
    assert others(here.warehouse, person)["clean_events"] == before["clean_events"]
    # The next export begins behind the commit that took the user out, with what changed since and nothing else.
    lists_of = night.store.read(PUBLISHED_TOPK)
    fewer = lists_of.where(f"list_key <> '{here.pseudonym(user_id(1))}'")
    assert night.store.merge(PUBLISHED_TOPK, fewer, "list_id").metrics["deleted"] == 1
    night.run("export", export.run)
    night.store.close()
    newest = max((here.folder / "exports/published_topk").glob("version=*"))
    told = json.loads((newest / "manifest.json").read_text())
    assert (told["rows"], told["delete"]) == (1, 1)
    # New events of later are those of a new user.
    day = here.last + dt.timedelta(days=1)
    folder = here.folder / f"raw/events/ingest_date={day}"
    folder.mkdir()
    event = {"user_id": CANARY, "item_id": "i003", "event_type": "view", "event_ts": f"{day}T10:00:00Z"}
    (folder / "part-0.jsonl").write_text(json.dumps(event) + "\n")
    with Night(spark, here.config, day) as later:
        later.run("clean_events", clean_events.run)
    assert arrow(here.warehouse, CLEAN_EVENTS, {"user_id": here.pseudonym(CANARY)}).num_rows == 1
    assert sum(erase(here).values()) >= sum(counts.values())
    assert is_gone(here, CANARY)


def places(deployment: Deployment, log: Path) -> list[str]:
    """Every place that forgetting passes, in order, each once."""
    os.environ["NIGHTREC_FAILPOINT_LOG"] = str(log)
    try:
        erase(deployment)
    finally:
        del os.environ["NIGHTREC_FAILPOINT_LOG"]
    return list(dict.fromkeys(line.split()[1] for line in log.read_text().splitlines()))


_KILLED = (
    "import sys, datetime as dt; from pathlib import Path; from nightrec import config; "
    "from nightrec.privacy import forget; folder = Path(sys.argv[1]); "
    "forget.forget(config.load(folder / 'nightrec.toml'), folder, sys.argv[2], dt.date(2026, 3, 1))"
)


def test_killed_at_any_place_the_same_command_goes_on(done: Deployment, tmp_path: Path) -> None:
    """Each place once, one after the other in a folder that is never restored; and the first of each kind anew."""
    whole = done.copy(tmp_path / "whole")
    person = Person((CANARY, done.pseudonym(CANARY)))
    before = others(done.warehouse, person)
    found = places(whole, tmp_path / "places")
    assert len(found) > 30
    live = {place: count for place, count in erase(whole).items() if place.startswith(("table", "raw"))}
    chosen = [place for place in found if place.startswith("forget.published_topk.") or "." not in place[7:]]
    for number, place in enumerate(chosen):
        here = done.copy(tmp_path / str(number))
        killed = subprocess.run(
            [sys.executable, "-c", _KILLED, str(here.folder), CANARY],
            env=os.environ | {"NIGHTREC_FAILPOINT": f"{place}:kill"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert killed.returncode == -signal.SIGKILL, f"{place}: {killed.stderr[-2000:]}"
        counts = erase(here)
        assert is_gone(here, CANARY), place
        assert others(here.warehouse, person) == before, place
        again = {name: count for name, count in counts.items() if name.startswith(("table", "raw"))}
        assert again == live, place
        assert not list(here.folder.rglob(".forget-*")), place
        for table in (PUBLISHED_TOPK, CLEAN_EVENTS):
            log = Path(here.warehouse) / table.name / "_delta_log"
            # No version is offered whose files are gone.
            assert len(list(log.glob("*.json"))) == 1 == len(list(log.glob("*.checkpoint.parquet"))), place
        shutil.rmtree(here.folder)


def test_what_cannot_be_forgotten_is_refused_in_a_sentence(here: Deployment) -> None:
    with pytest.raises(UsageError, match="a pseudonym was given"):
        erase(here, here.pseudonym(CANARY))
    handle = locked(here.warehouse)
    assert handle
    with handle, pytest.raises(Fenced, match=f"process {os.getpid()} is writing"):
        erase(here)
    (here.folder / "notes.txt").write_text(f"call {CANARY} back")
    with pytest.raises(NightrecError, match=r"1 other files still say the user: .*notes.txt; remove them"):
        erase(here)
    assert forget.DONE not in str(arrow(here.warehouse, FORGOTTEN).to_pylist())
    (here.folder / "notes.txt").unlink()
    assert forget.DONE in erase(here)


def test_changes_that_no_export_has_carried_stop_it(here: Deployment, spark: SparkSession) -> None:
    store = Store(spark, here.warehouse, run_id="test")
    fewer = store.read(PUBLISHED_TOPK).where(f"list_key <> '{here.pseudonym(user_id(1))}'")
    store.merge(PUBLISHED_TOPK, fewer, "list_id")
    store.close()
    with pytest.raises(UsageError, match="run `nightrec export` first"):
        erase(here)
