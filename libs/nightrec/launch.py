"""Run a function in Horovod processes on the session's own executors: one Spark barrier task per process.

The processes find each other through Horovod's own rendezvous server, which trusts whoever reaches it
(CVE-2024-10190). It is bound here to the driver's address alone, 127.0.0.1 in local mode; on a cluster that must be a
private interface. `horovod.spark.run` binds every interface, and starts two more Python processes per rank: 18 s in a
warm local[2] session against 1.5 s for this (single runs on a busy machine).
"""

from __future__ import annotations

import json
import os
import pickle
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from nightrec.errors import NightrecError, UsageError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

T = TypeVar("T")
Address = tuple[str, int]


@dataclass(frozen=True)
class _Failure:
    """Why a rank gave up: its own error, or that another rank had gone (`of_another`)."""

    trace: str
    told: NightrecError | None
    of_another: bool


def on_executors(spark: SparkSession, function: Callable[[], T], processes: int, start_timeout_s: int) -> list[T]:
    """Call `function` in `processes` Horovod processes at once; their results, by rank. See `over_partitions`."""
    rows = spark.range(0, processes, 1, processes)
    return over_partitions(rows, lambda batches: _after(batches, function), processes, start_timeout_s)


def _after(batches: Iterator[pa.RecordBatch], function: Callable[[], T]) -> T:
    for _ in batches:
        pass
    return function()


def over_partitions(
    rows: DataFrame, function: Callable[[Iterator[pa.RecordBatch]], T], processes: int, start_timeout_s: int
) -> list[T]:
    """Call `function` on the batches of each of `rows`'s partitions, `processes` of them, in as many Horovod processes.

    The results, by rank; they pass through the driver. A rank is not the number of its partition: which rank a process
    got, it asks Horovod.
    Works wherever barrier tasks do: local, standalone, YARN, Kubernetes; not with dynamic allocation. Spark starts all
    ranks or none and ends all when one dies. Raises UsageError where the session has too few task slots, the first
    failing rank's NightrecError as it is, and any other failure as a NightrecError that holds the rank's traceback.
    """
    spark = rows.sparkSession
    _await_slots(spark, processes, start_timeout_s)
    with _rendezvous(spark) as address:

        def rank(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            number, result = _run_rank(lambda: function(batches), address, start_timeout_s)
            yield pa.RecordBatch.from_pydict({"rank": [number], "result": [pickle.dumps(result)]})

        # Through Arrow, not as an RDD: an RDD's workers come from a second parent, which would load torch again (6 s).
        ranks = rows.mapInArrow(rank, "rank long, result binary", barrier=True)
        try:
            found = ranks.toArrow().to_pylist()
        except Exception as error:
            raise NightrecError(f"a training process died: {_cause(error)}; see that executor's log") from None
    results: dict[int, Any] = {row["rank"]: pickle.loads(row["result"]) for row in found}
    failures = {number: result for number, result in sorted(results.items()) if isinstance(result, _Failure)}
    if failures:
        number, first = min(failures.items(), key=lambda item: (item[1].of_another, item[0]))
        raise first.told or NightrecError(f"training process {number} of {processes} failed:\n{first.trace}")
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


@contextmanager
def _rendezvous(spark: SparkSession) -> Iterator[Address]:
    """Horovod's rendezvous server on the address by which executors reach the driver, and a free port."""
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    conf = spark.sparkContext.getConf()
    host = conf.get("spark.driver.host") or "127.0.0.1"
    server = RendezvousHTTPServer((conf.get("spark.driver.bindAddress") or host, 0), RendezvousHandler, 0)
    server.init([])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield socket.gethostbyname(host), server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _run_rank(function: Callable[[], Any], address: Address, timeout_s: int) -> tuple[int, Any]:
    """One rank, inside its barrier task: join the others, call the function, part from them whatever happened."""
    environment = _environment(address, timeout_s)
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    rank = int(environment["HOROVOD_RANK"])
    try:
        import horovod.torch as hvd
        from horovod.common.exceptions import HorovodInternalError

        try:
            # Before the data is read: a rank that fails to read can then tell the others by leaving.
            hvd.init()
            return rank, function()
        except Exception as error:
            told = error if isinstance(error, NightrecError) else None
            return rank, _Failure(traceback.format_exc(), told, isinstance(error, HorovodInternalError))
        finally:
            hvd.shutdown()
    finally:
        # Spark keeps the Python process for later tasks.
        for name, value in before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


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
