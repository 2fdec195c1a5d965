"""What a killed writer leaves is removed by whoever opens the warehouse next, and nothing else is."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from nightrec.errors import NightrecError, storage_failed
from nightrec.past.leftovers import sweep
from nightrec.store import Store, arrow
from nightrec.tables import LEDGER

MONDAY = dt.date(2026, 3, 9)


def put(store: Store, count: int, stage: str = "audit") -> None:
    row = {"run_date": MONDAY, "stage": stage, "fate": "read", "reason": "", "row_count": count, "run_id": store.run_id}
    store.put(LEDGER, [row], {"run_date": MONDAY, "stage": stage})


@pytest.fixture
def store(spark: SparkSession, tmp_path: Path) -> Store:
    opened = Store(spark, str(tmp_path), "first")
    for count in range(12):  # past a checkpoint; eleven files are of earlier versions
        put(opened, count)
    put(opened, 1, stage="a/b%20=c d")  # in a folder whose name is quoted in the log
    return opened


def left_behind(table: Path) -> list[Path]:
    """One of each: data of a commit that never came, Hadoop's sum of it, half a log entry by either writer."""
    log = table / "_delta_log"
    files = [
        table / "stage=audit/part-9-died.parquet", table / "stage=audit/.part-9-died.parquet.crc",
        table / "stage=never/part-0.parquet", log / f".{99:020}.json.1f.tmp", log / "_commit_0aa.json.tmp",
    ]  # fmt: skip
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"half")
    return files


def test_only_what_no_version_names_is_swept(store: Store, tmp_path: Path) -> None:
    table = tmp_path / LEDGER.name
    before = {file for file in table.rglob("*") if file.is_file()}
    data = next(file for file in before if file.suffix == ".parquet" and file.parent.name == "stage=audit")
    whole = data.with_name(f".{data.name}.crc")
    whole.write_bytes(b"a sum of a file that is there")
    files = left_behind(table)
    assert sweep(table) == len(files)
    assert {file for file in table.rglob("*") if file.is_file()} == before | {whole}
    assert not (table / "stage=never").exists()
    assert sweep(table) == 0 and sweep(tmp_path / "no table") == 0
    assert arrow(str(tmp_path), LEDGER, {"stage": "audit"}).num_rows == 1


def test_whoever_comes_after_a_killed_writer_sweeps_and_after_a_closed_one_does_not(
    store: Store, tmp_path: Path
) -> None:
    files = left_behind(tmp_path / LEDGER.name)
    assert store._lock is not None
    store._lock.close()  # as the kernel does it for a process that was killed: its id stays in the file
    Store(None, str(tmp_path), "second").close()  # type: ignore[arg-type]
    assert not any(file.exists() for file in files)
    # A writer that ended by itself has left nothing: opening costs no look at every file.
    files = left_behind(tmp_path / LEDGER.name)
    Store(None, str(tmp_path), "third").close()  # type: ignore[arg-type]
    assert all(file.exists() for file in files)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "No space left on device", "/a"), "failed (/a): [Errno 28] No space left on device"),
        (Exception("o12.save\n: java.io.IOException: No space left on device\n\tat x"), "No space left"),
        (OSError(30, "Read-only file system"), "make it writable, then run this night again"),
        (OSError("Generic error: File too large (os error 27)"), "raise the limit on the size of files"),
        (ValueError("No space for a joke"), None),
    ],
)
def test_the_storages_failures_are_one_sentence_each(error: Exception, words: str | None) -> None:
    told = storage_failed(error)
    if words is None:
        assert told is None
        return
    assert isinstance(told, NightrecError) and told.exit_code == 1
    assert words in str(told) and "\n" not in str(told)
    try:
        raise RuntimeError("the stage failed") from error
    except RuntimeError as outer:
        assert str(storage_failed(outer)) == str(told)


def test_nothing_is_swept_on_an_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    from nightrec import store as module

    def refuse(*_: Any) -> int:
        raise AssertionError("swept")

    monkeypatch.setattr(module, "sweep", refuse)
    assert module.locked("s3://bucket/warehouse") is None
