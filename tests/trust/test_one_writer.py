"""Two attempts that write at once: exactly one commits, the other leaves with a sentence that says why.

Most races are staged between two Stores in two threads of one JVM, each stopped at the fail-point right before its
commit and let go in the order that is tested; some between processes stopped by SIGSTOP. In both the kernel lock is
off, as on an object store: fencing by transaction id alone has to hold. Then the lock by itself, and the lost reply.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from nightrec import failpoint
from nightrec import store as store_module
from nightrec.contract import Table
from nightrec.errors import Fenced
from nightrec.store import Store, arrow, location
from nightrec.tables import AUDIT_RESULTS, ITEM_EMBEDDINGS, LEDGER, PUBLISHED_TOPK, SHORTFALLS

MONDAY, TUESDAY = dt.date(2026, 3, 9), dt.date(2026, 3, 10)
Rows = Callable[[Table, list[dict[str, Any]]], DataFrame]


def line(table: Table, night: dt.date, who: str) -> dict[str, Any]:
    """A row that says who wrote it."""
    return {
        SHORTFALLS.name: {
            "run_date": night, "list_kind": "user", "list_key": who, "wanted": 2, "found": 1, "cause": "-",
        },
        PUBLISHED_TOPK.name: {"list_kind": "user", "list_key": "u", "list_id": who, "items": [], "changed_date": night},
        ITEM_EMBEDDINGS.name: {"encoder": "e", "text_hash": who, "vector": [1.0]},
        LEDGER.name: {"run_date": night, "stage": "audit", "fate": who, "reason": "", "row_count": 1, "run_id": who},
        AUDIT_RESULTS.name: {
            "run_date": night, "check_name": who, "severity": "note", "passed": True, "found": 0.0, "limit": 0.0,
            "detail": "-",
        },
    }[table.name]  # fmt: skip


def write(store: Store, table: Table, night: dt.date, rows: Rows) -> None:
    """One commit to a table in the way its stage does it; the row says which run made it."""
    row = line(table, night, store.run_id)
    if table is SHORTFALLS:
        store.replace(table, rows(table, [row]), {"run_date": night})
    elif table is PUBLISHED_TOPK:
        store.merge(table, rows(table, [row]), "list_id")
    elif table is ITEM_EMBEDDINGS:
        store.append(table, rows(table, [row]))
    else:
        where = {"run_date": night} | ({"stage": "audit"} if table is LEDGER else {})
        store.put(table, [row], where)


def commits(warehouse: str, table: Table) -> list[str]:
    """Which runs committed data to a table, in order, by the commits' own metadata."""
    told = [json.loads(each.get("userMetadata") or "{}") for each in DeltaTable(location(warehouse, table)).history()]
    return [one["run_id"] for one in reversed(told) if "run_id" in one]


@dataclass
class Race:
    """Two attempts, `old` (the orphan) and `new`, opened one after the other; whatever they raise is kept."""

    spark: SparkSession
    warehouse: str
    table: Table
    rows: Rows
    nights: tuple[dt.date, dt.date] = (MONDAY, MONDAY)
    raised: dict[str, Exception] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first = Store(self.spark, self.warehouse, run_id="before")
        write(first, self.table, MONDAY - dt.timedelta(days=1), self.rows)
        first.close()
        # A session each: MERGE takes its transaction id from the session's settings.
        self.stores = {"old": Store(self.spark, self.warehouse, run_id="old"),
                       "new": Store(self.spark.newSession(), self.warehouse, run_id="new")}  # fmt: skip
        self.gates = {name: threading.Event() for name in self.stores}
        self.arrived = {name: threading.Event() for name in self.stores}

    def go(self, name: str) -> None:
        """One attempt's write, to its end."""
        try:
            write(self.stores[name], self.table, self.nights[name == "new"], self.rows)
        except Exception as error:
            self.raised[name] = error

    def reach(self, place: str) -> None:
        """In place of the store's: an attempt that runs in a thread of its name waits before its commit."""
        name = threading.current_thread().name
        if name in self.gates and place.endswith(".before_commit"):
            self.arrived[name].set()
            assert self.gates[name].wait(60)

    def start(self, name: str) -> threading.Thread:
        """Let an attempt run up to its commit."""
        thread = threading.Thread(target=self.go, args=(name,), name=name)
        thread.start()
        assert self.arrived[name].wait(60) or not thread.is_alive()
        return thread

    def complaints(self) -> list[str]:
        """What is wrong with how it ended: a commit too many or too few, a loser without a word, rows of both."""
        made = commits(self.warehouse, self.table)[1:]
        found = [] if len(made) == 1 else [f"{len(made)} commits: {made}"]
        losers = set(self.stores) - set(made)
        for name in sorted(self.raised.keys() | losers):
            error = self.raised.get(name)
            if name in losers and error is None:
                found.append(f"{name} did not commit and said nothing")
            elif name not in losers:
                found.append(f"{name} committed and raised {error!r}")
            elif not isinstance(error, Fenced) or not str(error).startswith(f"{self.table.name}: another attempt"):
                found.append(f"{name} left with {error!r}")
        rows = arrow(self.warehouse, self.table).to_pylist()
        written = {name for name in ("old", "new") if any(name in map(str, row.values()) for row in rows)}
        return found if written == set(made) else [*found, f"rows of {sorted(written)}, commits of {made}"]


