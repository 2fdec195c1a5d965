"""One night that dies at every place in turn: each run is killed at the next place, the one after goes on from there.

A place that is reached in an undisturbed run and that no kill landed at is a failure.
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
class Kill:
    """Where and when a run was killed, and what readers saw right after."""

    place: str
    at: float
    seconds: float
    seen: Seen


def places(log: Path) -> list[str]:
    """Every place of a log of places, in the order in which they were first reached."""
    return list(dict.fromkeys(line.split()[1] for line in log.read_text().splitlines()))


def killed_at_each(
    drivers: WarmDrivers, deployment: Path, night: str, wanted: Sequence[str], check: Callable[[Kill], None]
) -> tuple[list[Kill], Ended]:
    """Kill a run of the night at each place in turn, then let one end; the kills that landed, and that last run.

    After a commit comes another run that loses the reply to the same commit.
    """
    kills: list[Kill] = []
    words = ("run", "--config", deployment / "nightrec.toml", "--date", night)
    for place in wanted:
        ended = drivers.run(*words, NIGHTREC_FAILPOINT=f"{place}:kill")
        assert ended.was_killed, f"no kill landed at {place}: {ended.code} {ended.said[-2000:]}"
        kills.append(Kill(place, time.time(), ended.seconds, look(str(deployment / "warehouse" / PUBLISHED_TOPK.name))))
        check(kills[-1])
        if place.endswith(".after_commit"):
            ended = drivers.run(*words, NIGHTREC_FAILPOINT=f"{place}:error")
            assert ended.code == 1 and f"a test's failure at {place}" in ended.said, ended.said[-2000:]
            assert "Traceback" not in ended.said, ended.said[-2000:]
    return kills, drivers.run(*words)
