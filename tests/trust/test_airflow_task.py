"""An Airflow task process that is killed takes its spark-submit with it, so that the retry finds the warehouse free."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import checker
import processes
import pytest
from airflow_commands import AIRFLOW, Airflow
from deployments import Base

from nightrec.store import Store


@pytest.mark.timeout(600)
def test_a_killed_task_leaves_no_spark_submit_behind(base: Base, tmp_path: Path) -> None:
    if not AIRFLOW.exists():
        pytest.fail("Airflow's environment is missing: make airflow-install")
    shop, home, log = base.copy(1, tmp_path / "shop"), tmp_path / "home", tmp_path / "places"
    home.mkdir()
    log.write_text("")
    airflow = Airflow(home, shop / "nightrec.toml")
    airflow.set_up()
    variables = airflow.variables() | {"NIGHTREC_FAILPOINT_LOG": str(log), processes.MARK: "airflow-task"}
    with (tmp_path / "said").open("wb") as out:
        task = subprocess.Popen(
            [AIRFLOW, "dags", "test", "nightrec_daily", base.nights[1]], env=variables, cwd=home,
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    while "before_commit" not in log.read_text():
        assert task.poll() is None, (tmp_path / "said").read_text()[-3000:]
        time.sleep(0.02)
    # spark-submit, its driver and the task process are there; only the last is killed
    assert len(processes.marked("airflow-task")) >= 3
    task.send_signal(signal.SIGKILL)
    task.wait()
    assert not processes.alive("airflow-task")
    Store(None, str(shop / "warehouse"), "retry").close()  # type: ignore[arg-type]
    assert not checker.temporary(shop)
