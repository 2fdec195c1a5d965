"""What a writer that was killed or failed leaves in a local warehouse: data files of no commit, half log entries.

No reader ever sees them, for no version of a table names them; they only take room until they are removed. Whoever
opens the warehouse next holds its lock, so nobody is writing them now.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pyarrow.parquet as pq

# Entries of a Delta log under their final names; both writers write another name first and rename.
_ENTRY = re.compile(r"\d{20}\.(json|crc|checkpoint(\.[\w.-]+)?\.parquet)|_last_checkpoint")


def sweep(table: Path) -> int:
    """Remove a table's files that no retained version names, and folders that are empty then; how many files.

    Files of versions whose log was cleaned up in time, but that were never vacuumed, go with them.
    """
    log = table / "_delta_log"
    if not log.is_dir():
        return 0
    named, removed = set(_named(log)), 0
    for file in sorted(table.rglob("*"), reverse=True):  # a folder's files before the folder
        if file.is_dir():
            if file != log and not any(file.iterdir()):
                file.rmdir()
            continue
        name = _summed(file.name)
        kept = _ENTRY.fullmatch(name) if file.parent == log else str(file.with_name(name).relative_to(table)) in named
        if not kept or not file.with_name(name).exists():
            file.unlink()
            removed += 1
    return removed


def _summed(name: str) -> str:
    """The name of the file that Hadoop's checksum file (.NAME.crc) is of; other names as they are."""
    return name[1:-4] if name.startswith(".") and name.endswith(".crc") else name


def _named(log: Path) -> Iterator[str]:
    """Paths below the table of all files that any commit or checkpoint of its log adds, removes or feeds."""
    for commit in log.glob("*.json"):
        for line in commit.read_text(encoding="utf-8").splitlines():
            for kind, action in json.loads(line).items():
                if kind in ("add", "remove", "cdc"):
                    yield unquote(action["path"])
    for checkpoint in log.glob("*.checkpoint*.parquet"):
        for actions in pq.ParquetFile(checkpoint).read(columns=["add.path", "remove.path"]).columns:
            yield from (unquote(action["path"]) for action in actions.to_pylist() if action and action["path"])
