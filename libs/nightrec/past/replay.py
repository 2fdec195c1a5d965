"""A night built again from its manifest, in a warehouse apart, and held against what it wrote then.

The warehouse apart begins as hard links to the files of the versions that the manifest names, without what the night
wrote itself: what is there in the end was computed again, from the same inputs, models, settings and seeds.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nightrec.config import Config, Paths
from nightrec.errors import UsageError
from nightrec.night import Night, decided
from nightrec.past import manifest
from nightrec.past.digest import digest
from nightrec.past.manifest import Manifests
from nightrec.past.pieces import days
from nightrec.past.undo import publications
from nightrec.pipeline import NIGHT
from nightrec.store import exists, files_of, is_whole, location, remove, rows, version
from nightrec.tables import AUDIT_RESULTS, CLEAN_EVENTS, LEDGER, PUBLISHED_TOPK, TABLES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from nightrec.contract import Table

# Files for others are made once; a replay has none to hand over.
_STAGES = tuple(stage for stage in NIGHT if stage.name != "export")
_TABLES = {table.name: table for table in TABLES}


@dataclass(frozen=True)
class Compared:
    """One table of a night, then and again: rows and digest of each."""

    table: str
    rows: tuple[int, int]
    digests: tuple[str, str]

    @property
    def is_equal(self) -> bool:
        """Whether the same rows came out."""
        return self.rows[0] == self.rows[1] and self.digests[0] == self.digests[1]


def manifests(warehouse: str, raw: str, night: date) -> dict[str, dict[str, Any]]:
    """The manifests of a night's stages, by stage. UsageError where it was not finished, or is not kept any more."""
    past = Manifests(warehouse, raw)
    found = {stage.name: past.row(stage.name, night) for stage in _STAGES}
    missing = [name for name, row in found.items() if row is None]
    if missing:
        raise UsageError(f"{night} has no manifest of {', '.join(missing)}: finish it by `nightrec run --date {night}`")
    return {name: row for name, row in found.items() if row}


