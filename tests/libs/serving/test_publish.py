"""Publishing, its change feed, and what is exported of it: one story told over a real table."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from test_topk import fingerprint

from nightrec.errors import UsageError
from nightrec.past.undo import is_quiet
from nightrec.serving.export import changes, everything, export, exported_version, nothing_new, prepared
from nightrec.serving.publish import published_topk
from nightrec.store import arrow
from nightrec.tables import PUBLISHED_TOPK, RANKED_TOPK

FIRST, SECOND = dt.date(2026, 3, 9), dt.date(2026, 3, 10)
BEFORE = {"u": "ab", "v": "bc", "w": "cd"}


def ranked(rows: Any, night: dt.date, lists: dict[str, str], score: float = 0.5) -> Any:
    return rows(
        RANKED_TOPK,
        [
            {
                "run_date": night,
                "list_kind": "user",
                "list_key": key,
                "list_id": fingerprint("user", key, *items),
                "rank": n,
                "item_id": item,
                "score": score / n,
                "source": "als",
                "reason": "because",
            }
            for key, items in lists.items()
            for n, item in reversed([*enumerate(items, 1)])  # rows come in any order
        ],
    )


def published(store: Any) -> dict[str, tuple[str, dt.date]]:
    rows = arrow(store.warehouse, PUBLISHED_TOPK).to_pylist()
    return {row["list_key"]: ("".join(item["item_id"] for item in row["items"]), row["changed_date"]) for row in rows}


def publish(store: Any, frame: Any, night: dt.date, als: str = "als") -> Any:
    said = {"night": f"{night}", "als_model": als, "ranker_model": "ranker"}
    return store.merge(PUBLISHED_TOPK, published_topk(frame, night), "list_id", said)


def exported(store: Any, folder: Path) -> dict[str, int] | None:
    """What the export job does."""
    latest, where = store.version(PUBLISHED_TOPK), prepared(store.spark, str(folder))
    since = exported_version(store.spark, where)
    if nothing_new(latest, since, where) or (since and is_quiet(store.warehouse, since)):
        return None
    if since:
        frame = changes(store.changes(PUBLISHED_TOPK, since), latest)
    else:
        frame = everything(store.read(PUBLISHED_TOPK, version=latest))
    return export(frame, where, since + 1, latest, ("parquet", "jsonl"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_publish_and_export(rows, store, tmp_path):
    folder = tmp_path / "exports"
    assert exported(store, folder) is None  # the table was never created

    nested = PUBLISHED_TOPK.checked(published_topk(ranked(rows, FIRST, BEFORE), FIRST), "test")
    said = {"night": f"{FIRST}", "als_model": "a", "ranker_model": "r"}
    commit = store.merge(PUBLISHED_TOPK, nested, "list_id", said)
    assert commit.metrics == {"inserted": 3, "updated": 0, "deleted": 0, "unchanged": 0}
    first = store.version(PUBLISHED_TOPK)
    assert exported(store, folder) == {"upsert": 3, "delete": 0}

    # The same lists again, on a night in which only scores moved: no row is written, nothing to export. The night's
    # commit is there all the same, once.
    for _ in range(2):
        commit = publish(store, ranked(rows, SECOND, BEFORE, score=0.4), SECOND)
        assert (commit.rows, commit.metrics["unchanged"], store.version(PUBLISHED_TOPK)) == (0, 3, first + 1)
    assert arrow(store.warehouse, PUBLISHED_TOPK).to_pylist()[0]["items"][0]["score"] == 0.5
    written = files(folder)
    assert exported(store, folder) is None
    assert files(folder) == written

    # Two items of u swap, w is gone, x is new; v stays: exactly those three lists change, in one commit.
    commit = publish(store, ranked(rows, SECOND, {"u": "ba", "v": "bc", "x": "é1"}), SECOND)
    assert commit.metrics == {"inserted": 1, "updated": 1, "deleted": 1, "unchanged": 1}
    assert store.version(PUBLISHED_TOPK) == first + 2
    assert published(store) == {"u": ("ba", SECOND), "v": ("bc", FIRST), "x": ("é1", SECOND)}

    # An export that died between writing and renaming left a hidden folder; the next one starts over.
    left = folder / f".version={first + 2:08d}" / "parquet"
    left.mkdir(parents=True)
    (left / "part-half.parquet").write_bytes(b"half a file")
    assert exported(store, folder) == {"upsert": 2, "delete": 1}
    check_second_export(folder, first)
    assert exported(store, folder) is None


def check_second_export(folder: Path, first: int) -> None:
    assert [path.name for path in sorted(folder.iterdir())] == [f"version={first:08d}", f"version={first + 2:08d}"]
    latest = folder / f"version={first + 2:08d}"
    table = ds.dataset(latest / "parquet", format="parquet").to_table().sort_by("list_key").to_pylist()
    assert [
        (
            row["change"],
            row["list_key"],
            row["list_id"],
            [item["item_id"] for item in row["items"] or []],
            row["changed_date"],
        )
        for row in table
    ] == [
        ("upsert", "u", fingerprint("user", "u", "b", "a"), ["b", "a"], SECOND),
        ("delete", "w", fingerprint("user", "w", "c", "d"), [], None),  # the list that is gone, without its items
        ("upsert", "x", fingerprint("user", "x", "é", "1"), ["é", "1"], SECOND),
    ]
    lines = [
        json.loads(line) for file in (latest / "jsonl").glob("part-*") for line in file.read_text("utf-8").splitlines()
    ]
    same = [{**row, "changed_date": row["changed_date"] and row["changed_date"].isoformat()} for row in table]
    assert sorted(lines, key=lambda line: str(line["list_key"])) == same
    manifest = json.loads((latest / "manifest.json").read_text())
    assert (manifest["from_version"], manifest["to_version"], manifest["rows"]) == (first + 1, first + 2, 3)
    data = {f"{f}/{p.name}": p.stat().st_size for f in ("parquet", "jsonl") for p in (latest / f).glob("part-*")}
    assert manifest["files"] == data


def test_a_list_is_exported_where_it_is_not_what_it_was(spark):
    # RESTORE writes every row of a file it brings back as deleted and inserted in one version, in no order.
    feed = spark.createDataFrame(
        [
            ("user", "same", "1", [], SECOND, "insert", 5),
            ("user", "same", "1", [], SECOND, "delete", 5),
            ("user", "rescored", "1", [], SECOND, "insert", 5),  # the same list, of another night
            ("user", "rescored", "1", [], FIRST, "delete", 5),
            ("user", "never seen", "2", [], SECOND, "insert", 4),
            ("user", "never seen", "2", [], SECOND, "delete", 5),
            ("user", "gone", "2", [], SECOND, "update_preimage", 4),
            ("user", "gone", "8", [], SECOND, "update_postimage", 4),
            ("user", "gone", "8", [], SECOND, "delete", 5),
            ("user", "there and back", "2", [], SECOND, "update_preimage", 4),
            ("user", "there and back", "8", [], SECOND, "update_postimage", 4),
            ("user", "there and back", "8", [], SECOND, "delete", 5),
            ("user", "there and back", "2", [], SECOND, "insert", 5),
            ("user", "old", "3", [], SECOND, "update_preimage", 5),
            ("user", "old", "4", [], SECOND, "update_postimage", 5),
            ("user", "twice", "6", [], SECOND, "update_postimage", 5),
            ("user", "twice", "7", [], SECOND, "insert", 4),
            ("user", "late", "5", [], SECOND, "insert", 6),  # after the version that is exported
        ],
        f"list_kind string, list_key string, list_id string, items {PUBLISHED_TOPK.columns[3].type}, "
        "changed_date date, _change_type string, _commit_version long",
    )
    assert {(row.list_key, row.change, row.list_id) for row in changes(feed, 5).collect()} == {
        ("rescored", "upsert", "1"),
        ("gone", "delete", "2"),
        ("old", "upsert", "4"),
        ("twice", "upsert", "6"),
    }


def test_an_export_of_a_table_made_anew_is_refused():
    assert nothing_new(-1, 0, "exports") and nothing_new(0, 0, "exports") and nothing_new(3, 3, "exports")
    assert not nothing_new(4, 3, "exports")
    with pytest.raises(UsageError, match="exports holds version 7 of published_topk, whose latest version is 3"):
        nothing_new(3, 7, "exports")
