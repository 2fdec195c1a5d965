"""What must hold of a deployment whose nights were killed, each check a list of complaints: empty where it holds."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from witness import Seen

from nightrec.report import books
from nightrec.store import arrow
from nightrec.tables import LEDGER, MANIFESTS, RUNS, TABLES

# Whatever names a run, a commit, a version or a file; the books themselves are balanced, not compared.
NOT_COMPARED = {"run_id", "data_versions", "detail"}
BOOKS = {LEDGER.name, MANIFESTS.name}
# Files that a Delta log may hold, and Hadoop's sums of them.
_LOG = re.compile(r"\.?(\d{20}\.(json|crc|checkpoint(\.[\w.-]+)?\.parquet)|_last_checkpoint)(\.crc)?")


def rows(warehouse: str) -> dict[str, tuple[int, str]]:
    """Number of rows of every table but the books, and their hash in whatever order they lie."""
    found = {}
    for table in TABLES:
        if table.name in BOOKS:
            continue
        names = [name for name in table.names if name not in NOT_COMPARED]
        lines = sorted(
            json.dumps(row, sort_keys=True, default=str) for row in arrow(warehouse, table, columns=names).to_pylist()
        )
        found[table.name] = (len(lines), hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16])
    return found


def differing(warehouse: str, undisturbed: dict[str, tuple[int, str]]) -> list[str]:
    """Tables that hold other rows than an undisturbed run's: lost, doubled or changed ones."""
    found = rows(warehouse)
    return [
        f"{name}: {found[name][0]} rows {found[name][1]}, undisturbed {wanted[0]} rows {wanted[1]}"
        for name, wanted in undisturbed.items()
        if found[name] != wanted
    ]


def doubled(warehouse: str) -> list[str]:
    """Keys that stand in a table more than once."""
    complaints = []
    for table in TABLES:
        counts = Counter(map(str, arrow(warehouse, table, columns=list(table.key)).to_pylist()))
        complaints += [f"{table.name}: {key} {n} times" for key, n in counts.items() if n > 1]
    return complaints


def unbalanced(warehouse: str) -> list[str]:
    """Nights whose raw lines do not add up, and stages of published lists that were not booked."""
    lines = books.lines(warehouse)
    nights = sorted({line.run_date for line in lines})
    found = [(night, books.balance([line for line in lines if line.run_date == night])) for night in nights]
    return [f"the books of {night} do not balance: {balance}" for night, balance in found if not balance.is_balanced]


def unlawful(seen: Sequence[Seen], lawful: Sequence[str]) -> list[str]:
    """Snapshots that are none of the complete, audited ones, or come after a later one; `lawful`: hashes in order."""
    complaints, at = [], 0
    for snapshot in seen:
        if snapshot.error:
            complaints.append(f"unreadable: {snapshot.error}")
        elif snapshot.digest not in lawful:
            what = f"{snapshot.lists} lists {snapshot.digest} by {snapshot.run_id}"
            complaints.append(f"version {snapshot.version}: {what}")
        elif lawful.index(snapshot.digest) < at:
            complaints.append(f"version {snapshot.version} went back to {snapshot.digest}")
        else:
            at = lawful.index(snapshot.digest)
    return complaints


def temporary(deployment: Path) -> list[str]:
    """Files that no reader, no log and no later night has a use for, below warehouse, models, reports and exports."""
    found = [
        str(file.relative_to(deployment))
        for name in ("models", "reports", "exports")
        for file in sorted((deployment / name).rglob("*"))
        if file.name.startswith((".", "_temporary")) and not _is_sum(file)
    ]
    for table in TABLES:
        found += [str(file.relative_to(deployment)) for file in unreferenced(deployment / "warehouse" / table.name)]
    known = {table.name for table in TABLES} | {".lock"}
    found += [f"warehouse/{file.name}" for file in (deployment / "warehouse").iterdir() if file.name not in known]
    return found


def unreferenced(table: Path) -> list[Path]:
    """A table's files that no version in its log names, and what else lies about."""
    if not table.is_dir():
        return []
    named = set(_named(table / "_delta_log"))
    found = []
    for file in sorted(table.rglob("*")):
        if file.is_dir():
            found += [] if any(file.iterdir()) else [file]
        elif file.parent.name == "_delta_log":
            found += [] if _LOG.fullmatch(file.name) else [file]
        elif str(file.relative_to(table)) not in named and not _is_sum(file):
            found.append(file)
    return found


def _named(log: Path) -> Iterable[str]:
    """Paths below the table of all files that any commit or checkpoint of a log adds, removes or feeds."""
    from urllib.parse import unquote

    for commit in log.glob("*.json"):
        for line in commit.read_text().splitlines():
            action = json.loads(line)
            for kind in ("add", "remove", "cdc"):
                if kind in action:
                    yield unquote(action[kind]["path"])
    for checkpoint in log.glob("*.checkpoint*.parquet"):
        for row in pq.read_table(checkpoint, columns=["add", "remove"]).to_pylist():
            for kind in ("add", "remove"):
                if row[kind]:
                    yield unquote(row[kind]["path"])


def _is_sum(file: Path) -> bool:
    """Whether a file is Hadoop's checksum of one that lies beside it."""
    return file.name.startswith(".") and file.suffix == ".crc" and (file.parent / file.name[1:-4]).exists()


def facts(deployment: Path) -> dict[str, Any]:
    """What every undisturbed run is compared by."""
    return {"tables": rows(str(deployment / "warehouse")), "runs": arrow(str(deployment / "warehouse"), RUNS).num_rows}
