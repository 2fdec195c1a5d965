"""Twelve random kills of whole process trees, over two nights: the same lists, books and tables in the end.

`make soak` does the same with as many kills as one likes, and with executors of a cluster: infra/soak.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from deployments import Base
from killer import Run, kill
from rounds import played

SEED = 11
# In the first night, which trains, and in the second. Training processes first, while there is something to train.
PLAN = (("rank", "rank", "driver", "jvm", "worker", "jvm", "daemon"), ("driver", "worker", "jvm", "driver", "jvm"))


@pytest.mark.timeout(1500)
def test_random_kills_change_nothing(base: Base, tmp_path: Path) -> None:
    found = played(base, tmp_path / f"round-{SEED}", random.Random(SEED), PLAN)
    for one in found.kills:
        print(one.as_dict())
    assert not found.complaints
    wanted = [target for night in PLAN for target in night]
    assert len(found.kills) == len(wanted) and found.kills[0].target == "rank"
    for one, target in zip(found.kills, wanted, strict=True):
        # A training process that is hit when its work is done leaves none to be hit: a worker in its place.
        assert one.target in ((target, "worker") if target == "rank" else (target,))
    assert {snapshot.digest for snapshot in found.seen} == set(base.lawful)
    assert found.looks > 100


def test_a_kill_that_lands_nowhere_is_a_complaint(base: Base, tmp_path: Path) -> None:
    """The night is done: its run ends at once, and there is nothing to be killed."""
    run = Run(base.copy(1, tmp_path / "shop"), base.nights[0], "nowhere", tmp_path / "run")
    found = kill(run, 1, "worker", random.Random(1), 5)
    assert found.code == 0 and "hit nothing" in found.complaints[0]
