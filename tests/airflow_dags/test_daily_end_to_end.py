"""The doors lead to the same lists: one night by the daily DAG, each task a real spark-submit, and by a warm run.

Users have pseudonyms in both, and what Airflow keeps (its pages are made from it) knows no user and no key.
"""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import pytest
from pyspark.sql import SparkSession
from spark_commands import CHECKOUT, environment
from synthetic import deployment, rename_user

from nightrec import config as configuration
from nightrec import runner, store
from nightrec.night import Night
from nightrec.pipeline import NIGHT, stage
from nightrec.tables import LEDGER, PUBLISHED_TOPK

AIRFLOW = CHECKOUT / ".venv-airflow/bin/airflow"


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


def kept(home: Path, said: str) -> dict[str, str]:
    """What Airflow holds of its runs: each file of its folder, the database among them, and what it printed."""
    files = {str(file.relative_to(home)): file.read_bytes().decode(errors="replace")
             for file in home.rglob("*") if file.is_file()}  # fmt: skip
    return files | {"printed": said}


def airflow(home: Path, toml: Path, *words: str) -> str:
    """Run Airflow's command on a database of its own; its output where it ends well."""
    variables = environment(
        AIRFLOW_HOME=str(home),
        AIRFLOW__CORE__DAGS_FOLDER=str(CHECKOUT / "airflow_dags"),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        NIGHTREC_CONFIG=str(toml),
    )
    ended = subprocess.run(
        [AIRFLOW, *words], env=variables, cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=1200, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, f"airflow {' '.join(words)}\n{(ended.stdout + ended.stderr)[-6000:]}"
    return ended.stdout + ended.stderr


def set_up(home: Path, toml: Path) -> None:
    """What the DAGs' own page names."""
    airflow(home, toml, "db", "migrate")
    airflow(home, toml, "pools", "set", "nightrec_warehouse", "1", "one writer per warehouse")
    airflow(home, toml, "connections", "add", "spark_default", "--conn-type", "spark", "--conn-host", "local[2]")


@pytest.mark.timeout(1500)
def test_the_daily_dag_publishes_what_a_warm_run_publishes(spark: SparkSession, tmp_path: Path) -> None:
    if not AIRFLOW.exists():
        pytest.fail("Airflow's environment is missing: make airflow-install")
    toml, shop = deployment(tmp_path / "warm", past_cuts=1, users=30, items=40, days=20)
    plant(toml.parent)
    settings = configuration.load(toml)
    home, by_dag = tmp_path / "airflow-home", tmp_path / "airflow/nightrec.toml"
    home.mkdir()

    # Two cores: Airflow is at work beside the warm session.
    with ThreadPoolExecutor(1) as beside:
        ready = beside.submit(set_up, home, by_dag)
        # Models as of the day before, in both deployments: the night's own part begins at the same point.
        with Night(spark, settings, shop.last - dt.timedelta(days=1)) as before:
            runner.run_stage(before, stage("clean_events"))
            for _ in runner.train(before, lambda _: nullcontext()):
                pass
        shutil.copytree(toml.parent, by_dag.parent)
        ready.result()
        by_airflow = beside.submit(airflow, home, by_dag, "dags", "test", "nightrec_daily", shop.last.isoformat())
        with Night(spark, settings, shop.last) as night:
            stages = [books.stage for books in runner.run(night, lambda _: nullcontext())]
        said = by_airflow.result()
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

    held = kept(home, said)
    # Airflow did write of this night: into its database, and what would be a task's log is printed here.
    assert all(f"nightrec clean_events {shop.last}" in held[where] for where in ("airflow.db", "printed"))
    assert not [name for name, text in held.items() if CANARY in text or KEY in text]
