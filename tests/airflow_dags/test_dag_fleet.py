"""The rules every DAG keeps, and the exact spark-submit lines. Airflow runs in its own environment and process."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer

from nightrec.cli import app
from nightrec.config import Ranker
from nightrec.night import parser
from nightrec.pipeline import NIGHT, training

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
PYTHON = CHECKOUT / ".venv-airflow/bin/python"
SUBMITTED = ("nightrec_daily", "nightrec_training")
DAGS = (*SUBMITTED, "nightrec_tuning")


@pytest.fixture(scope="module")
def fleet() -> dict[str, Any]:
    """What rendered.py prints."""
    if not PYTHON.exists():
        pytest.fail("Airflow's environment is missing: make airflow-install")
    # The job's own leftovers (a test session's PYSPARK_PYTHON, an Airflow of the user's) must not colour the lines.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "NIGHTREC", "SPARK", "PYSPARK"))}
    answer = subprocess.run(
        [PYTHON, HERE / "rendered.py"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def commands(dag: dict[str, Any]) -> dict[str, list[str]]:
    return {name: shlex.split(task["command"]) for name, task in dag["tasks"].items()}


@pytest.mark.parametrize("name", DAGS)
def test_a_dag_is_read_in_under_a_second_without_the_jobs_packages(fleet: dict[str, Any], name: str) -> None:
    assert fleet[name]["seconds"] < 1
    assert fleet["heavy"] == []


def test_airflow_looks_into_all_files(fleet: dict[str, Any]) -> None:
    assert set(DAGS) <= set(fleet["looked_into"])


def test_what_no_retry_can_mend_is_not_tried_again(fleet: dict[str, Any]) -> None:
    # Usage, bad input, a refused audit. A bug or an outside failure (1) and a killed process (137) are tried again.
    assert fleet["mended_by_no_retry"] == fleet["commands_mended_by_no_retry"] == [2, 3, 4]


@pytest.mark.parametrize("name", SUBMITTED)
def test_every_task_has_owner_retries_pool_and_documentation(fleet: dict[str, Any], name: str) -> None:
    assert "| stage | what it does |" in fleet[name]["doc"]
    for task_id, task in fleet[name]["tasks"].items():
        assert task["owner"] == "recommendations", task_id
        assert task["retries"] == 2, task_id
        assert task["pool"] == "nightrec_warehouse", task_id
        assert task["doc"], task_id
        # Retries in Airflow only: the cluster must not try again by itself.
        assert "spark.yarn.maxAppAttempts=1" in task["command"], task_id
        assert "--supervise" not in task["command"], task_id


def test_parameters_have_a_schema_and_a_training_is_bound_to_the_settings_it_was_made_from(
    fleet: dict[str, Any],
) -> None:
    for name in DAGS:
        date = fleet[name]["params"]["date"]
        assert (date["type"], date["format"]) == (["null", "string"], "date")
        assert fleet[name]["params"]["config"]["type"] == "string"
    assert fleet["nightrec_daily"]["params"]["config"]["pattern"] == r"\.toml$"
    assert fleet["nightrec_training"]["params"]["config"]["const"] == "/srv/shop/nightrec.toml"


@pytest.mark.parametrize("name", DAGS)
def test_spark_submit_lines_equal_the_golden_file(fleet: dict[str, Any], name: str) -> None:
    golden = "".join(f"{task_id}\n    {task['command']}\n" for task_id, task in fleet[name]["tasks"].items())
    assert golden == (HERE / "golden" / f"{name}.txt").read_text(), "if the new lines are right: make golden"


@pytest.mark.parametrize("name", SUBMITTED)
def test_every_line_names_a_job_that_understands_its_arguments(fleet: dict[str, Any], name: str) -> None:
    for task_id, words in commands(fleet[name]).items():
        at = next(n for n, word in enumerate(words) if word.startswith("jobs/"))
        assert (CHECKOUT / words[at]).is_file(), task_id
        options = parser("").parse_args(words[at + 1 :])
        assert options.config == "/srv/shop/nightrec.toml"


def test_the_search_for_settings_waits_for_no_night_and_goes_on_when_tried_again(fleet: dict[str, Any]) -> None:
    (task,) = fleet["nightrec_tuning"]["tasks"].values()
    assert (task["owner"], task["retries"], task["pool"]) == ("recommendations", 2, "default_pool") and task["doc"]
    assert (fleet["nightrec_tuning"]["params"]["minutes"]["type"]) == "integer"
    # The line is a command of nightrec with the options that it has.
    line = task["command"].split("nightrec tune ")[1]
    command = typer.main.get_command(app).commands["tune"]  # type: ignore[attr-defined]
    words = ["240" if word == "$MINUTES" else "2026-03-10" if word == "$NIGHT" else word for word in shlex.split(line)]
    given = command.make_context("tune", words).params
    assert (given["config"].name, given["minutes"], str(given["date"])[:10]) == ("$CONFIG", 240, "2026-03-10")


def test_the_daily_dag_is_the_night_of_the_pipeline(fleet: dict[str, Any]) -> None:
    tasks = fleet["nightrec_daily"]["tasks"]
    assert sorted(tasks) == sorted(stage.name for stage in NIGHT)
    done: set[str] = set()
    for name, task in tasks.items():
        assert set(task["upstream"]) <= done, name
        done.add(name)
    # Write, audit, publish: nothing is served that was not audited.
    assert "audit" in tasks["published_topk"]["upstream"]
    assert tasks["export"]["upstream"] == ["published_topk"]


def test_the_training_dag_is_the_training_of_the_pipeline(fleet: dict[str, Any]) -> None:
    steps = training(Ranker().past_cuts)
    lines = commands(fleet["nightrec_training"])
    assert sorted(lines) == sorted(step.label for step in steps)
    for step in steps:
        line = lines[step.label]
        assert line[line.index("--date") + 1] == "2026-03-10"
        # The job itself knows how far apart past nights lie, and passes over what is before the log.
        assert line[line.index("--date") + 2 :] == (["--cut", str(step.cut)] if step.cut else [])
    tasks = fleet["nightrec_training"]["tasks"]
    assert {"candidates_of_cut_2", "candidates_of_cut_1"} <= set(tasks["ranker_examples"]["upstream"])
    # A past cut is rebuilt by itself, and new factors come only with the ranker that was trained beside them.
    assert all(name.endswith("_of_cut_2") for name in tasks["candidates_of_cut_2"]["upstream"])
    assert "ranker_model" in tasks["als_item_factors"]["upstream"]
