"""The parent of Spark's Python workers: PySpark's, but a worker that the JVM no longer needs ends without a word.

Spark closes the line of workers that were idle for a minute. Each then tries to say that it met the end of its input,
finds nobody there, and would print a traceback of that among what people read.
"""

from __future__ import annotations

from contextlib import suppress
from socket import socket

from pyspark import daemon

_worker = daemon.worker


def worker(sock: socket, authenticated: bool) -> int:
    """PySpark's, at its end of the line to the JVM; its exit code."""
    with suppress(BrokenPipeError):
        return _worker(sock, authenticated)
    return 1


def manager() -> None:
    """Fork a worker for each line that the JVM opens, until the JVM closes the input."""
    daemon.worker = worker
    daemon.manager()


if __name__ == "__main__":
    manager()
