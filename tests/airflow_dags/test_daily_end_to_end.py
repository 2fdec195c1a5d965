"""The doors lead to the same lists: one night by the daily DAG in a running Airflow, each task a real spark-submit, and
by a warm run.

Users have pseudonyms in both, and neither what Airflow keeps nor one of its pages knows a user or the key.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest
from airflow_commands import AIRFLOW, Airflow
from pyspark.sql import SparkSession
from synthetic import deployment, rename_user

from nightrec import config as configuration
from nightrec import runner, store
from nightrec.night import Night
from nightrec.pipeline import NIGHT, stage
from nightrec.tables import LEDGER, PUBLISHED_TOPK

pytestmark = pytest.mark.usefixtures("interpreted")

CANARY, KEY = "canary-of-airflow-7e3f", "airflow5ecretkey" * 3


def plant(deployed: Path) -> None:
    """Call the eighth user CANARY, hide all users behind pseudonyms, and break a line that tells who it is."""
    rename_user(deployed / "raw", 7, CANARY)
    last = max((deployed / "raw/events").glob("ingest_date=*"))
    (last / "broken.jsonl").write_text(f'{{"user_id": "{CANARY}", "item_id": 7\n{CANARY}\n')
    (deployed / "privacy.key").write_text(KEY)
    (deployed / "privacy.key").chmod(0o600)
    with (deployed / "nightrec.toml").open("a") as toml:
        toml.write("\n[privacy]\npseudonyms = true\n")


@pytest.mark.timeout(1500)
def test_the_daily_dag_publishes_what_a_warm_run_publishes(spark: SparkSession, tmp_path: Path) -> None:
    if not AIRFLOW.exists():
        pytest.fail("Airflow's environment is missing: make airflow-install")
    toml, shop = deployment(tmp_path / "warm", past_cuts=1, users=30, items=40, days=20)
    plant(toml.parent)
    settings = configuration.load(toml)
    home, by_dag = tmp_path / "airflow-home", tmp_path / "airflow/nightrec.toml"
    home.mkdir()
    airflow = Airflow(home, by_dag)

    # Two cores: Airflow is at work beside the warm session.
    with ThreadPoolExecutor(1) as beside:
        ready = beside.submit(airflow.set_up)
        # Models as of the day before, in both deployments: the night's own part begins at the same point.
        with Night(spark, settings, shop.last - dt.timedelta(days=1)) as before:
            runner.run_stage(before, stage("clean_events"))
            for _ in runner.train(before, lambda _: nullcontext()):
                pass
        shutil.copytree(toml.parent, by_dag.parent)
        ready.result()
        with airflow.started():
            by_airflow = beside.submit(airflow.run, "nightrec_daily", {"date": shop.last.isoformat()})
            with Night(spark, settings, shop.last) as night:
                stages = [books.stage for books in runner.run(night, lambda _: nullcontext())]
            run = by_airflow.result()
            pages = airflow.pages("nightrec_daily", run["dag_run_id"])
    assert run["state"] == "success", pages
    assert stages == [stage.name for stage in NIGHT]

    warm, scheduled = (
        store.arrow(warehouse, PUBLISHED_TOPK).sort_by([("list_kind", "ascending"), ("list_key", "ascending")])
        for warehouse in (settings.paths.warehouse, configuration.load(by_dag).paths.warehouse)
    )
    # 30 users with events and the one without, who gets a list all the same; every list there is, to the last digit.
    assert sum(kind == "user" for kind in warm["list_kind"].to_pylist()) == 31
    assert scheduled.equals(warm)
    # Both kept the same books, but for the id of the run.
    books = [
        sorted(store.arrow(where, LEDGER, {"run_date": shop.last}).drop_columns("run_id").to_pylist(), key=str)
        for where in (settings.paths.warehouse, configuration.load(by_dag).paths.warehouse)
    ]
    assert books[0] == books[1]

    # The night is in Airflow's database, in its logs and on its pages; who was served and the key are in none of them.
    application, log = f"nightrec clean_events {shop.last}", "taskInstances/clean_events/logs/1"
    kept = airflow.kept()
    assert application in kept["airflow.db"]
    assert any(application in text for name, text in kept.items() if name.startswith("logs/"))
    assert any(application in text for where, text in pages.items() if where.endswith(log))
    states = next(json.loads(text) for where, text in pages.items() if where.endswith("/taskInstances"))
    assert {one["task_id"]: one["state"] for one in states["task_instances"]} == dict.fromkeys(stages, "success")
    assert not [name for name, text in (kept | pages).items() if CANARY in text or KEY in text]
