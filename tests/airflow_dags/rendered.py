"""What the DAGs are, as JSON: run in Airflow's environment, because the tests' environment has no Airflow.

.venv-airflow/bin/python tests/airflow_dags/rendered.py            print it
.venv-airflow/bin/python tests/airflow_dags/rendered.py --write    rebuild golden/*.txt (`make golden`)
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
DAGS = CHECKOUT / "airflow_dags"
NAMES = ("nightrec_daily", "nightrec_training", "nightrec_tuning")

AIRFLOW_HOME = tempfile.TemporaryDirectory(prefix="airflow-")
# Before Airflow is imported: no user's Airflow, a deployment that is named but need not exist, one known connection.
os.environ.update(
    AIRFLOW_HOME=AIRFLOW_HOME.name,
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__LOGGING__LOGGING_LEVEL="ERROR",
    NIGHTREC_CONFIG="/srv/shop/nightrec.toml",
    AIRFLOW_CONN_SPARK_DEFAULT='{"conn_type": "spark", "host": "local[2]"}',
)


def loaded(name: str) -> tuple[Any, float]:
    """A DAG and the seconds its file takes to read, Airflow itself being there already; a connection raises."""
    import importlib
    import time

    def refused(*_: object) -> None:
        raise AssertionError(f"{name} opens a connection while it is read")

    real = socket.socket.connect
    socket.socket.connect = refused  # type: ignore[assignment, method-assign]
    started = time.monotonic()
    try:
        return importlib.import_module(name).dag, time.monotonic() - started
    finally:
        socket.socket.connect = real  # type: ignore[method-assign]


def command(task: Any, night: str) -> str:
    """The spark-submit line of a task for one night, the checkout's folder left out; variables of a shell's."""
    from datetime import datetime

    context = {"params": dict(task.dag.params), "logical_date": datetime.fromisoformat(f"{night}T02:00:00+00:00")}
    context |= task.dag.user_defined_macros
    task.render_template_fields(context)
    if hasattr(task, "bash_command"):
        return " ".join([*(f"{name}={value}" for name, value in task.env.items()), task.bash_command])
    line = task._get_hook()._build_spark_submit_command(task.application)
    return shlex.join(line).replace(f"{CHECKOUT}/", "")


def fails_for_good(code: int) -> bool:
    """Whether a task whose spark-submit ends with this exit code is not tried again."""
    from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    from nightrec.pipeline import NIGHT
    from nightrec_factory import spark_job

    def ended(*_: object) -> None:
        raise AirflowException(f"Cannot execute: spark-submit jobs/audit.py --date 2026-03-10. Error code is: {code}.")

    real, SparkSubmitOperator.execute = SparkSubmitOperator.execute, ended
    try:
        spark_job(NIGHT[0]).execute({})
    except AirflowFailException:
        return True
    except AirflowException:
        return False
    finally:
        SparkSubmitOperator.execute = real
    return False


def command_fails_for_good(code: int) -> bool:
    """Whether a task whose command ends with this exit code is not tried again."""
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    from nightrec_factory import NightrecCommand

    try:
        NightrecCommand(task_id="ends", bash_command=f"exit {code}").execute({})
    except AirflowFailException:
        return True
    except AirflowException:
        return False
    return False


def discovered(path: Path) -> bool:
    """Whether Airflow looks for DAGs in a file at all: by default only where it holds the words dag and airflow."""
    from airflow.utils.file import might_contain_dag

    return might_contain_dag(str(path), safe_mode=True)


def facts(night: str = "2026-03-10") -> dict[str, Any]:
    """Everything the tests ask about the DAGs."""
    sys.path.insert(0, str(DAGS))
    import airflow.providers.apache.spark.operators.spark_submit
    import airflow.sdk  # noqa: F401
    import pydantic  # noqa: F401

    found: dict[str, Any] = {}
    for name in NAMES:
        dag, seconds = loaded(name)
        tasks = {
            task.task_id: {
                "owner": task.owner,
                "retries": task.retries,
                "pool": task.pool,
                "doc": task.doc_md,
                "upstream": sorted(task.upstream_task_ids),
                "command": command(task, night),
            }
            for task in dag.topological_sort()
        }
        params = {key: dag.params.get_param(key).schema for key in dag.params}
        found[dag.dag_id] = {"seconds": seconds, "doc": dag.doc_md, "params": params, "tasks": tasks}
    found["mended_by_no_retry"] = [code for code in (1, 2, 3, 4, 137) if fails_for_good(code)]
    found["commands_mended_by_no_retry"] = [code for code in (1, 2, 3, 4, 137) if command_fails_for_good(code)]
    found["looked_into"] = sorted(path.stem for path in DAGS.glob("nightrec_*.py") if discovered(path))
    found["heavy"] = sorted({"pyspark", "torch", "pyarrow", "deltalake", "numpy"} & set(sys.modules))
    return found


def golden(dag: dict[str, Any]) -> str:
    """The spark-submit lines of a DAG, one a task in the order they may run."""
    return "".join(f"{name}\n    {task['command']}\n" for name, task in dag["tasks"].items())


if __name__ == "__main__":
    import json

    answer = facts()
    if "--write" in sys.argv:
        for dag_name in NAMES:
            (HERE / "golden").mkdir(exist_ok=True)
            (HERE / "golden" / f"{dag_name}.txt").write_text(golden(answer[dag_name]))
    else:
        print(json.dumps(answer))
