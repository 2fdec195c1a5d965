"""The raw door: folders, the three formats, snapshots, and files that cannot be read."""

from __future__ import annotations

import datetime as dt
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from nightrec import raw, raw_files
from nightrec.errors import BadInput

DAY = dt.date(2026, 3, 10)
FOLDER = "events/ingest_date=2026-03-10"


def test_folders_that_count(tmp_path: Path) -> None:
    for name in ("ingest_date=2026-03-10", "ingest_date=2026-03-09", ".ingest_date=2026-03-08", "_old", "readme"):
        (tmp_path / "events" / name).mkdir(parents=True)
    (tmp_path / "events" / "ingest_date=2026-03-07").touch()  # a file is no folder
    assert raw.ingest_dates(str(tmp_path), "events") == [dt.date(2026, 3, 9), DAY]
    assert raw.ingest_dates(str(tmp_path), "items") == []


def test_folders_that_stop_the_night(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"raw root .*nowhere does not exist; paths\.raw in the config names it"):
        raw.ingest_dates(str(tmp_path / "nowhere"), "users")
    with pytest.raises(BadInput, match=r"has no folder events; expected .*/events/ingest_date=YYYY-MM-DD"):
        raw.ingest_dates(str(tmp_path), "events")
    (tmp_path / "events" / "ingest_date=2026-02-30").mkdir(parents=True)
    with pytest.raises(BadInput, match=r"ingest_date=2026-02-30: 2026-02-30 is not a day of the calendar"):
        raw.ingest_dates(str(tmp_path), "events")


def test_files_of_unknown_kind_stop_the_night(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / FOLDER / "part-0.avro").touch()
    with pytest.raises(BadInput, match=r"ingest_date=2026-03-10/part-0\.avro: unknown kind of file; known are \.jsonl"):
        raw.events(None, str(tmp_path), [DAY])  # type: ignore[arg-type]


def test_a_root_with_a_scheme_goes_through_hadoop(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / FOLDER / "part-0.jsonl").write_text('{"user_id": "u"}\n')
    root = f"file://{tmp_path}"
    assert raw.ingest_dates(root, "events") == [DAY]
    assert raw.events(spark, root, [DAY]).select("user_id").toArrow().to_pylist() == [{"user_id": "u"}]
    with pytest.raises(BadInput, match="does not exist"):
        raw.ingest_dates(root + "/nowhere", "events")


def test_parquet_and_csv_are_read_as_json_is(spark: SparkSession, tmp_path: Path) -> None:
    rows = [
        # 64 bits; a text with all that CSV must quote; a map
        {"user_id": 9007199254740993, "item_id": "字", "event_type": "comment", "event_ts": 1773136800000,
         "text": 'says "a, b"\nand c', "context": {"rank": "3"}},
        # nothing but what is required; the rest is missing
        {"user_id": 2, "item_id": "b", "event_type": "view", "event_ts": 1773136800001, "text": None, "context": None},
    ]
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / FOLDER / "a b+c[1].jsonl.gz").write_bytes(gzip.compress("\r\n".join(map(json.dumps, rows)).encode()))
    types = pa.schema({
        "user_id": pa.int64(), "item_id": pa.string(), "event_type": pa.string(), "event_ts": pa.timestamp("ms", "UTC"),
        "text": pa.string(), "context": pa.map_(pa.string(), pa.string()),
    })
    pq.write_table(pa.Table.from_pylist(rows, schema=types), tmp_path / FOLDER / "part.parquet")
    quoted = '"says ""a, b""\nand c","{""rank"": 3}"'
    (tmp_path / FOLDER / "part.csv").write_text(
        f"user_id,item_id,event_type,event_ts,text,context\n9007199254740993,字,comment,1773136800000,{quoted}\n"
        "2,b,view,1773136800001,,\n"
        "3,c,view\n"  # too short
        "4,c,view,1773136800001,,{broken\n"  # a context that is none
    )
    # The same columns in another order and of other types.
    (tmp_path / FOLDER / "other.csv").write_text("item_id,event_ts,event_type,user_id\nb,1773136800001,view,2\n")
    other = {"item_id": ["b"], "event_ts": [1773136800001], "event_type": ["view"], "user_id": ["2"]}
    pq.write_table(pa.table(other), tmp_path / FOLDER / "other.parquet")
    frame = raw.events(spark, str(tmp_path), [DAY])
    found = frame.withColumn("time", raw_files.timestamp(frame["event_ts"])).toArrow().to_pylist()
    names = ["ingest_date", "user_id", "item_id", "event_type", "time", "text", "context", "value", "_corrupt"]
    by_file = {
        file: sorted([str(row[n]) for n in names] for row in found if (row["file"], row["_corrupt"]) == (file, None))
        for file in {row["file"] for row in found}
    }
    assert set(by_file) == {"a b+c[1].jsonl.gz", "part.parquet", "part.csv", "other.csv", "other.parquet"}
    assert by_file["other.csv"] == by_file["other.parquet"]
    assert by_file["other.csv"][0][1:3] == ["2", "b"]
    assert len(by_file["part.csv"]) == 2
    assert by_file["part.csv"] == by_file["part.parquet"] == by_file["a b+c[1].jsonl.gz"]
    assert by_file["part.csv"][1][1:3] == ["9007199254740993", "字"]
    broken = sorted(row["raw"] for row in found if row["_corrupt"] is not None)
    assert [line[:3] for line in broken] == ["3,c", '{"u'] and "{broken" in broken[1]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut off.jsonl.gz", gzip.compress(b'{"user_id": "u"}\n' * 50_000, mtime=0)[:150]),
        ("no+gzip.jsonl.gz", b"not compressed at all"),
        ("part-0.parquet", b"PAR1 and no more"),
        ("part-0.csv.gz", b"item_id,user_id\ni,u\n"),  # no gzip
        ("part-0.csv.gz", gzip.compress(b"item_id,user_id\n" * 99, mtime=0)[:10] + b"\xff" * 20),  # no deflated block
    ],
)
def test_an_unreadable_file_is_named(spark: SparkSession, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / FOLDER / name).write_bytes(content)
    with pytest.raises(BadInput) as refused, raw.readable():
        raw.events(spark, str(tmp_path), [DAY]).toArrow()
    assert str(refused.value).startswith(f"{tmp_path}/{FOLDER}/{name} cannot be read: ")
    assert "\n" not in str(refused.value)


