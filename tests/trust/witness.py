"""A reader of published_topk who never stops looking: what it saw is one line of JSON per snapshot.

It stands for downstream systems: a process of its own that reads by the `deltalake` package, as fast as it can, while
writers are killed. Each look opens the table anew and reads its latest version; a version that was seen before is read
again now and then, for it must not change either. `stop` ends it and gives back what it saw.

    python witness.py TABLE LINES
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Seen:
    """One snapshot: its version, number of lists and hash, and the run that committed it; `error` where unreadable."""

    version: int
    lists: int
    digest: str
    run_id: str
    at: float
    error: str = ""


def digest(rows: list[dict[str, Any]]) -> str:
    """Canonical hash of published lists: the rows in the order of their keys, to the last digit of every score."""
    ordered = sorted(rows, key=lambda row: (row["list_kind"], row["list_key"]))
    text = "\n".join(json.dumps(row, sort_keys=True, default=str) for row in ordered)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


NOTHING = digest([])


def look(table: str) -> Seen:
    """The latest snapshot of a table; version -1 and the hash of no lists where there is none yet."""
    from deltalake import DeltaTable

    at = time.time()
    if not DeltaTable.is_deltatable(table):
        return Seen(-1, 0, NOTHING, "", at)
    opened = DeltaTable(table)
    rows = opened.to_pyarrow_dataset().to_table(use_threads=False).to_pylist()
    metadata = json.loads(opened.history(1)[0].get("userMetadata") or "{}")
    return Seen(int(opened.version()), len(rows), digest(rows), metadata.get("run_id", ""), at)


class Witness:
    """The process that looks, for as long as the `with` lasts."""

    def __init__(self, table: Path, lines: Path) -> None:
        self._lines = lines
        self._looking = subprocess.Popen([sys.executable, __file__, str(table), str(lines)])

    def seen(self) -> list[Seen]:
        """Every different snapshot in its order."""
        told = [json.loads(line) for line in self._lines.read_text().splitlines() if line.endswith("}")]
        return [Seen(**line) for line in told if "looks" not in line]

    def looks(self) -> int:
        """How often it looked. Ends it."""
        self._looking.send_signal(signal.SIGTERM)
        self._looking.wait(timeout=30)
        last = json.loads(self._lines.read_text().splitlines()[-1])
        return int(last["looks"])

    def __enter__(self) -> Witness:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._looking.kill()
        self._looking.wait()


def watch(table: str, lines: Path) -> None:
    """Look until SIGTERM; a line per snapshot that differs from the one before."""
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    looks, before = 0, None
    with lines.open("w") as out:
        while not ended:
            try:
                found = look(table)
            except Exception as error:  # whatever a reader would have met
                found = Seen(-2, 0, "", "", time.time(), f"{type(error).__name__}: {error}")
            looks += 1
            what = (found.version, found.digest, found.error)
            if what != before:
                out.write(json.dumps(found.__dict__) + "\n")
                out.flush()
                before = what
            time.sleep(0.05)
        out.write(json.dumps({"looks": looks}) + "\n")


if __name__ == "__main__":
    watch(sys.argv[1], Path(sys.argv[2]))
