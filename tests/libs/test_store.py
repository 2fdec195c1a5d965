"""The only door to Delta: what it replaces, what it refuses, and who may write."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError
from pyspark.sql import DataFrame, SparkSession

from nightrec import store as store_module
from nightrec.contract import Table
from nightrec.errors import ContractError, Fenced, UsageError
from nightrec.past.replay import lay_out
from nightrec.pipeline import NIGHT
from nightrec.store import Store, arrow, content, exists, is_whole, location, partitions, predicate, version
from nightrec.tables import CLEAN_EVENTS, ITEM_EMBEDDINGS, LEDGER, PUBLISHED_TOPK, SHORTFALLS, TABLES

Rows = Callable[[Table, list[dict[str, Any]]], DataFrame]
MONDAY, TUESDAY = dt.date(2026, 3, 9), dt.date(2026, 3, 10)


@pytest.fixture
def first(spark: SparkSession, tmp_path: Path) -> Iterator[Store]:
    opened = Store(spark, str(tmp_path / "warehouse"), run_id="first")
    yield opened
    opened.close()


def short(day: dt.date, key: str, found: int = 1) -> dict[str, Any]:
    return {"run_date": day, "list_kind": "user", "list_key": key, "wanted": 10, "found": found, "cause": "all seen"}


def keys(store: Store, table: Table = SHORTFALLS) -> list[tuple[dt.date, str]]:
    rows = arrow(store.warehouse, table, columns=["run_date", "list_key"]).to_pylist()
    return sorted((row["run_date"], row["list_key"]) for row in rows)


def served(key: str, list_id: str) -> dict[str, Any]:
    items = [{"rank": 1, "item_id": "a", "score": 0.5, "source": "als", "reason": "because"}]
    return {"list_kind": "user", "list_key": key, "list_id": list_id, "items": items, "changed_date": MONDAY}


def test_replace_touches_only_the_partition_it_names(first: Store, rows: Rows) -> None:
    both = rows(SHORTFALLS, [short(MONDAY, "a"), short(TUESDAY, "a"), short(TUESDAY, "b")])
    commit = first.replace(SHORTFALLS, both, {"run_date": [MONDAY, TUESDAY]})
    assert (commit.rows, commit.version) == (3, version(first.warehouse, SHORTFALLS))
    first.replace(SHORTFALLS, rows(SHORTFALLS, [short(TUESDAY, "c")]), {"run_date": TUESDAY})
    assert keys(first) == [(MONDAY, "a"), (TUESDAY, "c")]
    # the same again is the same content
    first.replace(SHORTFALLS, rows(SHORTFALLS, [short(TUESDAY, "c")]), {"run_date": TUESDAY})
    assert keys(first) == [(MONDAY, "a"), (TUESDAY, "c")]
    assert first.rows(SHORTFALLS, {"run_date": TUESDAY}) == 1
    before = content(first.warehouse, SHORTFALLS, {"run_date": MONDAY})
    # an empty frame empties it, once more on what is empty already
    for _ in range(2):
        assert first.replace(SHORTFALLS, rows(SHORTFALLS, []), {"run_date": TUESDAY}).rows == 0
    assert keys(first) == [(MONDAY, "a")]
    assert [found["run_date"] for found in partitions(first.warehouse, SHORTFALLS)] == ["2026-03-09"]
    assert content(first.warehouse, SHORTFALLS, {"run_date": MONDAY}) == before
    assert first.read(SHORTFALLS, {"run_date": MONDAY}).count() == 1
    assert first.read(SHORTFALLS, version=commit.version).count() == 3


def test_a_table_that_is_cleared_takes_no_room_and_goes_on(first: Store, rows: Rows) -> None:
    first.clear(SHORTFALLS)  # never written
    for key in "abc":
        first.replace(SHORTFALLS, rows(SHORTFALLS, [short(MONDAY, key)]), {"run_date": MONDAY})
    folder = Path(location(first.warehouse, SHORTFALLS))
    assert len(list(folder.rglob("*.parquet"))) >= 3
    first.clear(SHORTFALLS)
    assert keys(first) == [] == [file for file in folder.rglob("*.parquet") if "_delta_log" not in file.parts]
    assert first.read(SHORTFALLS).count() == 0
    # Both who write find it empty: Spark, and deltalake.
    first.replace(SHORTFALLS, rows(SHORTFALLS, [short(TUESDAY, "d")]), {"run_date": TUESDAY})
    first.put(SHORTFALLS, [short(MONDAY, "e")], {"run_date": MONDAY})
    assert keys(first) == [(MONDAY, "e"), (TUESDAY, "d")]


def test_what_replace_refuses(first: Store, rows: Rows) -> None:
    first.replace(SHORTFALLS, rows(SHORTFALLS, [short(MONDAY, "a")]), {"run_date": MONDAY})
    frame = rows(SHORTFALLS, [short(MONDAY, "b"), short(TUESDAY, "b")])
    with pytest.raises(ContractError, match=r"shortfalls \(writing\)"):
        first.replace(SHORTFALLS, frame, {"run_date": MONDAY})
    # found must be below wanted: a CHECK
    with pytest.raises(ContractError, match="found"):
        first.replace(SHORTFALLS, rows(SHORTFALLS, [short(MONDAY, "b", found=10)]), {"run_date": MONDAY})
    nothing = frame.selectExpr("run_date", "list_kind", "nullif(list_key, 'b') AS list_key", "wanted", "found", "cause")
    with pytest.raises(ContractError, match="list_key"):
        first.replace(SHORTFALLS, nothing.where("run_date = '2026-03-09'"), {"run_date": MONDAY})
    with pytest.raises(ContractError, match=r"names \['list_kind'\], its partition is \['run_date'\]"):
        first.replace(SHORTFALLS, frame, {"list_kind": "user"})
    with pytest.raises(ContractError, match="missing column cause string"):
        first.replace(SHORTFALLS, frame.drop("cause"), {"run_date": MONDAY})
    assert keys(first) == [(MONDAY, "a")]


def test_put_replaces_its_partition_without_a_spark_job(first: Store) -> None:
    line = {"run_date": MONDAY, "stage": "audit", "fate": "read", "reason": "", "row_count": 1, "run_id": "first"}
    first.put(LEDGER, [line, line | {"stage": "export"}], {"run_date": MONDAY, "stage": ["audit", "export"]})
    first.put(LEDGER, [line | {"row_count": 2}], {"run_date": MONDAY, "stage": "audit"})
    found = {row["stage"]: row["row_count"] for row in arrow(first.warehouse, LEDGER).to_pylist()}
    assert found == {"audit": 2, "export": 1}
    with pytest.raises(ContractError, match="unexpected column colour"):
        first.put(LEDGER, [line | {"colour": "red"}], {"run_date": MONDAY, "stage": "audit"})
    with pytest.raises(ContractError, match=r"ledger \(writing\)"):
        first.put(LEDGER, [line | {"row_count": -1}], {"run_date": MONDAY, "stage": "audit"})
    with pytest.raises(ContractError, match=r"ledger \(writing\)"):
        first.put(LEDGER, [line | {"run_id": None}], {"run_date": MONDAY, "stage": "audit"})
    with pytest.raises(ContractError, match=r"ledger \(writing\)"):
        first.put(LEDGER, [line | {"stage": "export"}], {"run_date": MONDAY, "stage": "audit"})
    assert {row["stage"]: row["row_count"] for row in arrow(first.warehouse, LEDGER).to_pylist()} == found


def test_merge_commits_only_what_differs_and_the_feed_says_what(first: Store, rows: Rows) -> None:
    old = [served("same", "1"), served("moved", "1"), served("gone", "1")]
    made = first.merge(PUBLISHED_TOPK, rows(PUBLISHED_TOPK, old), "list_id")
    assert (made.rows, made.metrics["inserted"]) == (3, 3)
    # the fingerprint of `same` is the same: its other columns are not looked at
    new = [served("same", "1") | {"changed_date": TUESDAY}, served("moved", "2"), served("new", "1")]
    commit = first.merge(PUBLISHED_TOPK, rows(PUBLISHED_TOPK, new), "list_id")
    assert dict(commit.metrics) == {"inserted": 1, "deleted": 1, "updated": 1, "unchanged": 1}
    assert (commit.rows, commit.version) == (3, made.version + 1)
    table = arrow(first.warehouse, PUBLISHED_TOPK).to_pylist()
    assert {(row["list_key"], row["list_id"]) for row in table} == {("same", "1"), ("moved", "2"), ("new", "1")}
    assert next(row for row in table if row["list_key"] == "same")["changed_date"] == MONDAY
    feed = first.changes(PUBLISHED_TOPK, made.version).select("list_key", "list_id", "_change_type").collect()
    assert {tuple(row) for row in feed} == {
        ("moved", "1", "update_preimage"),
        ("moved", "2", "update_postimage"),
        ("gone", "1", "delete"),
        ("new", "1", "insert"),
    }
    again = first.merge(PUBLISHED_TOPK, rows(PUBLISHED_TOPK, new), "list_id")
    assert (again.version, again.rows, again.metrics["unchanged"]) == (commit.version, 0, 3)
    with pytest.raises(ContractError, match="keeps no change feed"):
        first.changes(SHORTFALLS, 0)


@pytest.fixture
def crowded_at_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MANY_FILES", 3)


def files_of(store: Store, table: Table) -> list[str]:
    return sorted(Path(uri).parent.name for uri in DeltaTable(location(store.warehouse, table)).file_uris())


@pytest.mark.usefixtures("crowded_at_three")
def test_many_appends_end_up_in_one_file(first: Store, rows: Rows) -> None:
    texts = [{"encoder": encoder, "text_hash": f"{n}", "vector": [float(n)]} for n in range(3) for encoder in "ab"]
    # of encoder b all but the last: its partition is left alone
    versions = [first.append(ITEM_EMBEDDINGS, rows(ITEM_EMBEDDINGS, [text])).version for text in texts[:-1]]
    assert sorted(arrow(first.warehouse, ITEM_EMBEDDINGS).to_pylist(), key=str) == sorted(texts[:-1], key=str)
    assert files_of(first, ITEM_EMBEDDINGS) == ["encoder=a", "encoder=b", "encoder=b"]
    # a commit of its own, of this run; earlier versions are read as ever
    last = DeltaTable(location(first.warehouse, ITEM_EMBEDDINGS)).history(1)[0]
    assert (last["operation"], json.loads(last["userMetadata"])["run_id"]) == ("OPTIMIZE", "first")
    assert first.version(ITEM_EMBEDDINGS) == versions[-1] + 1
    assert [first.read(ITEM_EMBEDDINGS, version=version).count() for version in versions[-2:]] == [4, 5]
    # and the run goes on
    first.append(ITEM_EMBEDDINGS, rows(ITEM_EMBEDDINGS, texts[-1:]))
    assert files_of(first, ITEM_EMBEDDINGS) == ["encoder=a", "encoder=b"]


@pytest.mark.usefixtures("crowded_at_three")
def test_a_compaction_is_no_change_in_the_feed(first: Store, rows: Rows) -> None:
    made = [first.append(PUBLISHED_TOPK, rows(PUBLISHED_TOPK, [served(key, "1")])).version for key in "abc"]
    assert files_of(first, PUBLISHED_TOPK) == ["published_topk"]
    assert first.version(PUBLISHED_TOPK) == made[-1] + 1
    feed = first.changes(PUBLISHED_TOPK, made[0]).select("list_key", "_change_type", "_commit_version").collect()
    assert sorted(tuple(row) for row in feed) == [("b", "insert", made[1]), ("c", "insert", made[2])]
    lists = [served("a", "1"), served("c", "2")]
    assert dict(first.merge(PUBLISHED_TOPK, rows(PUBLISHED_TOPK, lists), "list_id").metrics) == {
        "inserted": 0, "deleted": 1, "updated": 1, "unchanged": 1,
    }  # fmt: skip


@pytest.mark.usefixtures("crowded_at_three")
def test_the_books_of_many_nights_lie_in_few_files(first: Store) -> None:
    for n in range(7):
        line = {"stage": "audit", "fate": "read", "reason": "", "row_count": n, "run_id": "first"}
        day = MONDAY + dt.timedelta(days=n)
        first.put(LEDGER, [line | {"run_date": day}], {"run_date": [day], "stage": "audit"})
        assert len(files_of(first, LEDGER)) < 3
    first.put(LEDGER, [line | {"run_date": MONDAY, "row_count": 9}], {"run_date": MONDAY, "stage": "audit"})
    assert sorted(row["row_count"] for row in arrow(first.warehouse, LEDGER).to_pylist()) == [1, 2, 3, 4, 5, 6, 9]


def test_every_tenth_commit_is_a_checkpoint_whoever_made_it(first: Store, rows: Rows, spark: SparkSession) -> None:
    """The first commit creates a table, so the tenth write is its version 10; the ledger's books lie a stage apart."""
    days = [MONDAY + dt.timedelta(days=n) for n in range(11)]
    for n, day in enumerate(days):
        first.replace(SHORTFALLS, rows(SHORTFALLS, [short(day, "a")]), {"run_date": day})
        books = {"run_date": day, "stage": "audit", "fate": "read", "reason": "", "row_count": n, "run_id": "first"}
        first.put(LEDGER, [books], {"run_date": day, "stage": "audit"})
    for table in (SHORTFALLS, LEDGER):
        log = Path(location(first.warehouse, table), "_delta_log")
        assert [file.name for file in log.glob("*.checkpoint.parquet")] == [f"{10:020}.checkpoint.parquet"]
    # Both readers begin at it: the commits before it are gone, and nothing is missing.
    for file in Path(location(first.warehouse, SHORTFALLS), "_delta_log").glob("*.json"):
        if int(file.stem) < 10:
            file.unlink()
    assert keys(first) == [(day, "a") for day in days]
    copy = f"{first.warehouse}/copy"  # no session has opened it before
    shutil.copytree(location(first.warehouse, SHORTFALLS), copy)
    assert spark.read.format("delta").load(copy).count() == len(days)


