"""How tests start Spark's own commands: from this environment, untouched by the session of the test run."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nightrec.session import mapped_classes

CHECKOUT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


# Java machines of one stage on tiny data: the second compiler would take half of their core seconds, loading and
# verifying classes a third of the rest.
_SHORT = f"-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=256m {mapped_classes()}"

# A night of a dozen users is over before generated code pays: interpreted it took 116 core seconds instead of 153. What
# expressions say is tested on generated code, in the session of the test run and by spark-submit.
INTERPRETED = {"spark.sql.codegen.wholeStage": "false", "spark.sql.codegen.factoryMode": "NO_CODEGEN"}

# Settings of another Spark, another Airflow or another nightrec must not leak into what a test starts.
_FOREIGN = ("SPARK", "PYSPARK", "AIRFLOW", "NIGHTREC")


def environment(*, is_compiled: bool = False, **more: str) -> dict[str, str]:
    """The variables of a person who has put .venv/bin on PATH, a JVM that starts quickly, and `more`.

    Spark compiles its expressions where `is_compiled`, else it interprets them.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    interpreted = [] if is_compiled else [f"-D{name}={value}" for name, value in INTERPRETED.items()]
    options = " ".join([_SHORT, *interpreted])
    return kept | {"PATH": path, "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_SUBMIT_OPTS": options} | more


def spark_submit(*words: str | Path, timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run spark-submit in the checkout, to its end."""
    return subprocess.run(
        ["spark-submit", *map(str, words)], cwd=CHECKOUT, env=environment(is_compiled=True), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


@dataclass(frozen=True)
class Cluster:
    """A running cluster: its address, the port on which its REST submission would listen, and the master's log."""

    master: str
    rest_port: int
    log: Path


@contextmanager
def standalone_cluster(folder: Path) -> Iterator[Cluster]:
    """A master and two workers of one core and 1 GiB each, separate processes on this machine; logs in `folder`."""
    rest_port = free_port()
    running: list[subprocess.Popen[bytes]] = []

    def start(name: str, *words: str | Path) -> Path:
        log = folder / f"{name}.log"
        daemon = "org.apache.spark.deploy." + ("master.Master" if name == "master" else "worker.Worker")
        more = environment(
            SPARK_DAEMON_MEMORY="256m",
            SPARK_DAEMON_JAVA_OPTS=_SHORT,
            # Left on, whoever reaches the REST port may run programs here without a password.
            SPARK_MASTER_OPTS=f"-Dspark.master.rest.enabled=false -Dspark.master.rest.port={rest_port}",
        )
        with log.open("wb") as out:
            where = ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0"]
            command = ["spark-class", daemon, *where, *map(str, words)]
            running.append(subprocess.Popen(command, env=more, stdout=out, stderr=out, stdin=subprocess.DEVNULL))
        return log

    try:
        log = start("master")
        master = wait_for(log, r"Starting Spark master at (spark://127\.0\.0\.1:\d+)")[1]
        for name in ("worker-1", "worker-2"):
            start(name, "--cores", "1", "--memory", "1g", "--work-dir", folder / name, master)
        wait_for(log, "Registering worker", times=2)
        yield Cluster(master, rest_port, log)
    finally:
        # Workers first: a worker that loses its master keeps trying for minutes.
        for process in reversed(running):
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait(timeout=30)


def wait_for(log: Path, pattern: str, times: int = 1, within_s: int = 60) -> re.Match[str]:
    """The first match of a pattern in a growing log once it is there so many times, else AssertionError."""
    for _ in range(10 * within_s):
        found = list(re.finditer(pattern, log.read_text())) if log.exists() else []
        if len(found) >= times:
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"no {pattern!r} in:\n{log.read_text()[-3000:]}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