def test_times_that_spark_cannot_read_are_named(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir(parents=True)
    times = pa.table({"event_ts": pa.array([dt.datetime(2026, 3, 10)], pa.timestamp("ns", "UTC"))})
    pq.write_table(times, tmp_path / FOLDER / "part-0.parquet")
    with pytest.raises(BadInput, match=r"part-0\.parquet: Illegal Parquet type: .*NANOS.* write the file so"):
        raw.events(spark, str(tmp_path), [DAY])


@pytest.mark.parametrize(
    ("name", "column", "said"),
    [
        ("USER_ID", pa.array(["u"]), r"part-0\.parquet: The column `user_id` already .* differ in letter case only"),
        ("extra", pa.array([1], pa.time32("ms")), r"part-0\.parquet: .*TIME\(MILLIS.*Write that column as text"),
        ("extra", pa.array([1.5], pa.float16()), r"part-0\.parquet: .*FLOAT16"),
    ],
)
def test_columns_that_spark_does_not_know_are_named(
    spark: SparkSession, tmp_path: Path, name: str, column: pa.Array, said: str
) -> None:
    (tmp_path / FOLDER).mkdir(parents=True)
    pq.write_table(pa.table({"user_id": ["u"], name: column}), tmp_path / FOLDER / "part-0.parquet")
    with pytest.raises(BadInput, match=said):
        raw.events(spark, str(tmp_path), [DAY])


def test_other_failures_pass_through_readable() -> None:
    with pytest.raises(ZeroDivisionError), raw.readable():
        _ = 1 / 0


def test_no_files_are_no_lines(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir(parents=True)
    (tmp_path / FOLDER / "_SUCCESS").touch()
    frame = raw.events(spark, str(tmp_path), [DAY, dt.date(2026, 3, 11)])
    assert frame.columns == ["ingest_date", "file", "raw", *raw.EVENT_FIELDS, "context", "_corrupt"]
    assert frame.toArrow().num_rows == 0


def test_the_latest_snapshot_not_after_the_night(spark: SparkSession, tmp_path: Path) -> None:
    def snapshot(kind: str, day: str, *lines: str) -> None:
        folder = tmp_path / kind / f"ingest_date={day}"
        folder.mkdir(parents=True)
        if lines:
            (folder / "part-0.jsonl").write_text("\n".join(lines))

    snapshot("items", "2026-03-01", '{"item_id": "old", "title": "gone"}')
    snapshot(
        "items", "2026-03-05",
        # everything, a list as text, times in both ways
        '{"item_id": 7, "title": "t", "description": "d", "categories": ["a", "b|c"], "tags": "x|y", '
        '"attributes": {"year": 1999}, '
        '"available_from": "2026-01-01T00:00:00+01:00", "available_until": 1773136800000}',
        '{"item_id": "twice", "title": "A"}', '{"item_id": "twice", "title": "B"}',  # the larger by content is kept
        '{"item_id": " ", "title": "no id"}', '{"title": "no id"}', '{"item_id": "broken',
    )
    snapshot("items", "2026-03-08")  # no files: a delivery that has not come
    snapshot("items", "2026-03-11", '{"item_id": "tomorrow", "title": "leak"}')
    assert raw.items(spark, str(tmp_path), dt.date(2026, 2, 28)) is None
    assert raw.users(spark, str(tmp_path), DAY) is None
    snapshot_found = raw.items(spark, str(tmp_path), DAY)
    assert snapshot_found is not None
    items = snapshot_found.rows
    assert [field.dataType.simpleString() for field in items.schema] == [
        "string", "string", "string", "array<string>", "array<string>", "map<string,string>", "timestamp", "timestamp",
    ]
    found = {row["item_id"]: row for row in items.toArrow().to_pylist()}
    assert set(found) == {"7", "twice"}
    assert found["7"] == {
        "item_id": "7", "title": "t", "description": "d", "categories": ["a", "b|c"], "tags": ["x", "y"],
        "attributes": [("year", "1999")], "available_from": dt.datetime(2025, 12, 31, 23, tzinfo=dt.UTC),
        "available_until": dt.datetime(2026, 3, 10, 10, tzinfo=dt.UTC),
    }
    assert snapshot_found.rejected() == {"broken_line": 1, "missing_item_id": 2}
    assert found["twice"] == dict.fromkeys(items.columns) | {"item_id": "twice", "title": "B"}

    # Parquet lists and maps, and a column left out
    folder = tmp_path / "users" / "ingest_date=2026-03-10"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({"user_id": [1], "blocked_items": [["a", "b"]]}), folder / "part-0.parquet")
    users = raw.users(spark, str(tmp_path), DAY)
    assert users is not None
    assert users.rows.toArrow().to_pylist() == [{"user_id": "1", "attributes": None, "blocked_items": ["a", "b"]}]
    assert users.rejected() == {}
