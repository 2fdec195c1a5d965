"""Another key, or pseudonyms switched on or off: the history is cleaned anew from the raw files.

A hash cannot be turned into another key's hash, so nothing is translated. What names users is taken out, all versions
with it, and the books of clean_events too: the next night finds no date clean and loads all of them in one pass, as a
first night does. Models of items and rankers stay. published_topk stays as well, for readers have nothing else: the
next night replaces its lists in one commit, and exports tell sinks. Run again after that, rekey drops the versions that
still name users by the old ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from nightrec import raw
from nightrec.config import Config
from nightrec.errors import UsageError
from nightrec.failpoint import reach
from nightrec.privacy import forget, pseudonyms, purge
from nightrec.store import arrow
from nightrec.tables import AUDIT_RESULTS, LEDGER, PUBLISHED_TOPK, REJECTED_EVENTS, TABLES

# Tables whose rows name users, or sentences and lines that do.
NAMING = {table.name for table in TABLES if {"user_id", "list_key"} & set(table.names)} | {
    REJECTED_EVENTS.name, AUDIT_RESULTS.name,
}  # fmt: skip


def rekey(config: Config) -> str:
    """Take out what was named under another key than the config's; what was done, in a sentence.

    Raises Fenced beside another writer; UsageError where raw files of cleaned dates are gone, or no export has carried
    the latest changes yet. Killed, it is run again.
    """
    forget.folders_only(config)
    ids = pseudonyms.of(config.privacy)
    with forget.held(config) as found:
        books = arrow(config.paths.warehouse, LEDGER, {"stage": "clean_events"}).to_pylist()
        naming = [path for path in found if path.name in NAMING]
        if not pseudonyms.dates_of_other_keys(books, ids):
            published = Path(config.paths.warehouse) / PUBLISHED_TOPK.name
            if published in naming:
                exports = Path(config.paths.exports) / PUBLISHED_TOPK.name
                forget.require_exported(published, exports)
                purge.say_again(published)
                forget.hand_over(published, exports)
            for path in naming:
                purge.drop_history(path)
            return f"every date is cleaned under this key; earlier versions of {len(naming)} tables are gone"
        _require_raw(config.paths.raw, books)
        for path in naming:
            if path != Path(config.paths.warehouse) / PUBLISHED_TOPK.name:
                reach(f"rekey.{path.name}")
                purge.empty(path)
                purge.drop_history(path)
        # Last: until then a night is refused, and this begins again.
        for path in found:
            if path.name == LEDGER.name:
                purge.empty(path, {"stage": "clean_events"})
                purge.drop_history(path)
    return (
        f"{len(naming)} tables are empty; the next night cleans every date anew. The lists that are served stay until "
        "it publishes; run `nightrec rekey` once more after its export, and old ids are gone from earlier versions too"
    )


def _require_raw(root: str, books: Sequence[Mapping[str, Any]]) -> None:
    """Every date that had lines must still have the files that it had."""
    files: dict[date, int] = {row["run_date"]: row["row_count"] for row in books if row["fate"] == "files"}
    read = {row["run_date"] for row in books if row["fate"] == "read" and row["row_count"]}
    gone = sorted(day for day in read if len(raw.files(root, "events", day)) < files.get(day, 1))
    if gone:
        raise UsageError(
            f"raw files of {len(gone)} cleaned dates are gone, {gone[0]} first: they cannot be cleaned under another "
            "key. Bring them back, or keep the key"
        )
