"""An Airflow that runs: scheduler, DAG processor and API server, asked over HTTP as its pages ask."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import processes
import yaml
from spark_commands import CHECKOUT, environment, free_port

AIRFLOW = CHECKOUT / ".venv-airflow/bin/airflow"
# What Airflow's pages are drawn from: its own lists of addresses.
_ADDRESSES = ".venv-airflow/lib/python3*/site-packages/airflow/api_fastapi/core_api/openapi/*.yaml"


@dataclass
class Airflow:
    """One Airflow in a folder of its own, for one deployment; running or not."""

    home: Path
    toml: Path
    port: int = field(default_factory=free_port)
    token: str = ""

    def variables(self) -> dict[str, str]:
        """The environment of every command: what the DAGs' own page names, on ports of this machine alone."""
        return environment(
            AIRFLOW_HOME=str(self.home), NIGHTREC_CONFIG=str(self.toml),
            AIRFLOW__CORE__DAGS_FOLDER=str(CHECKOUT / "airflow_dags"), AIRFLOW__CORE__LOAD_EXAMPLES="False",
            AIRFLOW__CORE__EXECUTION_API_SERVER_URL=f"http://127.0.0.1:{self.port}/execution/",
            AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS="True", AIRFLOW__CORE__PARALLELISM="2",
            # DAG files are read once, not every half minute beside the jobs.
            AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL="3600",
            # Only what is asked for runs, not also the night that the schedule has just closed.
            AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE="False",
            **{processes.MARK: f"airflow-{self.port}"},
        )  # fmt: skip

    def parts(self) -> dict[str, list[str]]:
        """Airflow's processes. Logs are read where they lie: the scheduler's own server of them hears strangers too."""
        return {
            "api-server": ["--host", "127.0.0.1", "--port", str(self.port)], "dag-processor": [],
            "scheduler": ["--skip-serve-logs"],
        }  # fmt: skip

    def command(self, *words: str) -> str:
        """Run a command of Airflow's; its output where it ends well."""
        ended = subprocess.run(
            [AIRFLOW, *words], env=self.variables(), cwd=self.home, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=300, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, f"airflow {' '.join(words)}\n{(ended.stdout + ended.stderr)[-6000:]}"
        return ended.stdout + ended.stderr

    def set_up(self) -> None:
        """What the DAGs' own page names."""
        self.command("db", "migrate")
        self.command("pools", "set", "nightrec_warehouse", "1", "one writer per warehouse")
        self.command("connections", "add", "spark_default", "--conn-type", "spark", "--conn-host", "local[2]")

    @contextmanager
    def started(self) -> Iterator[Airflow]:
        """Airflow's three processes, until the block ends; what they say is in PART.said of its folder."""
        running = []
        try:
            for part, words in self.parts().items():
                with (self.home / f"{part}.said").open("wb") as out:
                    command = [AIRFLOW, part, *words]
                    running.append(subprocess.Popen(
                        command, env=self.variables(), cwd=self.home, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                    ))  # fmt: skip
            self.token = self.awaited("/auth/token")["access_token"]
            yield self
        finally:
            for process in reversed(running):
                process.terminate()
            for process in running:
                process.wait(timeout=60)
            assert not processes.alive(f"airflow-{self.port}")

    def ask(self, where: str, body: dict[str, Any] | None = None, method: str | None = None) -> str:
        """The answer to a request; HTTPError where Airflow refuses it."""
        asked = Request(
            f"http://127.0.0.1:{self.port}{where}", None if body is None else json.dumps(body).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"}, method=method,
        )  # fmt: skip
        with urlopen(asked, timeout=60) as answer:
            return str(answer.read().decode())

    def awaited(self, where: str, within_s: float = 120) -> dict[str, Any]:
        """The first answer to a request that is refused until Airflow is up and knows its DAGs."""
        deadline = time.monotonic() + within_s
        while True:
            with suppress(OSError):
                return dict(json.loads(self.ask(where)))
            said = "".join((self.home / f"{part}.said").read_text()[-1500:] for part in self.parts())
            assert time.monotonic() < deadline, f"no answer from {where}:\n{said}"
            time.sleep(0.5)

    def run(self, dag: str, params: dict[str, str], within_s: float = 900) -> dict[str, Any]:
        """Trigger a DAG as its page's button does, and wait until that run has ended: the run as Airflow tells it."""
        self.awaited(f"/api/v2/dags/{dag}/details")
        self.ask(f"/api/v2/dags/{dag}", {"is_paused": False}, "PATCH")
        run = json.loads(self.ask(f"/api/v2/dags/{dag}/dagRuns", {"logical_date": None, "conf": params}))
        deadline = time.monotonic() + within_s
        while run["state"] in ("queued", "running") and time.monotonic() < deadline:
            time.sleep(1)
            run = json.loads(self.ask(f"/api/v2/dags/{dag}/dagRuns/{quote(run['dag_run_id'])}"))
        return dict(run)

    def pages(self, dag: str, run: str) -> dict[str, str]:
        """Every answer that Airflow gives about a run: each address of its own lists, filled with the run's names."""
        tasks = json.loads(self.ask(f"/api/v2/dags/{dag}/tasks"))["tasks"]
        names = {"dag_id": dag, "dag_run_id": run, "run_id": run, "map_index": "-1", "try_number": "1",
                 "task_try_number": "1", "version_number": "1", "xcom_key": "return_value",
                 "pool_name": "nightrec_warehouse", "connection_id": "spark_default", "event_log_id": "1"}  # fmt: skip
        found: dict[str, str] = {}
        for address in _addresses():
            for task in [one["task_id"] for one in tasks] if "{task_id}" in address else [""]:
                filled = {**names, "task_id": task}
                if set(re.findall(r"{(\w+)}", address)) <= filled.keys():
                    where = address.format_map({name: quote(value, safe="") for name, value in filled.items()})
                    # As many rows as there are; and what the lists of this DAG's runs and tasks want to be asked for.
                    asked = f"{where}?limit=1000&dag_id={dag}&run_ids={quote(run, safe='')}&interval=1"
                    with suppress(HTTPError):
                        found[where] = self.ask(asked)
        return found

    def kept(self) -> dict[str, str]:
        """What Airflow holds of its runs: each file of its folder, its database, logs and what it said among them."""
        return {str(file.relative_to(self.home)): file.read_bytes().decode(errors="replace")
                for file in self.home.rglob("*") if file.is_file()}  # fmt: skip


def _addresses() -> list[str]:
    """All that can be read of Airflow over HTTP, but what would end the reader's session."""
    files = [yaml.load(file.read_text(), yaml.CSafeLoader) for file in CHECKOUT.glob(_ADDRESSES)]
    assert len(files) == 2, "Airflow keeps its lists of addresses elsewhere"
    return sorted(address for each in files for address, verbs in each["paths"].items()
                  if "get" in verbs and "/auth/log" not in address)  # fmt: skip
