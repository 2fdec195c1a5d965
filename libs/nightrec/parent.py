"""A process of ours ends with the one that started it: Linux is asked to see to it."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """Ask Linux to end this process when the one that started it dies.

    Without it the Python driver of a killed spark-submit lives on and keeps executing (seen for 8 s and more).
    """
    death_signal(signal.SIGKILL)
    if sys.platform == "linux" and "AIRFLOW_CTX_TASK_ID" in os.environ and "PYSPARK_GATEWAY_PORT" in os.environ:
        threading.Thread(target=_end_with_task, args=(os.getppid(),), daemon=True).start()


def death_signal(sent: int) -> None:
    """Have Linux send this signal when the thread that started this process ends; 0 takes it back."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, sent)


@contextmanager
def jvm_dies_with_us() -> Iterator[None]:
    """While PySpark starts a JVM: Linux is asked to end it when this process dies.

    Left to itself it hears that its input has ended, and stops in order: one of 21 killed drivers, on a machine with
    other work, left it alive for over 10 s. Only in the main thread: Linux looks at the thread that started it.
    """
    from pyspark import java_gateway

    gateway: Any = java_gateway  # it takes settings for the new process, but not what that does first
    plain = gateway.Popen

    def popen(command: Sequence[str], *, preexec_fn: Callable[[], object], **more: Any) -> Any:
        def prepare() -> None:
            preexec_fn()
            death_signal(signal.SIGKILL)

        return plain(command, preexec_fn=prepare, **more)

    if _LIBC is not None and threading.current_thread() is threading.main_thread():
        gateway.Popen = popen
    try:
        yield
    finally:
        gateway.Popen = plain


def _end_with_task(jvm: int) -> None:
    """End spark-submit's JVM, and so this driver, when the Airflow task that started it is gone.

    Airflow ends what a task has started where it stops the task itself; a task process that is killed takes nothing
    with it: its spark-submit held the warehouse on and the retry was refused.
    """
    task = _parent(jvm)
    while task > 1 and _parent(jvm) == task:
        time.sleep(1)
    os.kill(jvm, signal.SIGTERM)
    time.sleep(5)
    os.kill(jvm, signal.SIGKILL)


def _parent(process: int) -> int:
    """Id of the process that started another one, or has taken it over from a dead one."""
    return int(Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[1])
