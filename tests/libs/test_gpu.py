"""Which GPU a process takes, on hosts with as many as a test says. No Spark, no GPU."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from pyspark import TaskContext

from nightrec import gpu


@pytest.mark.parametrize(
    ("seen", "given", "place", "own"),
    [
        (0, None, 0, None),
        (1, None, 0, 0),
        (1, None, 1, None),  # the second process of a host with one
        (4, None, 3, 3),
        (4, "2", 0, 2),  # what Spark gave goes before the place
        (1, "3", 0, 0),  # an address of the host, in a container that shows its one GPU as the first
        (2, "GPU-8d96dfac", 1, 1),  # an address that is no index
    ],
)
def test_a_process_takes_what_spark_gave_it_else_the_one_at_its_place(
    monkeypatch: pytest.MonkeyPatch, seen: int, given: str | None, place: int, own: int | None
) -> None:
    dealt = {"gpu": SimpleNamespace(addresses=[given])} if given else {}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    monkeypatch.setattr(TaskContext, "get", lambda: SimpleNamespace(resources=lambda: dealt))
    assert gpu.own(place) == own


def test_outside_a_task_the_place_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert (gpu.own(1), gpu.own(2)) == (1, None)


def test_all_train_on_gpus_or_none_does() -> None:
    assert gpu.each_has_its_own(["a", "b"])
    assert not gpu.each_has_its_own(["a", "a"])  # one GPU for two: NCCL would refuse
    assert not gpu.each_has_its_own(["a", None])
