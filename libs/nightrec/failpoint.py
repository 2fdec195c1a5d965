"""Named places at which a test makes a run fail, to see that nothing is lost. Without the variables nothing happens.

    NIGHTREC_FAILPOINT=published_topk.before_commit:kill    what the process does the first time it gets there
    NIGHTREC_FAILPOINT=ledger.after_commit#3:error          ... the third time
    NIGHTREC_FAILPOINT_LOG=FILE                             every place that is passed is a line: process, place

kill: SIGKILL itself; error: raise OSError, as where a reply is lost; full: raise it as a full disk does; pause: SIGSTOP
itself, until somebody sends SIGCONT. Executors and training processes inherit both variables in local mode.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter
from pathlib import Path

PLACE, LOG = "NIGHTREC_FAILPOINT", "NIGHTREC_FAILPOINT_LOG"
_passed: Counter[str] = Counter()


def reach(place: str) -> None:
    """Say that a run is at a place. Raises OSError, or does not return, where a test asked for that."""
    asked = os.environ.get(PLACE)
    log = os.environ.get(LOG)
    if asked is None and log is None:
        return
    _passed[place] += 1
    if log:
        with Path(log).open("a", encoding="utf-8") as lines:
            lines.write(f"{os.getpid()} {place}\n")
    if asked is None:
        return
    name, _, action = asked.partition(":")
    wanted, _, number = name.partition("#")
    if place == wanted and _passed[place] == int(number or 1):
        _fail(place, action)


def _fail(place: str, action: str) -> None:
    if action in ("kill", "pause"):
        os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)
    elif action == "full":
        raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)} (a test's, at {place})")
    elif action == "error":
        raise OSError(f"a test's failure at {place}")
    else:
        raise ValueError(f"{PLACE}: no action {action!r}; there are kill, pause, error and full")
