"""How far a search or an ablation has come, and how long it will go on."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Pace:
    """Rounds of about equal length: `of` in all, None for as many as `limit_s` seconds permit, None for no limit."""

    of: int | None
    limit_s: float | None = None
    done: int = 0
    started: float = field(default_factory=time.monotonic)

    def told(self) -> str:
        """One more is done: its number of all, and the seconds expected to be left, by the mean of those done."""
        self.done += 1
        took = time.monotonic() - self.started
        left = [] if self.of is None else [took / self.done * (self.of - self.done)]
        left += [] if self.limit_s is None else [self.limit_s - took]
        number = f"{self.done} of {self.of}" if self.of is not None else f"{self.done}"
        return f"{number}, some {max(0.0, min(left)):,.0f} s left" if left else number