def retry_first(race: Race) -> None:
    """The retry is done when the orphan comes to its first read of the log."""
    race.go("new")
    race.go("old")


def orphan_first(race: Race) -> None:
    """The orphan commits while the retry, already open, works on."""
    race.go("old")
    race.go("new")


def before_commit(race: Race, sleeper: str, other: str) -> None:
    """One stands right before its commit, its transaction id drawn, while the other commits."""
    thread = race.start(sleeper)
    race.go(other)
    race.gates[sleeper].set()
    thread.join()


def same_moment(race: Race) -> None:
    """Both stand before their commits and are let go at once."""
    threads = [race.start(name) for name in ("old", "new")]
    for gate in race.gates.values():
        gate.set()
    for thread in threads:
        thread.join()


def orphan_sleeps(race: Race) -> None:
    before_commit(race, "old", "new")


def retry_sleeps(race: Race) -> None:
    before_commit(race, "new", "old")


STAGED: tuple[Callable[[Race], None], ...] = (retry_first, orphan_first, orphan_sleeps, retry_sleeps, same_moment)
TABLES = (SHORTFALLS, PUBLISHED_TOPK, ITEM_EMBEDDINGS, LEDGER, AUDIT_RESULTS)


@pytest.fixture
def unlocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A warehouse without a kernel's lock, like one on an object store."""
    monkeypatch.setattr(store_module, "locked", lambda warehouse: None)


