"""What a stage was made from: the code, the settings, the models, and every file that it read and wrote.

A row of `manifests`, the last commit of a stage. So a stage without one is not done, and one whose row still fits what
lies there now need not be done again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import nightrec
from nightrec.config import Config
from nightrec.past.pieces import Part, Piece, days, spans, within
from nightrec.pipeline import STAGES
from nightrec.store import Log, arrow
from nightrec.tables import CLEAN_EVENTS, ITEM_EMBEDDINGS, LEDGER, MANIFESTS, TABLES

# Sections that say where and how, not what; and those that matter from a stage on. A night that an audit refused is
# judged anew with other limits, not computed anew.
_NOT_WHAT = ("paths", "spark", "retention")
_FIRST_READ_BY = {"audit": "audit", "export": "export"}
# A row of these follows from its key, whenever it was written: what was added since changes nothing that was read.
_BY_KEY = {ITEM_EMBEDDINGS.name}
_TABLES = {table.name: table for table in TABLES}
_PLACES = {stage.name: place for place, stage in enumerate(STAGES)}


@cache
def code() -> str:
    """Version of nightrec and fingerprint of its source files and of the jobs', once per process."""
    jobs = importlib.util.find_spec("nightrec_jobs")
    roots = [*nightrec.__path__, *((jobs.submodule_search_locations if jobs else None) or [])]
    digest = hashlib.sha256()
    for root in roots:
        for file in sorted(Path(root).rglob("*.py")):
            digest.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return f"{nightrec.__version__}+{digest.hexdigest()[:12]}"


def settings(config: Config, stage: str) -> str:
    """What a stage may read of a config, as JSON: everything that says what a night is, from whatever section."""
    left_out = {name for name, first in _FIRST_READ_BY.items() if _PLACES.get(stage, 0) < _PLACES[first]}
    # Where the key lies changes nothing: a deployment that was moved stays done.
    excluded = dict.fromkeys((*_NOT_WHAT, *left_out), True) | {"privacy": {"key_file"}}
    return json.dumps(config.model_dump(mode="json", exclude=excluded), sort_keys=True)


