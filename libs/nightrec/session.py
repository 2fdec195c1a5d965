"""The one Spark session builder, for jobs and tests alike."""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from nightrec import scratch
from nightrec.parent import jvm_dies_with_us

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from nightrec.config import Spark

# The longest address of a socket file that Linux takes, and what Spark makes of its folder.
_LONGEST, _SOCKET = 107, "/.01234567-89ab-cdef-0123-456789abcdef.sock"
_SOCKETS = "spark.python.unix.domain.socket.dir"
_WORKERS = "spark.python.daemon.module"

# Spark generates methods beyond the 8,000 bytes that the JVM compiles at all: cleaning took a third longer.
_COMPILED = "-XX:-DontCompileHugeMethods -XX:ReservedCodeCacheSize=512m"
# A night on two cores is over before the JVM's second compiler pays: left at its defaults it took 122 of 380 core
# seconds. It waits until code is ten times as hot, which a large log's loops soon are; one collector for few cores.
_ONE_MACHINE = " ".join(
    (
        "-XX:Tier4InvocationThreshold=50000",
        "-XX:Tier4MinInvocationThreshold=6000",
        "-XX:Tier4CompileThreshold=150000",
        "-XX:Tier4BackEdgeThreshold=400000",
        "-XX:+UseParallelGC",
    )
)


def class_archive() -> Path:
    """Where the set-up keeps Spark's classes, loaded and verified once (infra/setup/shared_classes.py)."""
    import pyspark

    return Path(pyspark.__file__).with_name("nightrec-classes.jsa")


def mapped_classes() -> str:
    """The options with which a JVM maps them; where it cannot it loads its classes and says nothing."""
    if not class_archive().exists():
        return ""
    return f'"-XX:SharedArchiveFile={class_archive()}" -Xlog:cds=off -Xlog:cds+dynamic=off'


def session(settings: Spark, name: str, *, warm: bool = False) -> SparkSession:
    """A session with Delta, UTC and partitions sized for the data; one that already runs (a test's) is reused.

    Under spark-submit the master and every setting given there win over the config's; Delta's jars lie in pyspark's
    jar folder (`make install`) or are named to spark-submit by `--packages`. `warm` is for sessions that run a whole
    night: see `nightrec.workers`.
    """
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    if warm:
        settings = settings.model_copy(update={"options": {_WORKERS: "nightrec.workers"} | settings.options})
    # Without this a worker with another Python fails only at the first Python function.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    submitted = _submitted()
    master = submitted.get("spark.master", settings.master)
    options = _options(settings, master)
    starts = SparkContext._active_spark_context is None
    if starts and "spark.local.dir" not in submitted:
        options = _aside(options, settings, master, is_submitted=bool(submitted))
    builder = SparkSession.builder.appName(name)
    for key, value in options.items():
        if key not in submitted:
            builder = builder.config(key, value)
    if not submitted:
        builder = builder.master(master)
    with ExitStack() as starting:
        if starts and not submitted:
            starting.enter_context(_temporary_files())
            starting.enter_context(jvm_dies_with_us())
        running = builder.getOrCreate()
    running.sparkContext.setLogLevel("FATAL")
    return running


def _submitted() -> dict[str, str]:
    """What spark-submit was told, by setting; empty where this process was not started by it.

    It starts the JVM first and passes its port on; the JVM's properties hold its settings.
    """
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        return {}
    from pyspark import SparkConf, SparkContext

    SparkContext._ensure_initialized()
    return dict(SparkConf().getAll())


