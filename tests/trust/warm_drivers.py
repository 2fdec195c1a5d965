"""Drivers that may be killed by the dozen: each is a real process of its own, but its imports and its JVM are warm.

A `nightrec run` from nothing costs 20 core seconds before its first row: Python's imports, a JVM, the JVM's compiler.
Here one server process imports everything and starts one JVM, as spark-submit does; every driver is a fork of it that
calls the command line's own `main`. SIGKILL ends such a driver as it ends any other; what differs is that its JVM and
Python workers live on for the next one, so tests of a whole tree of processes use `nightrec run` and spark-submit.

    with WarmDrivers(folder) as drivers:
        ended = drivers.run("run", "--config", toml, "--date", night, NIGHTREC_FAILPOINT="export.before_rename:kill")
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]


@dataclass(frozen=True)
class Ended:
    """How one driver ended: its exit code (minus the signal's number where one ended it), what it said, seconds."""

    code: int
    said: str
    seconds: float

    @property
    def was_killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.code == -signal.SIGKILL


class WarmDrivers:
    """A server of drivers. `memory`: of its JVM."""

    def __init__(self, folder: Path, mark: str = "warm", memory: str = "2g") -> None:
        from spark_commands import environment  # the server is this file too, and needs nothing of the tests

        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._count = folder, 0
        variables = environment(NIGHTREC_RUN_MARK=mark, PYTHONUNBUFFERED="1")
        self._log = (folder / "server.log").open("ab")
        self._server = subprocess.Popen(
            [sys.executable, str(HERE / "warm_drivers.py"), memory], env=variables, cwd=CHECKOUT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
        )  # fmt: skip

    def run(
        self, *words: str | Path, code: str = "", in_workers: bool = False, timeout: float = 300, **environment: str
    ) -> Ended:
        """Run `nightrec WORDS` in a driver to its end. `code` is Python that the driver executes first; `in_workers`
        has the environment reach its Python workers too, which then are new ones (8 s)."""
        self._count += 1
        self._said = self._folder / f"driver-{self._count:03d}.txt"
        self._started = time.monotonic()
        order = {
            "words": [str(word) for word in words], "code": code, "environment": environment, "said": str(self._said),
            "in_workers": in_workers, "timeout": timeout,
        }  # fmt: skip
        self._tell(order)
        code = int(self._hear()["code"])
        return Ended(code, self._said.read_text(encoding="utf-8", errors="replace"), time.monotonic() - self._started)

    def _tell(self, order: dict[str, Any]) -> None:
        assert self._server.stdin
        self._server.stdin.write(json.dumps(order).encode() + b"\n")
        self._server.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        assert self._server.stdout
        line = self._server.stdout.readline()
        if not line:
            raise AssertionError(f"the server of drivers is gone: {(self._folder / 'server.log').read_text()[-3000:]}")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def __enter__(self) -> WarmDrivers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server.stdin
        self._server.stdin.close()
        self._server.wait(timeout=60)
        self._log.close()


def serve(memory: str) -> None:
    """Import, start the JVM, then fork a driver per line of standard input."""
    from importlib import import_module

    from pyspark import SparkConf, SparkContext
    from pyspark.java_gateway import launch_gateway

    from nightrec import scratch

    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints is no answer
    # Not a driver's: it may be killed, and the JVM lives on.
    aside = scratch.lasting()
    conf = SparkConf(loadDefaults=False)
    for key, value in {
        "spark.master": "local[2]", "spark.driver.memory": memory, "spark.python.daemon.module": "nightrec.workers",
        "spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.extraJavaOptions": f"-XX:+UseSerialGC -Djava.io.tmpdir={aside}", "spark.local.dir": str(aside),
    }.items():  # fmt: skip
        conf.set(key, value)
    gateway = launch_gateway(conf)
    os.environ |= {
        "PYSPARK_GATEWAY_PORT": str(gateway.java_parameters.port),
        "PYSPARK_GATEWAY_SECRET": gateway.java_parameters.auth_token,
        "PYSPARK_PYTHON": sys.executable,
    }
    from nightrec.pipeline import STAGES

    for module in ("cli", "runner", "report.night", "hindsight", "workers"):
        import_module(f"nightrec.{module}")
    for stage in STAGES:
        import_module(f"nightrec_jobs.{stage.name}")
    assert SparkContext._gateway is None
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            _drive(order)
        code = _awaited(child, order["timeout"])
        _end_jobs(gateway)
        answers.write(json.dumps({"code": code}).encode() + b"\n")
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait(timeout=30)


def _awaited(child: int, timeout: float) -> int:
    """Exit code of a driver, which is killed after `timeout` seconds (code 124)."""
    deadline = time.monotonic() + timeout
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return 124
        time.sleep(0.02)


def _active(jvm: Any) -> Any:
    """The JVM's running Spark context as an Option."""
    return getattr(getattr(jvm.org.apache.spark, "SparkContext$"), "MODULE$").getActive()


def _end_jobs(gateway: Any) -> None:
    """What a driver's JVM would do by dying too: end its jobs and forget what they cached."""
    if _active(gateway.jvm).isDefined():
        _active(gateway.jvm).get().cancelAllJobs()
        sessions = getattr(getattr(gateway.jvm.org.apache.spark.sql.classic, "SparkSession$"), "MODULE$")
        if sessions.getDefaultSession().isDefined():
            sessions.getDefaultSession().get().catalog().clearCache()


def _attach(of_workers: dict[str, str]) -> None:
    """Take over the Spark context of the driver before: its Python workers have their libraries loaded (8 s)."""
    from pyspark import SparkConf, SparkContext

    SparkContext._ensure_initialized()
    jvm: Any = SparkContext._jvm
    active = _active(jvm)
    if active.isDefined():
        context = active.get()
        SparkContext(conf=SparkConf(_jconf=context.conf()), jsc=jvm.JavaSparkContext.fromSparkContext(context))
        SparkContext._active_spark_context.environment.update(of_workers)  # type: ignore[union-attr]
    SparkContext.stop = lambda self: None  # type: ignore[method-assign]


def _drive(order: dict[str, Any]) -> None:
    """The driver's life, in the fork: the command line's main."""
    os.environ |= order["environment"]
    os.chdir(Path(order["said"]).parent)  # where a failure's trace is put
    said = os.open(order["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.argv = ["nightrec", *order["words"]]
    code = 1
    try:
        _attach(order["environment"] if order["in_workers"] else {})
        exec(order["code"], {})
        from nightrec.cli import main

        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
