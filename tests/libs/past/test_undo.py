"""The way back: what is kept, what a restore makes of table, models and sinks, and what clean-up leaves alone."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from nightrec import models
from nightrec.config import Config, Lists, Ranker, Retention
from nightrec.contract import Table
from nightrec.errors import UsageError
from nightrec.past.clean_up import clean_up
from nightrec.past.undo import is_quiet, kept, publications, roll_back, served
from nightrec.serving.export import changes, everything, export, exported_version, nothing_new, prepared
from nightrec.store import Store, arrow, is_whole, location, partitions, version
from nightrec.tables import (
    ALS_ITEM_FACTORS,
    NIGHT_MODELS,
    PUBLISHED_TOPK,
    RANKER_MODELS,
    SHORTFALLS,
)

Rows = Callable[[Table, list[dict[str, Any]]], DataFrame]
N1, N2, N3, N4, N5 = (dt.date(2026, 3, day) for day in (1, 2, 3, 4, 5))
FORMATS = ("parquet", "jsonl")


def lists(night: dt.date, **items: str) -> list[dict[str, Any]]:
    """One list per user, as served by the night."""
    return [
        {
            "list_kind": "user", "list_key": user, "list_id": f"{user}:{chosen}", "changed_date": night,
            "items": [
                {"rank": n, "item_id": item, "score": 1 / n, "source": "als", "reason": f"of {night}"}
                for n, item in enumerate(chosen, 1)
            ],
        }
        for user, chosen in items.items()
    ]  # fmt: skip


def hashed(table_rows: list[dict[str, Any]]) -> str:
    """Canonical hash of lists, whoever holds them: a table, or a sink that read Parquet or JSON."""
    lines = sorted(
        json.dumps({name: row[name] for name in PUBLISHED_TOPK.names}, sort_keys=True, default=str)
        for row in table_rows
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class Sink:
    """A downstream system that knows nothing but the folders: it applies each once, in order."""

    def __init__(self, folder: Path, form: str) -> None:
        self.folder, self.form = folder, form
        self.seen: set[str] = set()
        self.held: dict[tuple[str, str], dict[str, Any]] = {}

    def apply(self) -> int:
        """Apply what is new; returns how many rows that were."""
        applied = 0
        for folder in sorted(self.folder.glob("version=*")):
            if folder.name in self.seen:
                continue
            self.seen.add(folder.name)
            for row in self._rows(folder):
                applied += 1
                key = (row["list_kind"], row["list_key"])
                if row.pop("change") == "delete":
                    del self.held[key]
                else:
                    self.held[key] = row
        return applied

    def _rows(self, folder: Path) -> list[dict[str, Any]]:
        if self.form == "parquet":
            return list(ds.dataset(folder / "parquet", format="parquet").to_table().to_pylist())
        files = (folder / "jsonl").glob("part-*")
        return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]


class Shop:
    """Publishes nights by hand, exports them, and remembers the hash of each."""

    def __init__(self, store: Store, rows: Rows, folder: Path) -> None:
        self.store, self.rows = store, rows
        self.folder = folder
        self.sinks = [Sink(folder, form) for form in FORMATS]
        self.hashes: dict[dt.date, str] = {}

    def publish(self, night: dt.date, als: str, made: list[dict[str, Any]]) -> None:
        said = {"night": f"{night}", "als_model": als, "ranker_model": f"{als}-ranker"}
        self.store.merge(PUBLISHED_TOPK, self.rows(PUBLISHED_TOPK, made), "list_id", said)
        self.hashes[night] = self.hash()

    def hash(self) -> str:
        return hashed(arrow(self.store.warehouse, PUBLISHED_TOPK).to_pylist())

    def export(self) -> None:
        """What the export job does."""
        latest, where = self.store.version(PUBLISHED_TOPK), prepared(self.store.spark, str(self.folder))
        since = exported_version(self.store.spark, where)
        if nothing_new(latest, since, where) or (since and is_quiet(self.store.warehouse, since)):
            return
        if since:
            frame = changes(self.store.changes(PUBLISHED_TOPK, since), latest)
        else:
            frame = everything(self.store.read(PUBLISHED_TOPK, version=latest))
        export(frame, where, since + 1, latest, FORMATS)


@pytest.fixture
def shop(store: Store, rows: Rows, tmp_path: Path) -> Shop:
    """Four nights, each exported but the last: lists change, appear, go, change back; the third has no news."""
    made = Shop(store, rows, tmp_path / "exports")
    made.publish(N1, "als-1", lists(N1, a="12", b="34", c="56", still="78"))
    made.export()
    made.publish(N2, "als-1", lists(N2, a="21", b="34", d="12", still="78"))
    made.export()
    made.publish(N3, "als-1", lists(N3, a="21", b="34", d="12", still="78"))
    made.export()
    # a has its first list again, of another night: the same items with other reasons
    made.publish(N4, "als-4", lists(N4, a="12", b="43", e="11", still="78"))
    return made


def test_every_night_is_one_commit_and_history_names_it(shop: Shop) -> None:
    found = publications(shop.store.warehouse)
    assert [(each.night, each.als_model, each.changed) for each in found] == [
        (N1, "als-1", 4), (N2, "als-1", 3), (N3, "als-1", 0), (N4, "als-4", 4),
    ]  # fmt: skip
    assert [each.version for each in found] == [1, 2, 3, 4], "no other commits"
    # a night published again: one that says the same makes no commit, one with other lists counts
    shop.publish(N4, "als-4", lists(N4, a="12", b="43", e="11", still="78"))
    assert version(shop.store.warehouse, PUBLISHED_TOPK) == 4
    shop.publish(N4, "als-4", lists(N4, a="12", b="43", e="12", still="78"))
    assert [each.version for each in kept(shop.store.warehouse, 3)] == [5, 3, 2], "the last of each night"


def test_the_way_back_reaches_table_models_and_every_sink(shop: Shop, config: Config, spark: SparkSession) -> None:
    store = shop.store
    for form, sink in zip(FORMATS, shop.sinks, strict=True):
        sink.apply()
        assert hashed(list(sink.held.values())) == shop.hashes[N3], form
    shop.export()
    # back over a night without news, to one whose lists were served before
    back = roll_back(store, 30, N2)
    assert back is not None and (back.night, back.instead_of, back.version) == (N2, N4, 5)
    assert shop.hash() == shop.hashes[N2] and served(store.warehouse) == back
    assert roll_back(store, 30, N2) is None and version(store.warehouse, PUBLISHED_TOPK) == 5
    shop.export()
    for form, sink in zip(FORMATS, shop.sinks, strict=True):
        sink.apply()
        assert hashed(list(sink.held.values())) == shop.hashes[N2], form
    # the inverse difference, not every list: `still` never was in a folder after the first
    last = max(shop.folder.glob("version=*"))
    assert json.loads((last / "manifest.json").read_text())["rows"] == 4
    # and forth again, unexported in between, then a night that publishes on top of it
    roll_back(store, 30, N1)
    roll_back(store, 30, N4)
    assert shop.hash() == shop.hashes[N4]
    shop.publish(N5, "als-4", lists(N5, a="12", b="43", still="87"))
    shop.export()
    for form, sink in zip(FORMATS, shop.sinks, strict=True):
        sink.apply()
        assert hashed(list(sink.held.values())) == shop.hashes[N5] == shop.hash(), form
    # Spark reads what deltalake restored
    shown = spark.read.format("delta").load(location(store.warehouse, PUBLISHED_TOPK)).collect()
    assert {row.list_key for row in shown} == {"a", "b", "still"}


def test_no_way_back_beyond_the_window(shop: Shop) -> None:
    before = version(shop.store.warehouse, PUBLISHED_TOPK)
    with pytest.raises(UsageError, match=r"no way back to 2026-03-01: the last 3 published.*are 2026-03-04, 2026"):
        roll_back(shop.store, 3, N1)
    with pytest.raises(UsageError, match="no way back to 2026-03-09"):
        roll_back(shop.store, 3, dt.date(2026, 3, 9))
    assert UsageError.exit_code == 2
    # a night whose files somebody removed is not offered
    then = DeltaTable(location(shop.store.warehouse, PUBLISHED_TOPK), version=2).file_uris()
    now = DeltaTable(location(shop.store.warehouse, PUBLISHED_TOPK)).file_uris()
    Path(next(uri for uri in then if uri not in now).removeprefix("file://")).unlink()
    assert [each.night for each in kept(shop.store.warehouse, 30)] == [N4, N1]
    with pytest.raises(UsageError, match="no way back to 2026-03-02"):
        roll_back(shop.store, 30, N2)
    assert version(shop.store.warehouse, PUBLISHED_TOPK) == before


def trained(store: Store, as_of: dt.date, name: str) -> None:
    """What a training leaves behind, as little of it as a night asks for."""
    factors = {"as_of_date": as_of, "model_id": name, "item_id": "i", "factors": [1.0]}
    store.put(ALS_ITEM_FACTORS, [factors], {"as_of_date": as_of, "model_id": name})
    model = {
        "as_of_date": as_of, "model_id": f"{name}-ranker", "weights": "", "weights_sha256": "", "features": [],
        "settings": [], "data_versions": [], "processes": 1, "best_epochs": {}, "epochs": [], "choices": {},
        "calibration": [],
    }  # fmt: skip
    store.put(RANKER_MODELS, [model], {"as_of_date": as_of, "model_id": f"{name}-ranker"})


def test_nights_after_a_way_back_use_its_models_until_newer_ones_are_judged(shop: Shop, config: Config) -> None:
    store = shop.store
    trained(store, dt.date(2026, 2, 27), "als-1")
    trained(store, N3, "als-4")
    choice = {"als_model": "als-4", "ranker_model": "als-4-ranker"}
    assert models.pinned(store, config, N4, None, None).items() >= choice.items()
    roll_back(store, 30, N2)
    old = {"als_model": "als-1", "ranker_model": "als-1-ranker"}
    assert models.pinned(store, config, N5, None, None).items() >= old.items()
    # published on top of it, the next night does not fall back to what was left behind
    shop.publish(N5, "als-1", lists(N5, a="99"))
    N6, N7 = N5 + dt.timedelta(days=1), N5 + dt.timedelta(days=2)
    assert models.pinned(store, config, N6, None, None).items() >= old.items()
    # a model may be named; one trained as of a later date than N4 was not left behind: it may challenge
    assert models.pinned(store, config, N6, "als-4", None)["als_model"] == "als-4"
    trained(store, N6, "als-6")
    assert models.pinned(store, config, N7, None, None).items() >= old.items()
    assert models.champions(store.warehouse, N7)[-1]["barred"] == ["als-4", "als-4-ranker"]
    # the night that was left behind, run again, does not go back to its own
    assert models.pinned(store, config, N4, None, None).items() >= old.items()
    # nights before the way back, filled in afterwards, know nothing of it
    assert models.champions(store.warehouse, N1) == []


def short(night: dt.date) -> dict[str, Any]:
    return {"run_date": night, "list_kind": "user", "list_key": "a", "wanted": 10, "found": 1, "cause": "all seen"}


def test_clean_up_leaves_what_the_oldest_night_of_the_window_began_with(shop: Shop, config: Config) -> None:
    """Building it again begins there; what lies before is gone."""
    warehouse = shop.store.warehouse
    one = config.model_copy(update={
        "retention": Retention(nights=1), "lists": Lists(attribution_days=1),
        "ranker": Ranker(horizon_days=1, past_cuts=1),
    })  # fmt: skip
    of = {each.night: each.version for each in kept(warehouse, 30)}
    assert clean_up(shop.store, one, N4) is not None
    assert is_whole(warehouse, PUBLISHED_TOPK, of[N4]) and is_whole(warehouse, PUBLISHED_TOPK, of[N4] - 1)
    assert not is_whole(warehouse, PUBLISHED_TOPK, of[N1])


def test_clean_up_leaves_what_the_window_needs(shop: Shop, config: Config, spark: SparkSession) -> None:
    store = shop.store
    small = config.model_copy(update={
        "retention": Retention(nights=2), "lists": Lists(attribution_days=1),
        "ranker": Ranker(horizon_days=1, past_cuts=1),
    })  # fmt: skip
    trained(store, dt.date(2026, 2, 26), "als-0")
    trained(store, dt.date(2026, 2, 27), "als-1")
    trained(store, N3, "als-4")
    for night, als in ((N1, "als-0"), (N2, "als-1"), (N3, "als-1"), (N4, "als-4")):
        store.put(SHORTFALLS, [short(night)], {"run_date": night})
        row = {"run_date": night, "als_model": als, "ranker_model": "r", "encoder": "e"}
        store.put(NIGHT_MODELS, [row], {"run_date": night})
    orphan = Path(location(store.warehouse, SHORTFALLS), "run_date=2026-03-04", "part-of-a-commit-that-died.parquet")
    orphan.write_bytes(b"half a file")
    with pytest.raises(UsageError, match=r"--keep-nights 1: the window is 2 nights.*set retention.nights lower first"):
        clean_up(store, small, N4, keep_nights=1)
    assert clean_up(store, small, N4, keep_nights=4) is None and orphan.exists()
    shop.export()
    done = clean_up(store, small, N4)
    # two nights of shortfalls, and the factors that no kept night names
    assert done is not None and (done.before, done.partitions) == (N3, 3) and done.files
    assert sorted(part["run_date"] for part in partitions(store.warehouse, SHORTFALLS)) == ["2026-03-03", "2026-03-04"]
    assert sorted(part["model_id"] for part in partitions(store.warehouse, ALS_ITEM_FACTORS)) == ["als-1", "als-4"]
    assert not orphan.exists()
    assert hashed([row.asDict(recursive=True) for row in store.read(PUBLISHED_TOPK).collect()]) == shop.hashes[N4]
    # beyond the window the files are gone; inside it every night is there, and its way back reaches the sinks
    # (N2 has the files of N3, which had no news)
    assert [each.night for each in kept(store.warehouse, 30)] == [N4, N3, N2]
    with pytest.raises(UsageError):
        roll_back(store, 2, N1)
    roll_back(store, 2, N3)
    assert shop.hash() == shop.hashes[N3]
    shop.export()
    for form, sink in zip(FORMATS, shop.sinks, strict=True):
        sink.apply()
        assert hashed(list(sink.held.values())) == shop.hashes[N3], form
    # what is left can be cleaned again, and written to
    clean_up(store, small, N4)
    shop.publish(N5, "als-1", lists(N5, a="99"))
    assert spark.read.format("delta").load(location(store.warehouse, PUBLISHED_TOPK)).count() == 1


def nightrec(*words: str, config: Path) -> subprocess.CompletedProcess[str]:
    code = "from nightrec.cli import main; main()"
    command = [sys.executable, "-c", code, *words, "--config", str(config), "--json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=config.parent)


def test_the_commands_need_no_spark_and_refuse_in_a_sentence(shop: Shop, config: Config, tmp_path: Path) -> None:
    toml = tmp_path / "nightrec.toml"
    toml.write_text("[retention]\nnights = 3\n")
    while_it_runs = nightrec("rollback", "--to", f"{N2}", config=toml)
    assert while_it_runs.returncode == 1 and "is writing to" in while_it_runs.stderr
    shop.store.close()
    found = json.loads(nightrec("history", config=toml).stdout)
    assert [(row["night"], row["lists_changed"], row["is_served"]) for row in found] == [
        ("2026-03-04", 4, True), ("2026-03-03", 0, False), ("2026-03-02", 3, False),
    ]  # fmt: skip
    refused = nightrec("rollback", "--to", f"{N1}", config=toml)
    assert refused.returncode == 2 and "no way back to 2026-03-01" in refused.stderr
    assert nightrec("clean-up", "--date", f"{N4}", "--keep-nights", "1", config=toml).returncode == 2
    assert shop.hash() == shop.hashes[N4]
    done = nightrec("rollback", "--to", f"{N2}", config=toml)
    assert done.returncode == 0 and json.loads(done.stdout)["instead_of"] == "2026-03-04"
    assert shop.hash() == shop.hashes[N2]
