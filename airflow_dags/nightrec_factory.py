"""What the DAG files share: stages of `nightrec.pipeline` as spark-submit tasks, joined by what they read and write.

Set-up of an Airflow that runs them (its own environment: `make airflow-install`):

    spark-submit and nightrec on the PATH of the workers, from the jobs' environment (PATH=.../.venv/bin:$PATH)
    airflow connections add spark_default --conn-type spark --conn-host 'local[*]'   (or spark://host:7077, yarn ...)
    airflow pools set nightrec_warehouse 1 'one writer per warehouse'
    NIGHTREC_CONFIG=/path/of/the/deployment/nightrec.toml in the environment of scheduler, DAG processor and workers

Reading a DAG file opens no connection. The training DAG's tasks follow from the deployment's `ranker` section, so that
one local file is read then.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, CronDataIntervalTimetable, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from nightrec.config import Ranker
from nightrec.pipeline import Stage, Step

CHECKOUT = Path(__file__).resolve().parents[1]
CONFIG = os.environ.get("NIGHTREC_CONFIG") or str(CHECKOUT / "var/demo/nightrec.toml")
# Two writers on one warehouse: the second is refused. In this pool of one slot it waits instead.
POOL = "nightrec_warehouse"
DEFAULTS = {"owner": "recommendations", "retries": 2, "retry_delay": timedelta(minutes=5), "pool": POOL}
# The night of a run: the parameter, else the day whose data interval the schedule closed.
NIGHT = "night(params.date, logical_date | default(none))"


class _FailsForGood:
    """No retry mends exit codes 2 (usage), 3 (bad input), 4 (audit refused): such a task fails at once."""

    def execute(self, context: Any) -> None:
        """Run it; an outside failure (exit code 1) is retried as the DAG says."""
        try:
            super().execute(context)  # type: ignore[misc]  # of the operator beside it
        except AirflowException as error:
            if re.search(r"(Error code is:|exit code) [234]\b", str(error)):
                raise AirflowFailException(str(error)) from None
            raise


class NightrecJob(_FailsForGood, SparkSubmitOperator):
    """A spark-submit."""


class NightrecCommand(_FailsForGood, BashOperator):
    """A command of `nightrec`, which starts Spark itself as the deployment's `spark` section says."""


def night(asked: str | None, logical_date: datetime | None) -> str:
    """The night a run is for, as YYYY-MM-DD. Raises where a run by hand names neither."""
    if asked:
        return date.fromisoformat(asked).isoformat()
    if logical_date is None:
        raise AirflowFailException("this run has no logical date: set the parameter `date` to the night wanted")
    return logical_date.date().isoformat()


def deployment_dag(
    name: str, cron: str, doc: str, fixed_config: bool = False, more: Mapping[str, Param] | None = None
) -> DAG:
    """A DAG with the parameters of every run, the deployment's TOML and the night, and `more`.

    With `fixed_config` a run may not name another TOML than the one its tasks were made from.
    """
    config: dict[str, Any] = {"const": CONFIG} if fixed_config else {"pattern": r"\.toml$"}
    return DAG(
        name,
        # The run of 02:00 tomorrow is for today: its logical date is the start of the day it closes.
        schedule=CronDataIntervalTimetable(cron, timezone="UTC"),
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        default_args=DEFAULTS,
        tags=["nightrec"],
        doc_md=doc,
        params={
            "config": Param(CONFIG, type="string", title="Deployment", description="its nightrec.toml", **config),
            "date": Param(
                None,
                type=["null", "string"],
                format="date",
                title="Night",
                description="YYYY-MM-DD; empty: the day that the schedule has just closed",
            ),
            **(more or {}),
        },
        user_defined_macros={"night": night},
    )


def spark_job(stage: Stage, label: str = "", cut: int = 0) -> NightrecJob:
    """One stage as a task. `cut`: for the past night of that number before the training as of the night; the job knows
    its date, and does nothing where the log begins too late for the training to learn from it."""
    day = f"{{{{ {NIGHT} }}}}"
    return NightrecJob(
        task_id=label or stage.name,
        name=f"nightrec {label or stage.name} {day}",
        application=str(CHECKOUT / "jobs" / f"{stage.name}.py"),
        application_args=["--config", "{{ params.config }}", "--date", day, *(["--cut", str(cut)] if cut else [])],
        conn_id="spark_default",
        # Retries belong to Airflow alone.
        conf={"spark.yarn.maxAppAttempts": "1"},
        doc_md=f"{stage.about}\n\nreads {_listed(stage.reads)}\n\nwrites {_listed(stage.writes)}",
    )


def nightly_tasks(stages: Sequence[Stage]) -> None:
    """A task per stage, after every stage that writes what it reads."""
    tasks = {stage.name: spark_job(stage) for stage in stages}
    for stage in stages:
        for earlier in stages[: stages.index(stage)]:
            if set(earlier.writes) & set(stage.reads):
                tasks[earlier.name] >> tasks[stage.name]


def training_tasks(steps: Sequence[Step]) -> None:
    """A task per step of a training: each past cut by itself, then what learns from all of them, in order.

    The new item factors come last: no night finds them beside a ranker of an earlier training.
    """
    tasks = [spark_job(step.stage, step.label, step.cut) for step in steps]
    for n, step in enumerate(steps):
        for task, earlier in zip(tasks[:n], steps[:n], strict=True):
            feeds = set(earlier.stage.writes) & set(step.stage.reads) and step.cut in (0, earlier.cut)
            if feeds or (not step.cut and not earlier.cut):
                task >> tasks[n]


def minutes(default: int) -> Param:
    """How long a task may go on beginning new work."""
    return Param(default, type="integer", minimum=1, title="Minutes", description="no trial is begun after these")


def tuning_task() -> NightrecCommand:
    """The search for settings. Not in the warehouse's pool: it has one of its own, and nights go on beside it."""
    return NightrecCommand(
        task_id="tune",
        # As variables: no character of a path is the shell's to read.
        bash_command='nightrec tune --config "$CONFIG" --date "$NIGHT" --minutes "$MINUTES"',
        env={"CONFIG": "{{ params.config }}", "NIGHT": f"{{{{ {NIGHT} }}}}", "MINUTES": "{{ params.minutes }}"},
        append_env=True,
        pool="default_pool",
        doc_md="search for settings by what the lists would have been worth; writes `tuned.toml`",
    )


def past_cuts() -> int:
    """How many the deployment's `ranker` section asks for; the default where its TOML cannot be read: its jobs will say
    so."""
    try:
        settings = tomllib.loads(Path(CONFIG).read_text(encoding="utf-8")).get("ranker", {})
        return Ranker.model_validate(settings).past_cuts
    except (OSError, ValueError):
        return Ranker().past_cuts


def flow(stages: Sequence[Stage]) -> str:
    """The stages as a Markdown table, for the page of a DAG."""
    lines = [f"| {s.name} | {s.about} | {_listed(s.reads)} | {_listed(s.writes)} |" for s in stages]
    return "\n".join(["| stage | what it does | reads | writes |", "|---|---|---|---|", *lines])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
