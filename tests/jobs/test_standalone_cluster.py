"""A job on a standalone cluster of one master and two one-core workers, against the same job in one process."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from spark_commands import Cluster, spark_submit, standalone_cluster, wait_for
from synthetic import deployment

from nightrec import config as configuration
from nightrec import store
from nightrec.night import Night
from nightrec.pipeline import stage
from nightrec.runner import run_stage
from nightrec.tables import CLEAN_EVENTS, REJECTED_EVENTS


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with standalone_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


def test_a_job_submitted_to_the_cluster_gives_the_tables_of_one_process(
    spark: SparkSession, cluster: Cluster, tmp_path: Path
) -> None:
    """Of one job by spark-submit; a whole night's tables on a cluster are compared by infra/benchmarks/cluster.py."""
    toml, shop = deployment(tmp_path / "alone", users=20, items=20, days=4)
    (tmp_path / "cluster").mkdir()
    shutil.copytree(toml.parent / "raw", tmp_path / "cluster/raw")
    shutil.copy(toml, tmp_path / "cluster")
    alone = configuration.load(toml)
    with Night(spark, alone, shop.last) as night:
        run_stage(night, stage("clean_events"))

    ended = spark_submit(
        "--master", cluster.master, "--conf", "spark.executor.memory=1g", "--conf", "spark.executor.cores=1",
        "jobs/clean_events.py", "--config", tmp_path / "cluster/nightrec.toml", "--date", shop.last.isoformat(),
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    wait_for(cluster.log, "Launching executor app-", times=2)  # on both workers
    for table, key in ((CLEAN_EVENTS, ["event_key"]), (REJECTED_EVENTS, ["ingest_date", "raw"])):
        order = [(name, "ascending") for name in key]
        there, here = (
            store.arrow(f"{tmp_path}/{of}/warehouse", table).sort_by(order) for of in ("cluster", "alone")
        )
        assert there.equals(here)
    assert store.arrow(f"{tmp_path}/cluster/warehouse", CLEAN_EVENTS).num_rows == shop.accepted


def test_the_master_listens_for_no_submissions_over_rest(cluster: Cluster) -> None:
    assert "REST" not in cluster.log.read_text()
    with socket.socket() as probe, pytest.raises(ConnectionRefusedError):
        probe.connect(("127.0.0.1", cluster.rest_port))
