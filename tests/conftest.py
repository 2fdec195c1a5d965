"""One Spark session for the whole run, a warehouse per test, and rows built from the contracts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from contract_rows import NIGHT, filled
from processes import clear_sockets
from pyspark.sql import DataFrame, SparkSession
from spark_commands import INTERPRETED

from nightrec.config import Config, Paths, Spark
from nightrec.contract import Table
from nightrec.night import Night
from nightrec.session import session
from nightrec.store import Store

# Files that take minutes begin first: where tests run in two processes, the last file is then a short one. The second
# needs nothing of the base that the first builds, for which it would wait.
_LONG = (
    "test_kill_failpoints", "test_any_log", "test_kill_random", "test_one_writer", "test_failing_storage",
    "test_no_future", "test_stop_means_stop", "test_airflow_task",
    "test_benchmarks", "test_daily_end_to_end", "test_quality", "test_evaluation", "test_past_nights",
    "test_privacy_night", "test_job_audit_defects", "test_first_evening", "test_standalone_cluster",
    "test_spark_submit", "test_job_backfill", "test_job_clean_drift", "test_job_audit_clean_nights",
    "test_als_factorize", "test_security_fuzz", "test_job_clean_events", "test_job_ranker_model",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files before all others, in the order of _LONG."""
    items.sort(key=lambda item: _LONG.index(item.path.stem) if item.path.stem in _LONG else len(_LONG))


def pytest_sessionfinish() -> None:
    """Nothing stays outside the checkout but caches."""
    clear_sockets()


Rows = Callable[[Table, list[dict[str, Any]]], DataFrame]


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    running = session(Spark(master="local[2]", partitions=2, driver_memory="3g"), "tests", warm=True)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def interpreted(spark: SparkSession) -> Iterator[None]:
    """Expressions interpreted, for whole nights of a few hundred rows: they are over before generated code pays."""
    for name, value in INTERPRETED.items():
        spark.conf.set(name, value)
    yield
    for name in INTERPRETED:
        spark.conf.unset(name)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    folders = {name: str(tmp_path / name) for name in Paths.model_fields}
    return Config(paths=Paths(**folders), spark=Spark(master="local[2]", partitions=2))


@pytest.fixture
def store(spark: SparkSession, config: Config) -> Iterator[Store]:
    opened = Store(spark, config.paths.warehouse, run_id="test")
    yield opened
    opened.close()


@pytest.fixture
def night(spark: SparkSession, config: Config, store: Store) -> Night:
    return Night(spark, config, NIGHT, store=store)


@pytest.fixture
def rows(spark: SparkSession) -> Rows:
    """A frame of a table's contract from rows that name only what matters."""

    def build(table: Table, values: list[dict[str, Any]]) -> DataFrame:
        for row in values:
            assert set(row) <= set(table.names), f"not in {table.name}: {set(row) - set(table.names)}"
        return spark.createDataFrame([tuple(filled(table, row).values()) for row in values], table.schema())

    return build
