"""Forgetting without Spark: who is served stays known, and raw files are read as cleaning reads them."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import cast

import pyarrow as pa
import pytest
from contract_rows import filled
from deltalake import DeltaTable, Schema
from nightrec_jobs import published_topk
from pyspark.sql import SparkSession

from nightrec import models
from nightrec.config import Config
from nightrec.contract import Table
from nightrec.errors import UsageError
from nightrec.night import Night
from nightrec.past.undo import is_quiet, kept, roll_back, served
from nightrec.privacy import forget, rekey
from nightrec.store import Store, arrow, location, version
from nightrec.tables import ALS_ITEM_FACTORS, NIGHT_MODELS, PUBLISHED_TOPK, RANKER_MODELS

N1, N2, N3, N4, N5, N6 = (dt.date(2026, 3, day) for day in range(1, 7))
NO_SPARK = cast("SparkSession", None)
OLD = {"als_model": "als-1", "ranker_model": "als-1-ranker"}


def created(warehouse: str, *tables: Table) -> None:
    """Tables of the contract's columns, text but for dates and lists: Spark would parse their types."""
    for table in tables:
        kinds = {"date": pa.date32(), "array": pa.list_(pa.struct({"item_id": pa.string()}))}
        fields = [(c.name, kinds.get(c.type.partition("<")[0], pa.string())) for c in table.columns]
        feed: dict[str, str | None] = {"delta.enableChangeDataFeed": f"{table.change_feed}".lower()}
        place, parts = location(warehouse, table), list(table.partition) or None
        DeltaTable.create(place, Schema.from_arrow(pa.schema(fields)), partition_by=parts, configuration=feed)


def publish(store: Store, night: dt.date, als: str, *users: str) -> None:
    """What the night's MERGE does, in two commits."""
    lists = [{"list_kind": "user", "list_key": user, "list_id": f"{user}:{night}"} for user in users]
    store.put(PUBLISHED_TOPK, [filled(PUBLISHED_TOPK, row) for row in lists], {})
    said = {"night": f"{night}", "als_model": als, "ranker_model": f"{als}-ranker", "changed": len(users)}
    store._say(PUBLISHED_TOPK, said)


def trained(store: Store, as_of: dt.date, name: str) -> None:
    """What a training leaves behind, as little of it as a night asks for."""
    for table, model in ((ALS_ITEM_FACTORS, name), (RANKER_MODELS, f"{name}-ranker")):
        where: dict[str, dt.date | str] = {"as_of_date": as_of, "model_id": model}
        store.put(table, [where], where)


def test_who_is_served_is_known_after_somebody_was_forgotten(config: Config, tmp_path: Path) -> None:
    """One commit of the log is left: publication and way back stand in it, whatever commits followed them."""
    warehouse = config.paths.warehouse
    created(warehouse, PUBLISHED_TOPK, ALS_ITEM_FACTORS, RANKER_MODELS, NIGHT_MODELS)
    with Store(NO_SPARK, warehouse, "first") as store:
        trained(store, dt.date(2026, 2, 27), "als-1")
        trained(store, N3, "als-4")
        publish(store, N2, "als-1", "a", "b", "d")
        publish(store, N4, "als-4", "a", "b", "d")
        back = roll_back(store, 30, N2)
    assert back is not None and served(warehouse) == back
    target = DeltaTable(location(warehouse, PUBLISHED_TOPK))
    target.alter.set_table_properties({"delta.logRetentionDuration": "interval 9 days"})
    exports = Path(config.paths.exports) / PUBLISHED_TOPK.name
    (exports / f"version={back.version:08d}").mkdir(parents=True)

    assert forget.forget(config, tmp_path, "d", N5)["table warehouse/published_topk"] == 1
    now = served(warehouse)
    assert now is not None and now.is_rewritten
    assert (now.night, now.als_model, now.ranker_model, now.instead_of) == (N2, "als-1", "als-1-ranker", N4)
    assert now.written == back.written and [each.night for each in kept(warehouse, 30)] == [N2]
    assert models.is_left_behind(warehouse, N4) and not is_quiet(warehouse, now.version - 1)
    with Night(NO_SPARK, config, N1) as earlier:
        published_topk.run(earlier)
        assert earlier._said == [f"Readers keep the lists of {N2}: {N1}, an earlier night, is not published."]

    # No list of b is left, only an earlier version names them; the way back stays known behind a later night.
    with Store(NO_SPARK, warehouse, "second") as store:
        assert models.pinned(store, config, N4, None, None).items() >= OLD.items()
        publish(store, N5, "als-1", "a")
    with pytest.raises(UsageError, match="run `nightrec export` first"):
        forget.forget(config, tmp_path, "b", N5)
    (exports / f"version={version(warehouse, PUBLISHED_TOPK):08d}").mkdir()
    assert forget.forget(config, tmp_path, "b", N5)["table warehouse/published_topk"] == 0
    now = served(warehouse)
    assert now is not None and (now.night, now.als_model, now.changed, now.instead_of) == (N5, "als-1", 1, None)
    assert models.champions(warehouse, N6)[-1]["barred"] == ["als-4", "als-4-ranker"]

    # Once more by rekey, which takes nobody out; one can go back to a night before it from one behind it.
    rekey.rekey(config)
    assert max(exports.glob("version=*")).name == f"version={version(warehouse, PUBLISHED_TOPK):08d}"
    again = served(warehouse)
    assert again is not None and again == now and models.is_left_behind(warehouse, N4)
    with Store(NO_SPARK, warehouse, "third") as store:
        publish(store, N6, "als-1", "a")
        assert [each.night for each in kept(warehouse, 30)] == [N6, N5]
        (exports / f"version={version(warehouse, PUBLISHED_TOPK):08d}").mkdir()
    rekey.rekey(config)
    now = served(warehouse)
    assert now is not None and (now.night, now.changed, now.is_rewritten) == (N6, 1, True)
    assert max(exports.glob("version=*")).name == f"version={version(warehouse, PUBLISHED_TOPK):08d}"
    assert models.is_left_behind(warehouse, N4) and arrow(warehouse, PUBLISHED_TOPK).num_rows == 1
