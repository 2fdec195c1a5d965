"""Processes that a test started, and theirs: all carry a mark in their environment, which children inherit."""

from __future__ import annotations

import os
import time
from pathlib import Path

MARK = "NIGHTREC_RUN_MARK"


def alive(mark: str, within_s: float = 10.0) -> list[str]:
    """Processes that carry a mark in their environment and are still there after so many seconds: each a line.

    A process that ends loses its environment before its files and locks (a driver held its warehouse's lock for a
    moment after its mark was gone): whoever was seen once is gone only when nothing of it runs any more.
    """
    deadline, seen = time.monotonic() + within_s, {}
    while True:
        seen = {pid: command for pid, command in (seen | marked(mark)).items() if _runs(pid)}
        if not seen or time.monotonic() >= deadline:
            return [f"{pid} {command[:200]}" for pid, command in seen.items()]
        time.sleep(0.1)


def marked(mark: str) -> dict[int, str]:
    """Process ids and command lines of the living processes with a mark; zombies are dead."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if f"{MARK}={mark}".encode() not in (folder / "environ").read_bytes().split(b"\0"):
                continue
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue  # it has just gone
        if _runs(int(folder.name)):
            found[int(folder.name)] = command
    return found


def clear_sockets() -> None:
    """Remove sockets of Python workers that nobody holds any more: a JVM that is killed leaves its own."""
    found = list(Path("/tmp").glob(".*-*-*-*-*.sock"))
    held = Path("/proc/net/unix").read_text()  # read after the folder: what is bound meanwhile is not looked at
    for file in found:
        if str(file) not in held:
            file.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    """Whether any thread of a process is still there: the first one may be a zombie before the others have ended."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        states = [(thread / "stat").read_text().rsplit(")", 1)[1].split()[0] for thread in threads]
    except (OSError, IndexError):
        return Path(f"/proc/{pid}").exists()  # a thread has just gone: look again
    return any(state not in "ZX" for state in states)
