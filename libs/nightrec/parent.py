"""A process of ours ends with the one that started it: Linux is asked to see to it."""

import ctypes
import os
import signal
import sys
import threading
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask Linux to end this process when the one that started it dies.

    Without it the Python driver of a killed spark-submit lives on and keeps executing (seen for 8 s and more).
    """
    death_signal(signal.SIGKILL)
    if sys.platform == "linux" and "AIRFLOW_CTX_TASK_ID" in os.environ and "PYSPARK_GATEWAY_PORT" in os.environ:
        threading.Thread(target=_end_with_task, args=(os.getppid(),), daemon=True).start()


def death_signal(sent: int) -> None:
    """Have Linux send this signal when the thread that started this process ends; 0 takes it back."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, sent)


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