def _options(settings: Spark, master: str) -> dict[str, str]:
    partitions = str(settings.partitions)
    options = {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": partitions,
        "spark.default.parallelism": partitions,
        # Left at 50, each small Delta operation runs a 50-task stage: 149 s against 42 s for eight operations.
        "spark.databricks.delta.snapshotPartitions": "1" if settings.partitions <= 16 else partitions,
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.ansi.enabled": "true",
        # Not Spark's 12 bytes of old: smaller, quicker to write (a tenth of cleaning), and what other readers expect.
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        # Its statistics took 1.6 of 3.5 core seconds per 500,000 raw lines and saved nothing beside spark.rdd.compress.
        "spark.sql.inMemoryColumnarStorage.compressed": "false",
        # Left on, PySpark tells the JVM from which line of Python each column is made: 1.4 ms a column instead of 1.0.
        "spark.python.sql.dataFrameDebugging.enabled": "false",
        "spark.executor.extraJavaOptions": f"{_COMPILED} {mapped_classes()}",
        # JVM and Python workers of a machine speak through a file, not a port. Of TCP connections between them two
        # stalled (Linux 6.18, TCPRcvQDrop): the kernel gave them up after 15 minutes, and the night was lost.
        "spark.python.unix.domain.socket.enabled": "true",
        # Not below the JVM's temporary folder: a file's path of over 107 bytes is no address, and YARN's containers
        # have longer ones. Only its owner can connect.
        _SOCKETS: "/tmp",
        _WORKERS: "nightrec.daemon",
        "spark.ui.enabled": str(settings.ui).lower(),
        "spark.ui.showConsoleProgress": "false",
        # Retries belong to the scheduler alone.
        "spark.yarn.maxAppAttempts": "1",
    }
    if master.startswith("local"):
        options |= {
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.memory": settings.driver_memory,
            "spark.driver.extraJavaOptions": f"{_ONE_MACHINE} {_COMPILED} {mapped_classes()}",
            # Generated code of all stages: past nights that are replayed for training need the same again.
            "spark.sql.codegen.cache.maxEntries": "2000",
            # One JVM: a task that waits for data on its own machine waits for nothing.
            "spark.locality.wait": "0s",
            # A first load names a file per ingest date: on one disk, listing them takes a job of as many tasks and 8 s.
            "spark.sql.sources.parallelPartitionDiscovery.threshold": "10000",
        }
    return options | settings.options


@cache
def _folder(root: str | None = None) -> Path:
    """This process's own folder in `root`, else among the temporary files."""
    return scratch.lasting(root)


def _aside(options: dict[str, str], settings: Spark, master: str, is_submitted: bool) -> dict[str, str]:
    """The options with which the driver's JVM, on one machine its Python workers too, write aside only in folders of
    this process: of one that is killed the next one removes them. Left to itself Spark forgets gigabytes in /tmp.

    Raises OSError where there is no room for them.
    """
    own, driver = _folder(), "spark.driver.extraJavaOptions"
    asked = os.environ.get("SPARK_LOCAL_DIRS") or options.get("spark.local.dir")
    spill = ",".join(str(_folder(root.strip())) for root in asked.split(",")) if asked else str(own)
    if is_submitted:  # the JVM is there: it has its environment, and is told the rest
        from pyspark import SparkContext

        SparkContext._jvm.java.lang.System.setProperty("java.io.tmpdir", str(own))  # type: ignore[union-attr]
    elif "SPARK_LOCAL_DIRS" in os.environ:
        os.environ["SPARK_LOCAL_DIRS"] = spill
    options = options | {driver: f'"-Djava.io.tmpdir={own}" {options.get(driver, "")}'}
    if not master.startswith("k8s"):  # there it names a volume of the executors; elsewhere they have their own
        options["spark.local.dir"] = spill
    if master.startswith("local"):
        is_short = len(os.fsencode(f"{own}{_SOCKET}")) <= _LONGEST
        workers = {_SOCKETS: str(own if is_short else _folder("/tmp")), "spark.executorEnv.TMPDIR": str(own)}
        options |= {name: value for name, value in workers.items() if name not in settings.options}
    return options


@contextmanager
def _temporary_files() -> Iterator[None]:
    """While a JVM is started PySpark's own temporary files lie in this process's folder too."""
    before, tempfile.tempdir = tempfile.tempdir, str(_folder())
    try:
        yield
    finally:
        tempfile.tempdir = before


def wake_workers(spark: SparkSession) -> None:
    """Start what the Python workers are forked from; it loads its libraries (5 s) while the session goes on."""

    def wake() -> None:
        with suppress(Exception):  # a session that ends meanwhile ends this too
            spark.range(1).mapInArrow(lambda batches: batches, "id long").count()

    threading.Thread(target=wake, daemon=True).start()
