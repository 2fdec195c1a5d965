"""A deployment folder from somebody's log: find its columns, put it into the raw contract, write its nightrec.toml."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa

from nightrec import settings
from nightrec.adaptive import FEWEST_DAYS, REPEATS_SHARE
from nightrec.config import Config
from nightrec.errors import BadInput, UsageError
from nightrec.init.columns import ROLES, Choose, Guess, guess
from nightrec.init.convert import convert_file, ingest_dates, look_at
from nightrec.init.look import Figures
from nightrec.init.sources import Source, open_source
from nightrec.tables import EVENT_TYPES

SAMPLE_ROWS = 20_000
# Written beside converted events: only such a folder is replaced by `--force`.
MARK = "CONVERTED_FROM"


@dataclass(frozen=True)
class Deployment:
    """What was made: the TOML file, the raw root, the columns taken (None for a raw root) and what the log looks like.

    `night` is the last ingest date: the date to run. `notes` are sentences about what was decided or looks odd.
    """

    config: Path
    raw: Path
    guess: Guess | None
    figures: Figures
    night: date
    notes: tuple[str, ...]


def create(
    source: Path,
    out: Path,
    named: Mapping[str, str] | None = None,
    force: bool = False,
    choose: Choose | None = None,
) -> Deployment:
    """Make the deployment folder `out` from a raw root in the contract or from one file of events.

    `named` fixes columns by role (user, item, time, type, value). `choose(role, names)` settles ties (a terminal's
    prompt); without it a tie is an error. `force` replaces the TOML file and events that an earlier call converted.
    Raises UsageError (nothing written) or BadInput (the file is no table of events).
    """
    config = out / "nightrec.toml"
    if config.exists() and not force:
        raise UsageError(f"{config} exists; --force replaces it, another --out leaves it")
    columns = {role: name for role, name in (named or {}).items() if name}
    found: Guess | None
    notes: list[str]
    unknown = set(columns) - set(ROLES)
    if unknown:
        raise UsageError(f"no such role: {', '.join(sorted(unknown))}; there are {', '.join(ROLES)}")
    if source.is_dir():
        if columns:
            raise UsageError(
                "a raw root has the contract's own column names: --" + ", --".join(columns) + " are for a file"
            )
        found, raw, notes = None, source, []
        figures = _root(source, notes)
    else:
        table = open_source(source)
        found, raw = guess(_sample(table), columns, choose), out / "raw"
        _clear(raw, force)
        figures, lost = convert_file(table, found, raw)
        (raw / MARK).write_text(f"{source.name}\n", encoding="utf-8")
        notes = _file_notes(table, found, lost)
    night = ingest_dates(raw)[-1][0]
    decided = _decided(figures, notes)
    decided["paths", "raw"] = (_relative(raw, out), f"the events of {source.name or source}")
    out.mkdir(parents=True, exist_ok=True)
    about = (
        f"nightrec: {_size(figures)}.\n"
        "Lines behind # are the defaults. Run a night with:  nightrec run --config nightrec.toml --date "
        + night.isoformat()
    )
    config.write_text(settings.toml(about, decided), encoding="utf-8")
    return Deployment(config, raw, found, figures, night, tuple(notes))


def _root(source: Path, notes: list[str]) -> Figures:
    """Figures of a raw root; UsageError where the folder is none."""
    if not ingest_dates(source):
        raise UsageError(
            f"{source} is no raw root: it has no events/ingest_date=YYYY-MM-DD folder; name a file of events instead"
        )
    figures, unread = look_at(source)
    if unread:
        notes.append(
            f"{len(unread)} files could not be read whole and are not in these figures, {unread[0]} first;"
            " the night rejects their bad lines"
        )
    if not figures.rows:
        raise BadInput(f"{source}: no event in any ingest_date folder could be read")
    return figures


def _sample(source: Source) -> pa.Table:
    for batch in source.batches():
        if batch.num_rows:
            return batch.slice(0, SAMPLE_ROWS)
    raise BadInput(f"{source.path} holds no rows")


def _clear(raw: Path, force: bool) -> None:
    if not raw.exists():
        return
    if not force or not (raw / MARK).is_file():
        raise UsageError(
            f"{raw} exists and was not converted by nightrec init, so it stays; choose another --out"
            if force
            else f"{raw} exists"
        )
    shutil.rmtree(raw)


def _file_notes(table: Source, found: Guess, lost: int) -> list[str]:
    notes = []
    if found.left_out:
        notes.append(f"left out: {', '.join(found.left_out)}")
    if table.skipped:
        notes.append(f"{table.skipped:,} lines have another number of cells than {len(table.names)} and were left out")
    if lost:
        notes.append(f"{lost:,} cells of {found.columns['value']} are not numbers and were left empty")
    return notes


def _decided(figures: Figures, notes: list[str]) -> dict[tuple[str, str], tuple[Any, str]]:
    """Settings that follow from the log, each with its reason; what only looks odd goes to the notes."""
    default = Config()
    decided: dict[tuple[str, str], tuple[Any, str]] = {}
    if figures.repeat_share > REPEATS_SHARE:
        why = f"{figures.repeat_share:.0%} of the later events are repeats: people come back to the same items"
        decided["candidates", "repeats_allowed"] = (True, why)
        notes.append(f"{why}; so candidates.repeats_allowed = true")
    if figures.days < FEWEST_DAYS:
        notes.append(
            f"{figures.days} days are too few to train a ranker on what people did next: expect an error from training"
        )
    user, most = figures.busiest
    if most > default.events.robot_events_per_hour:
        notes.append(
            f"user {user} has {most:,} events in one hour: a robot by events.robot_events_per_hour ="
            f" {default.events.robot_events_per_hour};"
            " raise that number if this is a person"
        )
    unknown = {kind: rows for kind, rows in figures.types.items() if kind not in EVENT_TYPES}
    if unknown:
        listed = ", ".join(f"{kind} ({rows:,})" for kind, rows in list(unknown.items())[:5])
        notes.append(f"event types that the contract does not know, which the night rejects: {listed}")
    if figures.incomplete:
        notes.append(
            f"{figures.incomplete:,} events lack a user, an item or a readable time; the night rejects and counts them"
        )
    if not any(default.event_weights().get(kind) for kind in figures.types):
        notes.append("no event type of this log has a weight above 0: set events.weights, or nothing can be learned")
    return decided


def _relative(raw: Path, out: Path) -> str:
    """`raw` as written in the TOML file: relative where it lies inside the folder."""
    whole, root = raw.resolve(), out.resolve()
    return whole.relative_to(root).as_posix() if whole.is_relative_to(root) else str(whole)


def _size(figures: Figures) -> str:
    span = f"{figures.first} to {figures.last}"
    return f"{figures.rows:,} events, {figures.users:,} users, {figures.items:,} items, {span}"


def summary(made: Deployment) -> str:
    """What was guessed and why, what the log looks like, and the next command."""
    figures, lines = made.figures, []
    if made.guess:
        lines.append("Columns")
        lines += [
            f"  {role:<5} {made.guess.columns.get(role, f'all {made.guess.default_type}'):<16} {made.guess.why[role]}"
            for role in ROLES
            if role in made.guess.why
        ]
        lines.append("")
    kinds = ", ".join(f"{kind} {rows / figures.rows:.0%}" for kind, rows in list(figures.types.items())[:6])
    sampled = f" (measured over one user in {figures.one_user_in})" if figures.one_user_in > 1 else ""
    lines += [
        "Log",
        f"  {_size(figures)} ({figures.days:,} days)",
        f"  {kinds}",
        f"  {figures.repeat_share:.0%} of the later events repeat an item of an earlier day{sampled}",
        *(f"  {note}" for note in made.notes),
        "",
        f"Written: {made.config}" + (f", {made.raw}" if made.guess else f" (reads {made.raw} where it lies)"),
        f"Next:    nightrec run --config {made.config} --date {made.night}",
    ]
    return "\n".join(lines)