def test_a_version_whose_log_is_gone_does_not_keep_others_from_being_vacuumed(first: Store) -> None:
    log = Path(location(first.warehouse, SHORTFALLS), "_delta_log")
    for n in range(22):  # the twentieth commit drops what is older than the log need be, up to the tenth's checkpoint
        first.put(SHORTFALLS, [short(MONDAY, f"{n}")], {"run_date": MONDAY})
        for file in log.iterdir() if n < 15 else ():
            os.utime(file, (0, 0))
    assert not (log / f"{1:020}.json").exists()
    now = first.version(SHORTFALLS)
    with pytest.raises(UsageError, match="2026-03-10 is not kept any more: log or files of shortfalls"):
        lay_out(first.warehouse, f"{first.warehouse}/apart", TUESDAY, named(SHORTFALLS, 1), set(), None)
    assert first.vacuum(SHORTFALLS, [1, now - 1, now]) == 20
    assert is_whole(first.warehouse, SHORTFALLS, now - 1) and keys(first) == [(MONDAY, "21")]


def test_a_version_that_cannot_be_read_for_now_loses_no_file(first: Store) -> None:
    """A storage that fails is no log that is gone: nothing is removed, and the fault is told."""
    for n in range(4):
        first.put(SHORTFALLS, [short(MONDAY, f"u{n}")], {"run_date": MONDAY})
    now = first.version(SHORTFALLS)
    before = files_of(first, SHORTFALLS)
    DeltaTable(location(first.warehouse, SHORTFALLS)).create_checkpoint()  # the latest version opens without the older
    commit = Path(location(first.warehouse, SHORTFALLS), f"_delta_log/{now - 2:020d}.json")
    whole = commit.read_bytes()
    commit.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DeltaError):
        first.vacuum(SHORTFALLS, [now - 2, now])
    commit.write_bytes(whole)
    assert files_of(first, SHORTFALLS) == before
    assert first.vacuum(SHORTFALLS, [now - 2, now]) == 2