# The same night twice, and a backfill of Monday beside Tuesday's schedule: 5 tables x 5 stagings x 2 = 50 races.
@pytest.mark.usefixtures("unlocked")
@pytest.mark.parametrize("nights", [(MONDAY, MONDAY), (MONDAY, TUESDAY)], ids=["same night", "backfill"])
@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_of_two_attempts_exactly_one_commits(
    spark: SparkSession, rows: Rows, table: Table, nights: tuple[dt.date, dt.date], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    found = {}
    for staged in STAGED:
        race = Race(spark, str(tmp_path / staged.__name__), table, rows, nights)
        monkeypatch.setattr(store_module, "reach", race.reach)
        staged(race)
        found[staged.__name__] = race.complaints()
    assert found == {staged.__name__: [] for staged in STAGED}


@pytest.mark.usefixtures("unlocked")
@pytest.mark.parametrize("table", [SHORTFALLS, LEDGER], ids=lambda table: table.name)
def test_a_store_that_does_not_fence_is_caught(
    spark: SparkSession, rows: Rows, table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broken variant: every attempt takes whatever transaction id is free, as code without fencing does."""
    monkeypatch.setattr(Store, "_next_token", lambda self, table, opened=None: self._recorded(table) + 1)
    for staged in (retry_first, orphan_first):
        race = Race(spark, str(tmp_path / staged.__name__), table, rows)
        monkeypatch.setattr(store_module, "reach", race.reach)
        staged(race)
        assert "2 commits" in race.complaints()[0]


WRITER = """
import datetime as dt, sys
from nightrec import store as store_module
from nightrec.errors import Fenced
from nightrec.store import Store
from nightrec.tables import LEDGER
if sys.argv[3] == "unlocked":
    store_module.locked = lambda warehouse: None
try:
    store = Store(None, sys.argv[1], sys.argv[2])
    print("open", flush=True)
    day = dt.date(2026, 3, 9)
    row = {"run_date": day, "stage": "audit", "fate": sys.argv[2], "reason": "", "row_count": 1, "run_id": sys.argv[2]}
    store.put(LEDGER, [row], {"run_date": day, "stage": "audit"})
except Fenced as error:
    print(error, flush=True)
    sys.exit(1)
print("committed", flush=True)
"""


def writer(warehouse: Path, name: str, lock: str, action: str = "") -> subprocess.Popen[str]:
    """A process that makes one commit to the ledger; `action` is what it does right before."""
    environment = {**os.environ, "NIGHTREC_FAILPOINT": f"ledger.before_commit:{action}"} if action else dict(os.environ)
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(warehouse), name, lock], env=environment, text=True, stdout=subprocess.PIPE
    )


def stopped(process: subprocess.Popen[str]) -> None:
    """Wait until a process has stopped itself."""
    for _ in range(600):
        if Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T":
            return
        time.sleep(0.05)
    raise AssertionError("it never came to its fail-point")


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=60)
    return process.returncode, said.strip().splitlines()[-1]


@pytest.fixture
def ledger(spark: SparkSession, tmp_path: Path) -> None:
    """The table is there: a contract's types are read by Spark, which the writers' processes do without."""
    before = Store(spark, str(tmp_path), "before")
    before.put(LEDGER, [line(LEDGER, TUESDAY, "before")], {"run_date": TUESDAY, "stage": "audit"})
    before.close()


@pytest.mark.usefixtures("ledger")
def test_a_process_that_slept_through_anothers_commit_is_refused(tmp_path: Path) -> None:
    orphan = writer(tmp_path, "orphan", "unlocked", "pause")
    stopped(orphan)
    assert ended(writer(tmp_path, "retry", "unlocked")) == (0, "committed")
    orphan.send_signal(signal.SIGCONT)
    code, said = ended(orphan)
    assert code == 1 and said.startswith("ledger: another attempt committed")
    assert commits(str(tmp_path), LEDGER) == ["before", "retry"]


@pytest.mark.usefixtures("ledger")
def test_a_second_process_is_refused_at_the_door_until_the_first_is_killed(tmp_path: Path) -> None:
    orphan = writer(tmp_path, "orphan", "locked", "pause")
    stopped(orphan)
    for _ in range(3):
        code, said = ended(writer(tmp_path, "retry", "locked"))
        assert code == 1 and said == (
            f"process {orphan.pid} is writing to {tmp_path}; wait for it to end, then run this night again"
        )
    orphan.send_signal(signal.SIGKILL)
    orphan.wait()
    assert ended(writer(tmp_path, "retry", "locked")) == (0, "committed")
    assert commits(str(tmp_path), LEDGER) == ["before", "retry"]


# ---- a lost reply: the commit is there, the writer never hears of it ----


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Lets the next commit of a table succeed and its reply be lost."""

    def lose(table: str) -> None:
        failpoint._passed.clear()
        monkeypatch.setenv(failpoint.PLACE, f"{table}.after_commit:error")

    yield lose
    failpoint._passed.clear()


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_lost_reply_doubles_nothing(
    spark: SparkSession, rows: Rows, table: Table, lost: Callable[[str], None], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The attempt fails as at a lost reply; the next one writes the same rows in place of the first's."""
    store = Store(spark, str(tmp_path), run_id="same")
    lost(table.name)
    with pytest.raises(OSError, match=f"a test's failure at {table.name}.after_commit"):
        write(store, table, MONDAY, rows)
    monkeypatch.delenv(failpoint.PLACE)
    store.close()
    again = Store(spark, str(tmp_path), run_id="same")
    if table is not ITEM_EMBEDDINGS:  # whose stage leaves out what is there: see the next test
        write(again, table, MONDAY, rows)
    again.close()
    assert arrow(str(tmp_path), table).num_rows == 1
