"""One night that stops at every place in turn: each run is stopped at the next place, the one after goes on from there.

A place that an undisturbed run passes and at which no stop landed is a failure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from warm_drivers import Ended, WarmDrivers
from witness import Seen, look

from nightrec.tables import PUBLISHED_TOPK


@dataclass(frozen=True)
class Stop:
    """Where, how and when a run was stopped, how it ended, and what readers saw right after."""

    place: str
    action: str
    at: float
    ended: Ended
    seen: Seen


def stopped_at_each(
    drivers: WarmDrivers, deployment: Path, night: str, wanted: Sequence[tuple[str, str]], check: Callable[[Stop], None]
) -> Ended:
    """Stop a run of the night at each place in turn by its action, `check` each stop, then let one end.

    The action `rank` kills training processes, which come to places of their own; a driver survives that and says so.
    AssertionError where a run is not stopped: it would have ended the night, or failed before.
    """
    words = ("run", "--config", deployment / "nightrec.toml", "--date", night)
    for place, action in wanted:
        of_ranks = action == "rank"
        point = f"{place}:{'kill' if of_ranks else action}"
        ended = drivers.run(*words, in_workers=of_ranks, NIGHTREC_FAILPOINT=point)
        told = "training process" if of_ranks else place
        said = " ".join(ended.said.split())  # without a console's line breaks
        landed = ended.was_killed if action == "kill" else ended.code == 1 and told in said
        assert landed, f"no {action} landed at {place}: {ended.code} {ended.said[-2000:]}"
        seen = look(str(deployment / "warehouse" / PUBLISHED_TOPK.name))
        check(Stop(place, action, time.time(), ended, seen))
    return drivers.run(*words)