def named(table: Table, version: int) -> dict[str, dict[str, Any]]:
    """Manifests of a night's stages that read a table at a version."""
    read = {"name": table.name, "version": version}
    return {stage.name: {"inputs": [read], "outputs": []} for stage in NIGHT}


def test_an_older_attempt_is_refused_after_a_newer_ones_commit(first: Store, rows: Rows, spark: SparkSession) -> None:
    first.put(SHORTFALLS, [short(MONDAY, "before")], {"run_date": MONDAY})
    # the lock is lost: as on a cluster's shared storage, where the kernel cannot help
    first.close()
    newer = Store(spark, first.warehouse, run_id="newer")
    newer.put(SHORTFALLS, [short(MONDAY, "newer")], {"run_date": MONDAY})
    frame = rows(SHORTFALLS, [short(MONDAY, "older")])
    with pytest.raises(Fenced, match="another attempt has committed since run first began"):
        first.replace(SHORTFALLS, frame, {"run_date": MONDAY})
    with pytest.raises(Fenced):
        first.put(SHORTFALLS, [short(MONDAY, "older")], {"run_date": MONDAY})
    # the newer attempt commits between the older one's check and its write: Delta skips the used token without a word
    first._recorded = lambda *_: 0  # type: ignore[method-assign]
    with pytest.raises(Fenced, match="another attempt committed"):
        first.replace(SHORTFALLS, frame, {"run_date": MONDAY})
    assert keys(first) == [(MONDAY, "newer")]
    last = DeltaTable(location(newer.warehouse, SHORTFALLS)).history(1)[0]
    assert json.loads(last["userMetadata"]) == {"run_id": "newer", "stage": "ranked_topk"}
    newer.close()


