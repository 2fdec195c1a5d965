"""Run a function in Horovod processes on the session's own executors: one Spark barrier task per process.

The processes find each other through Horovod's own rendezvous server, which trusts whoever reaches it
(CVE-2024-10190). It is bound here to the driver's address alone, 127.0.0.1 in local mode; on a cluster that must be a
private interface. `horovod.spark.run` binds every interface, and starts two more Python processes per rank: 18 s in a
warm local[2] session against 1.5 s for this (single runs on a busy machine).

Each process has a line to the driver (lifeline.py), on which it tells what it fails of and that it gets on. A process
that dies is named within seconds; where none gets on until the deadline, all are ended and the one that hangs is named.
"""

from __future__ import annotations

import json
import os
import pickle
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from nightrec.errors import TrainingFailed, UsageError
from nightrec.lifeline import Address, End, Line, Watch

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

T = TypeVar("T")


def on_executors(
    spark: SparkSession,
    function: Callable[[], T],
    processes: int,
    start_timeout_s: int,
    deadline_s: float | None = None,
) -> list[T]:
    """Call `function` in `processes` Horovod processes at once; their results, by rank. See `over_partitions`."""
    rows = spark.range(0, processes, 1, processes)
    return over_partitions(rows, lambda batches: _after(batches, function), processes, start_timeout_s, deadline_s)


def _after(batches: Iterator[pa.RecordBatch], function: Callable[[], T]) -> T:
    for _ in batches:
        pass
    return function()


