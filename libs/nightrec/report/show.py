"""One user, without Spark: what they did, what they are shown tonight and why, what changed since the night before."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from nightrec.config import Config
from nightrec.errors import UsageError
from nightrec.printable import one_line
from nightrec.store import arrow, partitions
from nightrec.tables import CLEAN_EVENTS, ITEM_PROFILES, PUBLISHED_TOPK, RANKED_TOPK, SHORTFALLS, USER_PROFILES

LATEST_EVENTS = 10
# Looking for ids near a mistyped one compares with this many at most: longer than a person waits otherwise.
NEAR_IDS = 20_000


@dataclass(frozen=True)
class Event:
    """One clean event of the user."""

    event_ts: datetime
    event_type: str
    item_id: str
    title: str
    value: float | None


@dataclass(frozen=True)
class Item:
    """One item of the list; `rank_before` is its place the night before (None: it was not on the list)."""

    rank: int
    item_id: str
    title: str
    score: float
    source: str
    reason: str
    rank_before: int | None


@dataclass(frozen=True)
class Shown:
    """A user's page. `events` holds the latest of `event_count`, newest first.

    `list_kind` is user, or everyone where the user has no list. `night_before` is the night compared with (None: there
    is none); `gone` are the titles that were on that night's list and are not on this one. `notes` say what is unusual.
    """

    user_id: str
    night: date
    event_count: int
    events: tuple[Event, ...]
    list_kind: str
    items: tuple[Item, ...]
    night_before: date | None
    gone: tuple[str, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The page for machines: plain values, dates as ISO text."""
        page: dict[str, Any] = _plain(asdict(self))
        return page


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, date | datetime) else value


def ranked_nights(warehouse: str) -> list[date]:
    """Nights that have ranked lists, oldest first."""
    return sorted({date.fromisoformat(found["run_date"]) for found in partitions(warehouse, RANKED_TOPK)})


def show(config: Config, user_id: str, night: date | None = None) -> Shown:
    """The page of a user as of a night (without one: the last that has lists). Raises UsageError for an unknown user.

    The list is the one that was ranked that night; a note says so where readers are served another one. A user without
    a list of their own is shown the list for everyone, which is what a reader falls back to.
    """
    warehouse = config.paths.warehouse
    nights = ranked_nights(warehouse)
    if not nights:
        raise UsageError(f"no night has lists yet in {warehouse}; `nightrec run` makes some")
    night = night or nights[-1]
    if night not in nights:
        raise UsageError(f"no lists of {night}; there are some of {', '.join(map(str, nights[-5:]))}")
    events = _events(warehouse, user_id, night)
    key = {"list_kind": "user", "list_key": user_id}
    rows = _ranked(warehouse, night, key)
    profile = arrow(warehouse, USER_PROFILES, {"run_date": night, "user_id": user_id}, ["is_eligible"])
    if not (events.num_rows or rows or profile.num_rows):
        raise UsageError(_unknown(warehouse, user_id, night))
    notes = []
    if not rows:
        notes.append(_why_none(warehouse, user_id, night, profile))
        key = {"list_kind": "everyone", "list_key": "everyone"}
        rows = _ranked(warehouse, night, key)
    notes += _served(warehouse, key, rows, is_last=night == nights[-1])
    night_before = max((earlier for earlier in nights if earlier < night), default=None)
    before = _ranked(warehouse, night_before, key) if night_before else []
    latest = events.slice(0, LATEST_EVENTS).to_pylist()
    titles = _titles(warehouse, night, {row["item_id"] for row in (*latest, *rows, *before)})
    rank_before = {row["item_id"]: row["rank"] for row in before}
    kept = {row["item_id"] for row in rows}
    return Shown(
        user_id,
        night,
        events.num_rows,
        tuple(_event(row, titles) for row in latest),
        key["list_kind"],
        tuple(_item(row, titles, rank_before.get(row["item_id"])) for row in rows),
        night_before,
        tuple(titles[row["item_id"]] for row in before if row["item_id"] not in kept),
        tuple(notes),
    )


def _event(row: dict[str, Any], titles: dict[str, str]) -> Event:
    return Event(row["event_ts"], row["event_type"], row["item_id"], titles[row["item_id"]], row["value"])


def _item(row: dict[str, Any], titles: dict[str, str], rank_before: int | None) -> Item:
    item_id = row["item_id"]
    return Item(row["rank"], item_id, titles[item_id], row["score"], row["source"], row["reason"], rank_before)


def _events(warehouse: str, user_id: str, night: date) -> pa.Table:
    """The user's clean events that had arrived by the night, newest first; ties by item id."""
    columns = ["ingest_date", "event_ts", "event_type", "item_id", "value"]
    found = arrow(warehouse, CLEAN_EVENTS, {"user_id": user_id}, columns)
    if not found.num_rows:
        return found
    arrived = found.filter(pc.less_equal(found["ingest_date"], pa.scalar(night)))
    return arrived.sort_by([("event_ts", "descending"), ("item_id", "ascending"), ("event_type", "ascending")])