def test_one_process_per_warehouse_until_the_kernel_frees_it(tmp_path: Path) -> None:
    warehouse = str(tmp_path / "warehouse")
    # the object must live on: a Store that is collected lets go
    hold = (
        "import sys, time; from nightrec.store import Store; held = Store(None, sys.argv[1], 'x')\n"
        "print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", hold, warehouse], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "held\n"
            with pytest.raises(Fenced, match=f"process {holder.pid} is writing to"):
                Store(None, warehouse, "y")  # type: ignore[arg-type]
        finally:
            holder.send_signal(signal.SIGKILL)
    Store(None, warehouse, "y").close()  # type: ignore[arg-type]


def test_every_table_can_be_read_by_every_reader_and_keeps_ids_out_of_its_log(first: Store, rows: Rows) -> None:
    for table in TABLES:
        assert first.read(table).columns == table.names
        made = DeltaTable(location(first.warehouse, table))
        settings = made.metadata().configuration
        assert settings["delta.enableDeletionVectors"] == "false"
        assert settings.get("delta.columnMapping.mode", "none") == "none"
        assert (settings.get("delta.enableChangeDataFeed") == "true") == table.change_feed
        features = set(made.protocol().writer_features or []) | set(made.protocol().reader_features or [])
        assert not features & {"deletionVectors", "columnMapping", "v2Checkpoint", "typeWidening", "variantType"}
        checks = {f"delta.constraints.{column.name}" for column in table.columns if column.check}
        assert checks == {name for name in settings if name.startswith("delta.constraints.")}
    event = {"ingest_date": MONDAY, "user_id": "secret-person", "item_id": "i", "event_type": "view", "event_key": "k"}
    first.replace(CLEAN_EVENTS, rows(CLEAN_EVENTS, [event]), {"ingest_date": MONDAY})
    first.put(SHORTFALLS, [short(MONDAY, "secret-person")], {"run_date": MONDAY})
    for table in (CLEAN_EVENTS, SHORTFALLS):
        log = "".join(file.read_text() for file in Path(location(first.warehouse, table), "_delta_log").glob("*.json"))
        assert "numRecords" in log and "secret-person" not in log


