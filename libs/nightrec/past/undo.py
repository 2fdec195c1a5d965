"""What was published when, and the way back: to the lists and the models of any night that is kept, in one commit.

Every published night is one commit of published_topk that names night, run and models, also where no list differed;
so is every way back. All of it is read from the log of the table, without Spark.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from nightrec.errors import UsageError
from nightrec.store import Store, commits, is_whole
from nightrec.tables import PUBLISHED_TOPK


@dataclass(frozen=True)
class Publication:
    """A commit after which readers were served the lists of `night`: its own, or the way back to it.

    `instead_of` is the night served before, in a way back; `changed` counts lists, 0 in a way back (it does not look).
    `is_rewritten`: its own commit is gone with all the history, and that of `nightrec forget` or `rekey` says what it
    said, and which was the last `way_back` before it.
    """

    night: date
    version: int
    written: datetime
    run_id: str
    als_model: str
    ranker_model: str
    changed: int
    instead_of: date | None = None
    is_rewritten: bool = False
    way_back: Publication | None = None

    @property
    def left_behind(self) -> date:
        """The last night that a way back undid."""
        return self.instead_of or self.night


def publications(warehouse: str) -> list[Publication]:
    """Every publication that the log still has, the latest last; none where nothing was published."""
    found = []
    for commit in commits(warehouse, PUBLISHED_TOPK):
        said = json.loads(commit.get("userMetadata") or "{}")
        if "night" in said:
            found.append(_publication(said, commit))
    return sorted(found, key=lambda each: each.version)


def _publication(said: Mapping[str, Any], commit: Mapping[str, Any]) -> Publication:
    return Publication(
        date.fromisoformat(said["night"]), int(commit["version"]),
        datetime.fromtimestamp(said.get("written", commit["timestamp"]) / 1000, UTC), said["run_id"],
        said["als_model"], said["ranker_model"], said.get("changed", 0),
        date.fromisoformat(said["instead_of"]) if "instead_of" in said else None, said["stage"] != PUBLISHED_TOPK.stage,
        _publication(said["way_back"], commit) if "way_back" in said else None,
    )  # fmt: skip


def served(warehouse: str) -> Publication | None:
    """What readers are served now."""
    return next(iter(reversed(publications(warehouse))), None)


def kept(warehouse: str, nights: int) -> list[Publication]:
    """The last publication of each of the latest so many nights, the latest night first: the window of the way back.

    Nights whose files are gone are left out.
    """
    return [each for each in window(publications(warehouse), nights)
            if is_whole(warehouse, PUBLISHED_TOPK, each.version)]  # fmt: skip


def window(published: Sequence[Publication], nights: int) -> list[Publication]:
    """Likewise, of these, whether or not their files are there. A way back is not its night's own publication; only a
    rewritten one stands for it, where that is gone."""
    own = [each for each in published if each.instead_of is None]
    last = {each.night: each for each in [*(each for each in published if each.is_rewritten), *own]}
    return [last[night] for night in sorted(last, reverse=True)[:nights]]


def roll_back(store: Store, nights: int, to: date) -> Publication | None:
    """Serve the lists of a night again, and have later nights use its models; None where they are served already.

    Raises UsageError where the night is outside the window of the last `nights`.
    """
    now, known = served(store.warehouse), kept(store.warehouse, nights)
    target = next((each for each in known if each.night == to), None)
    if target is None:
        there = ", ".join(str(each.night) for each in known) or "none"
        raise UsageError(
            f"no way back to {to}: the last {nights} published nights are kept (retention.nights); of these there are "
            f"{there}"
        )
    assert now is not None
    if now.night == to:
        return None
    said = {
        "night": f"{to}", "als_model": target.als_model, "ranker_model": target.ranker_model,
        "instead_of": f"{now.night}",
    }  # fmt: skip
    store.restore(PUBLISHED_TOPK, target.version, said)
    return served(store.warehouse)


def is_quiet(warehouse: str, since: int) -> bool:
    """Whether no list can have changed since a version: nights without news, and files written anew as they were."""
    later = [commit for commit in commits(warehouse, PUBLISHED_TOPK) if commit["version"] > since]
    return all(_is_quiet(commit["operation"], json.loads(commit.get("userMetadata") or "{}")) for commit in later)


def _is_quiet(operation: str, said: Mapping[str, object]) -> bool:
    is_of_files = operation in ("OPTIMIZE", "SET TBLPROPERTIES", "VACUUM START", "VACUUM END")
    is_of_a_night = said.get("stage") == PUBLISHED_TOPK.stage
    return is_of_files or (is_of_a_night and said.get("changed") == 0 and "instead_of" not in said)


def way_back(warehouse: str, night: date) -> Publication | None:
    """The latest way back that a night begins from: one to an earlier night. None where nobody went back."""
    backs = (each if each.instead_of else each.way_back for each in reversed(publications(warehouse)))
    back = next(filter(None, backs), None)
    return back if back and back.night < night else None