def since_then(config: Config, done: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is otherwise now than when the night was made: code and settings, a sentence each. The replay has today's
    code and the settings of then."""
    codes = {row["code"] for row in done.values()} - {manifest.code()}
    said = [f"nightrec was {code} and is {manifest.code()} now." for code in sorted(codes)]
    settled, changed = decided(config, max(row["run_date"] for row in done.values())), []
    for name, row in done.items():
        now = json.loads(manifest.settings(config if name == CLEAN_EVENTS.stage else settled, name))
        before = json.loads(row["settings"])
        changed += [key for key in before.keys() | now.keys() if before.get(key) != now.get(key)]
    if changed:
        said.append(f"Other settings since, in {', '.join(sorted(set(changed)))}: those of then are used.")
    return said


def replay(
    spark: SparkSession, config: Config, night: date, work: Path, tell: Callable[[str], object] = str
) -> Iterator[Compared]:
    """Build the night again below `work` and yield its tables, compared. `tell` hears what is not as it was.

    Raises UsageError where the night has no manifests or is not kept any more, or the warehouse is on an object store.
    """
    if "://" in config.paths.warehouse:
        raise UsageError("replay links files of the warehouse: it has to be on a disk of this machine")
    done = manifests(config.paths.warehouse, config.paths.raw, night)
    for sentence in since_then(config, done):
        tell(sentence)
    skipped = manifest.unread(done, config.paths.raw, night)
    for stage, why in skipped.items():
        tell(f"{stage} is taken as it was: {why}.")
    apart = str(work / "warehouse")
    published = next(
        (p for p in reversed(publications(config.paths.warehouse))
         if p.night == night and not p.instead_of and not p.is_rewritten), None,
    )  # fmt: skip
    lay_out(config.paths.warehouse, apart, night, done, set(skipped), published.version - 1 if published else None)
    models = {name: model for row in done.values() for name, model in row["models"]}
    again = [name for name in done if name not in skipped and (published or name != PUBLISHED_TOPK.stage)]
    for name in again:
        settings = then(config, done[name]["settings"], apart, work)
        with Night(spark, settings, night, models.get("als_model"), models.get("ranker_model")) as past:
            past.run(name, import_module(f"nightrec_jobs.{name}").run)
    for name in again:
        for cell in done[name]["outputs"]:
            is_served = published and cell["name"] == PUBLISHED_TOPK.name
            at = published.version if published and is_served else cell["version"]
            yield _compared(spark, config.paths.warehouse, apart, cell, at, night)


def then(config: Config, settings: str, warehouse: str, work: Path) -> Config:
    """The config of a manifest, reading what lies where it is now and writing below `work`."""
    paths = {**config.paths.model_dump(), "warehouse": warehouse} | {
        name: str(work / name) for name in ("exports", "reports")
    }
    known = {name: value for name, value in json.loads(settings).items() if name in Config.model_fields}
    return Config.model_validate({**config.model_dump(), **known, "paths": Paths(**paths)})


def lay_out(
    warehouse: str, apart: str, night: date, done: Mapping[str, Mapping[str, Any]], skipped: set[str],
    published: int | None,
) -> None:  # fmt: skip
    """Link each table as the night found it; those that its manifest does not name, as they are now. UsageError where
    the night is not kept any more."""
    begun: dict[str, int] = {}
    written: list[Mapping[str, Any]] = []
    for stage in _STAGES:
        cells = [*done[stage.name]["inputs"], *done[stage.name]["outputs"]]
        for cell in cells:
            # The first that names it: a stage reads its own table before it writes.
            if cell["name"] in _TABLES:
                begun.setdefault(cell["name"], cell["version"])
        written += done[stage.name]["outputs"] if stage.name not in skipped else []
    if published is not None:
        begun[PUBLISHED_TOPK.name] = published
    for table in TABLES:
        if exists(warehouse, table):
            at = begun.get(table.name, version(warehouse, table))
            if at >= 0:
                _require_whole(warehouse, table, at, night)
                _link(Path(location(warehouse, table)), Path(location(apart, table)), files_of(warehouse, table, at))
    for cell in written:
        table, part = _TABLES[cell["name"]], json.loads(cell["part"])
        if part and table is not PUBLISHED_TOPK:
            remove(apart, table, _where(part))
            if table is CLEAN_EVENTS:
                # By its books the stage knows what is clean; those of later nights tell what the log shows since.
                remove(apart, LEDGER, {"stage": CLEAN_EVENTS.stage, "run_date": days(part["ingest_date"])}, night)


def _where(part: Mapping[str, list[str]]) -> dict[str, Any]:
    return {name: days(values) if name.endswith("_date") else values for name, values in part.items()}


def _require_whole(warehouse: str, table: Table, at: int, night: date) -> None:
    if not is_whole(warehouse, table, at):
        raise UsageError(
            f"{night} is not kept any more: log or files of {table.name} as it was then (version {at}) are gone; "
            "`nightrec history` lists the nights that are kept (retention.nights)"
        )


def _link(source: Path, target: Path, files: list[str]) -> None:
    for file in files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source / file, target / file)
        except OSError:  # another disk
            shutil.copyfile(source / file, target / file)


def _compared(
    spark: SparkSession, warehouse: str, apart: str, cell: Mapping[str, Any], at: int, night: date
) -> Compared:  # fmt: skip
    table, where = _TABLES[cell["name"]], _where(json.loads(cell["part"]))
    _require_whole(warehouse, table, at, night)
    if "ingest_date" in where:
        # A date that came late has had those after it cleaned again; the night built again does not know these.
        where["ingest_date"] = [day for day in where["ingest_date"] if day <= night]
    # The audit notes the names of the files that it audited: these alone are never those of then.
    counted = "check_name <> 'content'" if table is AUDIT_RESULTS else "true"
    (count, before), (now, after) = (
        digest(rows(spark, root, table, where, version).where(counted))
        for root, version in ((warehouse, at), (apart, None))
    )
    return Compared(table.name, (count, now), (before, after))
