"""Three jobs on a standalone cluster of one master and two one-core workers, against the same jobs in one process."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from spark_commands import Cluster, spark_submit, standalone_cluster, wait_for
from synthetic import deployment

from nightrec import config as configuration
from nightrec import store
from nightrec.contract import Table
from nightrec.models import als_model_id
from nightrec.night import Night
from nightrec.pipeline import stage
from nightrec.runner import run_stage
from nightrec.tables import ALS_ITEM_FACTORS, CLEAN_EVENTS, ITEM_EMBEDDINGS, REJECTED_EVENTS


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with standalone_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


def ordered(warehouse: str, table: Table, key: list[str]) -> pa.Table:
    return store.arrow(warehouse, table).sort_by([(name, "ascending") for name in key])


def test_cleaning_factors_and_embeddings_equal_those_of_one_process(
    spark: SparkSession, cluster: Cluster, tmp_path: Path
) -> None:
    toml, shop = deployment(tmp_path / "alone", users=20, items=20, days=4)
    (tmp_path / "cluster").mkdir()
    shutil.copytree(toml.parent / "raw", tmp_path / "cluster/raw")
    shutil.copy(toml, tmp_path / "cluster")
    alone = configuration.load(toml)
    with Night(spark, alone, shop.last) as night:
        for name in ("clean_events", "item_profiles", "als_item_factors", "item_embeddings"):
            run_stage(night, stage(name))

    warehouse = f"{tmp_path}/cluster/warehouse"
    for name in ("clean_events", "als_item_factors", "item_embeddings"):
        ended = spark_submit(
            "--master", cluster.master, "--conf", "spark.executor.memory=1g", "--conf", "spark.executor.cores=1",
            f"jobs/{name}.py", "--config", tmp_path / "cluster/nightrec.toml", "--date", shop.last.isoformat(),
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
        if name == "clean_events":
            # What the embeddings read, as the session wrote it: the cluster's part is the three jobs.
            shutil.copytree(f"{alone.paths.warehouse}/item_profiles", f"{warehouse}/item_profiles")
    # Both workers had a part in each of the three.
    wait_for(cluster.log, "Launching executor app-", times=6)

    for table, key in ((CLEAN_EVENTS, ["event_key"]), (REJECTED_EVENTS, ["ingest_date", "raw"])):
        assert ordered(warehouse, table, key).equals(ordered(alone.paths.warehouse, table, key))
    assert store.arrow(warehouse, CLEAN_EVENTS).num_rows == shop.accepted
    factors = [ordered(of, ALS_ITEM_FACTORS, ["item_id"]) for of in (warehouse, alone.paths.warehouse)]
    assert factors[0].equals(factors[1])  # to the last bit
    assert set(factors[0]["model_id"].to_pylist()) == {als_model_id(shop.last, alone)}
    vectors = [ordered(of, ITEM_EMBEDDINGS, ["text_hash"]) for of in (warehouse, alone.paths.warehouse)]
    assert vectors[0]["text_hash"].equals(vectors[1]["text_hash"])
    # Batches of another size round otherwise: bfloat16 keeps three digits.
    here, there = (np.array(table["vector"].to_pylist()) for table in vectors)
    assert (here * there).sum(axis=1).min() > 0.999


def test_the_master_listens_for_no_submissions_over_rest(cluster: Cluster) -> None:
    assert "REST" not in cluster.log.read_text()
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", cluster.rest_port))