def test_a_table_never_written_is_empty(first: Store) -> None:
    assert not exists(first.warehouse, SHORTFALLS) and version(first.warehouse, SHORTFALLS) == -1
    assert arrow(first.warehouse, SHORTFALLS, {"run_date": MONDAY}).num_rows == 0
    assert partitions(first.warehouse, SHORTFALLS) == [] and first.rows(SHORTFALLS) == 0
    assert content(first.warehouse, SHORTFALLS, {"run_date": MONDAY}) == ""


def test_an_id_cannot_end_a_literal() -> None:
    assert predicate({"a": "o'neil \\", "d": [MONDAY]}) == "a IN ('o\\'neil \\\\') AND d IN (DATE '2026-03-09')"


def test_hostile_ids_select_their_own_rows(first: Store, rows: Rows) -> None:
    # ids as partition-like filters and in a second partition column
    line = {"run_date": MONDAY, "fate": "read", "reason": "", "row_count": 1, "run_id": "first"}
    hostile = ["o'neil \\", "x') OR ('1' = '1", "a/b%20=c d"]
    for stage in hostile:
        first.put(LEDGER, [line | {"stage": stage}], {"run_date": MONDAY, "stage": stage})
    assert sorted(row["stage"] for row in arrow(first.warehouse, LEDGER).to_pylist()) == sorted(hostile)
    for stage in hostile:
        assert [row["stage"] for row in first.read(LEDGER, {"stage": stage}).collect()] == [stage]
    with pytest.raises(ContractError, match="'ключ' names a partition and is not ASCII"):
        first.put(LEDGER, [line | {"stage": "ключ"}], {"run_date": MONDAY, "stage": "ключ"})


def test_a_warehouse_of_another_version_is_refused_in_a_sentence(spark: SparkSession, tmp_path: Path) -> None:
    folder = str(tmp_path / "warehouse")
    without = [column for column in SHORTFALLS.columns if column.name != "cause"]
    DeltaTable.create(
        location(folder, SHORTFALLS),
        Schema.from_json(dataclasses.replace(SHORTFALLS, columns=tuple(without)).schema().json()),
        partition_by=list(SHORTFALLS.partition),
    )
    # Twice: the first has let go of the lock.
    for _ in range(2):
        with pytest.raises(UsageError, match=r"another version of nightrec: its shortfalls .* \(cause\); use that"):
            Store(spark, folder, run_id="new")