def fingerprint(text: str) -> str:
    """Of settings."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def row(
    stage: str, night: date, is_replay: bool, run_id: str, config: Config, models: Mapping[str, str],
    inputs: Iterable[Piece], outputs: Iterable[Piece],
) -> dict[str, Any]:  # fmt: skip
    """A row of tables.MANIFESTS."""
    said = settings(config, stage)
    return {
        "run_date": night, "stage": stage, "is_replay": is_replay, "run_id": run_id, "code": code(),
        "config": fingerprint(said), "settings": said,
        "seeds": {"als.seed": config.als.seed, "ranker.seed": config.ranker.seed},
        "block_counts": {
            "als.blocks": config.als.blocks, "horovod.processes": config.horovod.processes,
            "spark.partitions": config.spark.partitions,
        },
        "models": dict(models), "inputs": _cells(inputs), "outputs": _cells(outputs),
    }  # fmt: skip


def _cells(pieces: Iterable[Piece]) -> list[dict[str, Any]]:
    found = [
        {
            "name": piece.table, "part": json.dumps(piece.part), "version": piece.version, "rows": piece.rows,
            "fingerprint": piece.fingerprint,
        }
        for piece in pieces
    ]  # fmt: skip
    return sorted(found, key=lambda cell: (str(cell["name"]), str(cell["part"])))


def raw_pieces(stage: str, root: str, night: date) -> list[Piece]:
    """The raw files that a stage reads: those of the night's ingest date and which dates there are, or the snapshot.

    A file is known by its name, size and time of change. Empty folders are none: a delivery that has not come.
    """
    from nightrec import raw

    found = []
    for kind in ("events", "items", "users"):
        if f"raw {kind}" not in next((each.reads for each in STAGES if each.name == stage), ()):
            continue
        arrived = [day for day in raw.ingest_dates(root, kind) if day <= night]
        if kind == "events":
            part: Part = {"ingest_date": spans([day for day in arrived if raw.files(root, kind, day)])}
            found.append(Piece("raw events", part, -1, 0, raw.marks(root, kind, night)))
            continue
        day = next((day for day in reversed(arrived) if raw.files(root, kind, day)), None)
        if day:
            found.append(Piece(f"raw {kind}", {"ingest_date": [str(day)]}, -1, 0, raw.marks(root, kind, day)))
    return found


def files_read(books: Iterable[Mapping[str, Any]]) -> dict[date, int]:
    """Raw files of every ingest date that was cleaned, as the books of clean_events have them."""
    found: dict[date, int] = {}
    for row in books:
        found[row["run_date"]] = row["row_count"] if row["fate"] == "files" else found.get(row["run_date"], 0)
    return found


class Manifests:
    """The manifests of a warehouse, held against what lies there now. Reads each table's log once: make a new one when
    something was written."""

    def __init__(self, warehouse: str, raw: str) -> None:
        self.warehouse = warehouse
        self.raw = raw
        self._log = Log(warehouse)
        self._rows: dict[date, list[dict[str, Any]]] = {}

    def row(self, stage: str, night: date, is_replay: bool = False) -> dict[str, Any] | None:
        """The manifest of a stage; None where it never committed."""
        if night not in self._rows:
            self._rows[night] = arrow(self.warehouse, MANIFESTS, {"run_date": night}).to_pylist()
        return next((r for r in self._rows[night] if (r["stage"], r["is_replay"]) == (stage, is_replay)), None)

    def changed(
        self, stage: str, night: date, config: Config, models: Mapping[str, str], is_replay: bool = False
    ) -> str | None:
        """Why a stage has to be done, in words; None where it is done, and from what lies there now.

        `models` are those that the night uses, by the columns of night_models.
        """
        row = self.row(stage, night, is_replay)
        if row is None:
            return "it has not committed yet"
        if row["code"] != code():
            return f"nightrec was {row['code']} then and is {code()} now"
        if row["config"] != fingerprint(settings(config, stage)):
            return "its settings have changed"
        other = [models[name] for name, used in row["models"] if models.get(name, used) != used]
        if other:
            return f"it is asked for with {', '.join(other)}"
        return self._moved(stage, night, row["inputs"], row["outputs"])

    def _moved(
        self, stage: str, night: date, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> str | None:
        written = {name for each in STAGES if each.name == stage for name in each.writes}
        for cell in inputs:
            # What a stage reads of its own table are rows that it need not compute again.
            if cell["name"] in _TABLES and cell["name"] not in (written | _BY_KEY) and self._is_other(cell):
                return f"{cell['name']} has changed since it read it"
        for cell in outputs:
            # A table without partitions is every night's: published_topk, champions.
            partition = _TABLES[cell["name"]].partition
            if partition and set(json.loads(cell["part"])) == set(partition) and self._is_other(cell):
                return f"{cell['name']} was written anew since"
        moved = _raw_moved(inputs, raw_pieces(stage, self.raw, night), night)
        return moved or (self._added(night) if stage == CLEAN_EVENTS.stage else None)

    def _added(self, night: date) -> str | None:
        """Which ingest date up to the night has more raw files of events than were read of it."""
        from nightrec import raw

        books = arrow(self.warehouse, LEDGER, {"stage": CLEAN_EVENTS.stage}, ["run_date", "fate", "row_count"])
        for day, files in sorted(files_read(books.to_pylist()).items()):
            if day <= night and raw.delivered(self.raw, day) > files:
                return f"more raw events of {day} have come since"
        return None

    def _is_other(self, cell: Mapping[str, Any]) -> bool:
        now = self._log.piece(_TABLES[cell["name"]], json.loads(cell["part"]))
        return bool(now.fingerprint != cell["fingerprint"])


def unread(done: Mapping[str, Mapping[str, Any]], root: str, night: date) -> dict[str, str]:
    """Stages, of these with their manifests, that cannot read the raw files of then, with why."""
    found = {}
    for stage, row in done.items():
        before = {cell["name"]: cell for cell in row["inputs"] if cell["name"].startswith("raw ")}
        now = {piece.table: piece for piece in raw_pieces(stage, root, night)}
        for name in before.keys() | now.keys():
            if name not in before or name not in now or before[name]["fingerprint"] != now[name].fingerprint:
                found[stage] = f"the {name} are not those of then"
        read = [day for cell in row["outputs"] if cell["name"] == CLEAN_EVENTS.name
                for day in days(json.loads(cell["part"])["ingest_date"])]  # fmt: skip
        if read and stage not in found:
            was, is_ = (days(part) for part in (
                json.loads(before["raw events"]["part"])["ingest_date"], now["raw events"].part["ingest_date"],
            ))  # fmt: skip
            if set(was) & set(read) - set(is_) or set(is_) - set(was):
                found[stage] = "the raw events are not those of then"
    return found


def _raw_moved(recorded: Sequence[Mapping[str, Any]], now: Sequence[Piece], night: date) -> str | None:
    """Which raw files have come since. Files that are gone (raw logs are often kept for some weeks only) are none."""
    before = {cell["name"]: (json.loads(cell["part"])["ingest_date"], cell["fingerprint"]) for cell in recorded
              if cell["name"].startswith("raw ")}  # fmt: skip
    for piece in now:
        known, mark = before.get(piece.table, ([], ""))
        if piece.table != "raw events":
            if (list(piece.part["ingest_date"]), piece.fingerprint) != (known, mark):
                return f"{piece.table} of {piece.part['ingest_date'][0]} have come since"
        elif any(not within(day, known) for day in days(piece.part["ingest_date"])):
            return "raw events of another ingest date have come since"
        elif within(night, piece.part["ingest_date"]) and piece.fingerprint != mark:
            return f"raw events of {night} have changed since"
    return None