def _ranked(warehouse: str, night: date, key: dict[str, str]) -> list[dict[str, Any]]:
    columns = ["rank", "item_id", "score", "source", "reason", "list_id"]
    rows: list[dict[str, Any]] = arrow(warehouse, RANKED_TOPK, {"run_date": night, **key}, columns).to_pylist()
    return sorted(rows, key=lambda row: int(row["rank"]))


def _titles(warehouse: str, night: date, item_ids: set[str]) -> dict[str, str]:
    """Title of each item as of the night; its id where it has no profile."""
    if not item_ids:
        return {}
    found = arrow(warehouse, ITEM_PROFILES, {"run_date": night, "item_id": sorted(item_ids)}, ["item_id", "title"])
    titles = dict(zip(found["item_id"].to_pylist(), found["title"].to_pylist(), strict=True))
    return {item_id: titles.get(item_id) or item_id for item_id in item_ids}


def _why_none(warehouse: str, user_id: str, night: date, profile: pa.Table) -> str:
    """Why a known user has no list of their own."""
    key = {"list_kind": "user", "list_key": user_id}
    short = arrow(warehouse, SHORTFALLS, {"run_date": night, **key}, ["cause"])
    if short.num_rows:
        return f"no list of their own: {short['cause'][0].as_py()}; readers fall back to the list for everyone"
    if profile.num_rows and not profile["is_eligible"][0].as_py():
        return "no list of their own: not eligible (profiles.eligible_days); readers fall back to the list for everyone"
    return "no list of their own yet; readers fall back to the list for everyone"


def _served(warehouse: str, key: dict[str, str], rows: list[dict[str, Any]], is_last: bool) -> list[str]:
    """A note where the list ranked that night is not the one that readers are served now."""
    served = arrow(warehouse, PUBLISHED_TOPK, key, ["list_id", "changed_date"]).to_pylist()
    if not served:
        return ["readers are served no such list yet: this one was ranked, and not published"] if rows else []
    if rows and rows[0]["list_id"] == served[0]["list_id"]:
        return []
    since = f"readers are served another list, of {served[0]['changed_date']}"
    return [
        f"{since}: this one was ranked and not published (the audit refused it, or has not run)" if is_last else since
    ]


def _unknown(warehouse: str, user_id: str, night: date) -> str:
    """An error for an id that nobody has, with ids like it."""
    ids = arrow(warehouse, USER_PROFILES, {"run_date": night}, ["user_id"])["user_id"]
    if isinstance(ids, pa.ChunkedArray) and pa.types.is_string(ids.type) and len(ids) > NEAR_IDS:
        ids = ids.filter(pc.starts_with(ids, user_id[:2]))
    near = difflib.get_close_matches(user_id, sorted(ids.to_pylist())[:NEAR_IDS], n=3, cutoff=0.0)
    return f"no user {user_id!r} in the events or lists up to {night}" + (
        f"; near it: {', '.join(map(one_line, near))}" if near else ""
    )


def render(shown: Shown) -> Group:
    """The page for people, in width of the console it is printed to."""
    head = Text(f"User {one_line(shown.user_id)}", style="bold")
    head.append(f", {shown.event_count:,} events up to {shown.night}", style="not bold")
    parts: list[Any] = [head]
    if shown.events:
        history = RichTable(box=None, pad_edge=False, title="Latest events", title_justify="left", header_style="dim")
        for column in ("when", "what", "title", "value"):
            history.add_column(
                column, no_wrap=column in ("when", "what"), justify="right" if column == "value" else "left"
            )
        for event in shown.events:
            value = "" if event.value is None else f"{event.value:g}"
            history.add_row(f"{event.event_ts:%Y-%m-%d %H:%M}", event.event_type, Text(one_line(event.title)), value)
        parts += ["", history]
    kind = "Tonight's list" if shown.list_kind == "user" else "The list for everyone"
    listed = RichTable(
        box=None, pad_edge=False, title=f"{kind}, {shown.night}", title_justify="left", header_style="dim"
    )
    for column in ("#", "title", "source", "reason", "before"):
        listed.add_column(
            column, justify="right" if column == "#" else "left", no_wrap=column in ("#", "source", "before")
        )
    for item in shown.items:
        title, reason = Text(one_line(item.title)), Text(one_line(item.reason))
        listed.add_row(str(item.rank), title, item.source, reason, _moved(shown, item))
    notes = (Text(one_line(note), style="yellow") for note in shown.notes)
    parts += ["", listed, *notes, "", Text(one_line(_changed(shown)))]
    return Group(*parts)


def _moved(shown: Shown, item: Item) -> str:
    if shown.night_before is None:
        return ""
    if item.rank_before is None:
        return "new"
    step = item.rank_before - item.rank
    return f"up {step}" if step > 0 else f"down {-step}" if step else "same"


def _changed(shown: Shown) -> str:
    """What changed since the night before, in a sentence."""
    if shown.night_before is None:
        return "This is the first night with lists: nothing to compare with."
    new = sum(item.rank_before is None for item in shown.items)
    moved = sum(item.rank_before not in (None, item.rank) for item in shown.items)
    if not (new or moved or shown.gone):
        return f"Nothing changed since {shown.night_before}."
    gone = f" Gone: {', '.join(shown.gone)}." if shown.gone else ""
    return f"Since {shown.night_before}: {new} new, {moved} moved, {len(shown.items) - new - moved} in place.{gone}"