def over_partitions(
    rows: DataFrame,
    function: Callable[[Iterator[pa.RecordBatch]], T],
    processes: int,
    start_timeout_s: int,
    deadline_s: float | None = None,
) -> list[T]:
    """Call `function` on the batches of each of `rows`'s partitions, `processes` of them, in as many Horovod processes.

    The results, by rank; they pass through the driver. A rank is not the number of its partition: which rank a process
    got, it asks Horovod. All are ended where none of them has got on (lifeline.progress) for `deadline_s`.
    Works wherever barrier tasks do: local, standalone, YARN, Kubernetes; not with dynamic allocation. Spark starts all
    ranks or none and ends all when one dies. Raises UsageError where the session has too few task slots, the first
    failing rank's NightrecError as it is, and TrainingFailed where a rank failed otherwise, died or hung; what each of
    them told is printed on the driver's standard error. None of them lives on then.
    """
    spark = rows.sparkSession
    _await_slots(spark, processes, start_timeout_s)
    tag = f"nightrec-training-{secrets.token_hex(8)}"
    context = spark.sparkContext
    watch = Watch(_bound(spark), processes, deadline_s, lambda: context.cancelJobsWithTag(tag))
    with watch, _rendezvous(spark) as address:
        end = watch.end_for(address[0])

        def rank(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            number, result = _run_rank(lambda: function(batches), address, end, start_timeout_s)
            yield pa.RecordBatch.from_pydict({"rank": [number], "result": [result]})

        # Through Arrow, not as an RDD: an RDD's workers come from a second parent, which would load torch again (6 s).
        ranks = rows.mapInArrow(rank, "rank long, result binary", barrier=True)
        context.addJobTag(tag)
        try:
            found, unexplained = ranks.toArrow().to_pylist(), None
        except Exception as error:
            found = []
            unexplained = TrainingFailed(f"a training process died: {_cause(error)}; see that executor's log")
        finally:
            context.removeJobTag(tag)
            watch.settle()
    if failed := watch.error() or unexplained:
        print(watch.report(), end="", file=sys.stderr, flush=True)
        raise failed
    results: dict[int, T] = {row["rank"]: pickle.loads(row["result"]) for row in found}
    return [results[number] for number in range(processes)]


def from_first_of_host(value: T) -> T:
    """What the first process (local rank 0) of this process's host gave as `value`; all processes of the job take part.

    Hosts are told apart by name, as ranks are dealt: Horovod's cross rank counts the hosts of each local rank anew, so
    the processes of one host differ in it where hosts have unlike numbers of them.
    """
    import horovod.torch as hvd

    host = socket.gethostname()
    told: list[tuple[str, int, T]] = hvd.allgather_object((host, hvd.local_rank(), value))
    return next(given for name, local_rank, given in told if (name, local_rank) == (host, 0))


def _await_slots(spark: SparkSession, processes: int, timeout_s: int) -> None:
    """Wait until the session can run all ranks at once; executors of a cluster may still be on their way."""
    java: Any = spark.sparkContext._jsc.sc()
    profile = java.resourceProfileManager().defaultResourceProfile()
    waits = str(spark.sparkContext.master).split("[")[0] != "local"
    deadline = time.monotonic() + timeout_s
    while (slots := java.maxNumConcurrentTasks(profile)) < processes:
        if not waits or time.monotonic() > deadline:
            raise UsageError(
                f"horovod.processes = {processes}, but the session on {spark.sparkContext.master} has {slots} task "
                f"slots{f' after {timeout_s} s' if waits else ''}; give it more executor cores or set "
                "horovod.processes lower"
            )
        time.sleep(0.5)


def _bound(spark: SparkSession) -> str:
    """The driver's address on which it listens for executors."""
    conf = spark.sparkContext.getConf()
    return conf.get("spark.driver.bindAddress") or conf.get("spark.driver.host") or "127.0.0.1"


@contextmanager
def _rendezvous(spark: SparkSession) -> Iterator[Address]:
    """Horovod's rendezvous server on the address by which executors reach the driver, and a free port."""
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    host = spark.sparkContext.getConf().get("spark.driver.host") or "127.0.0.1"
    server = RendezvousHTTPServer((_bound(spark), 0), RendezvousHandler, 0)
    server.init([])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield socket.gethostbyname(host), server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _run_rank(
    function: Callable[[], Any], address: Address, end: End, timeout_s: int
) -> tuple[int, bytes | None]:
    """One rank, inside its barrier task: join the others, call the function, part from them whatever happened. Its
    number and its result, pickled; None where it has told the driver of what it failed."""
    environment = _environment(address, timeout_s)
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    rank = int(environment["HOROVOD_RANK"])
    line = Line(end, rank)
    try:
        import horovod.torch as hvd
        from horovod.common.exceptions import HorovodInternalError

        with _patient():
            try:
                # Before the data is read: a rank that fails to read can then tell the others by leaving.
                hvd.init()
                return rank, pickle.dumps(function())
            except Exception as error:
                line.failed(error, isinstance(error, HorovodInternalError))
                return rank, None
            finally:
                hvd.shutdown()
    finally:
        line.close()
        # Spark keeps the Python process for later tasks.
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


@contextmanager
def _patient() -> Iterator[None]:
    """Threads begun in here do not push others off their core when they wake (SCHED_BATCH).

    gloo yields in a loop until the thread that woke it lets go of a buffer: woken on that thread's core, it keeps it
    from doing so. Two processes on two cores trained a network in 27 s, of 65 core seconds 32 in the kernel; like this
    in 18 s, of 44 core seconds 13. Where a sandbox does not permit it, all stays as it is.
    """
    before = os.sched_getscheduler(0)
    if before != os.SCHED_OTHER:
        yield
        return
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setscheduler(0, before, os.sched_param(0))


def _environment(address: Address, timeout_s: int) -> dict[str, str]:
    """What Horovod's own launcher would set: the rendezvous, the network interface, and this task's ranks."""
    from horovod.runner.common.util.hosts import HostInfo, get_host_assignments
    from pyspark import BarrierTaskContext

    task = BarrierTaskContext.get()
    hosts: list[str] = [json.loads(told) for told in task.allGather(json.dumps(socket.gethostname()))]
    host = hosts[task.partitionId()]
    plan = get_host_assignments([HostInfo(name, hosts.count(name)) for name in sorted(set(hosts))], len(hosts))
    local_rank = hosts[: task.partitionId()].count(host)
    slot = next(slot for slot in plan if (slot.hostname, slot.local_rank) == (host, local_rank))
    return {
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": address[0],
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(address[1]),
        "HOROVOD_GLOO_IFACE": _interface(address),
        "HOROVOD_GLOO_TIMEOUT_SECONDS": str(timeout_s),
        "HOROVOD_HOSTNAME": host,
        "HOROVOD_RANK": str(slot.rank),
        "HOROVOD_SIZE": str(slot.size),
        "HOROVOD_LOCAL_RANK": str(slot.local_rank),
        "HOROVOD_LOCAL_SIZE": str(slot.local_size),
        "HOROVOD_CROSS_RANK": str(slot.cross_rank),
        "HOROVOD_CROSS_SIZE": str(slot.cross_size),
    }


def own_address() -> str:
    """The address of a process of the running job by which the others reach it."""
    return _own(os.environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"])


def _own(other: str) -> str:
    """This machine's address on its way to another: 127.0.0.1 to itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((other, 9))  # sends nothing, whatever the port
        found: str = probe.getsockname()[0]
    return found


def _interface(address: Address) -> str:
    """Name of the network interface by which this machine reaches an address: lo for 127.0.0.1."""
    import psutil  # type: ignore[import-untyped]

    own = _own(address[0])
    interfaces: dict[str, list[Any]] = psutil.net_if_addrs()
    return next(name for name, known in interfaces.items() if any(one.address == own for one in known))


def _cause(error: Exception) -> str:
    """The telling sentence of Spark's report of a failed barrier stage: its innermost exception."""
    lines = [line.strip() for line in str(error).splitlines()]
    causes = [line.split("SparkException: ")[1] for line in lines if "SparkException: " in line]
    return (causes[-1:] or lines or [type(error).__name__])[0].split(". ")[0]
