"""How long the rest takes, by rounds whose time is known."""

from __future__ import annotations

import time

from nightrec.evaluation.pace import Pace


def test_the_rest_takes_as_long_as_what_is_done_and_no_longer_than_permitted() -> None:
    now = time.monotonic()
    assert Pace(4, started=now - 100).told() == "1 of 4, some 300 s left"
    assert Pace(4, done=2, started=now - 90).told() == "3 of 4, some 30 s left"
    assert Pace(4, 150.0, started=now - 100).told() == "1 of 4, some 50 s left"
    assert Pace(None, 50.0, started=now - 100).told() == "1, some 0 s left"
    assert Pace(None).told() == "1"
