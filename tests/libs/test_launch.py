"""What becomes of a training whose process dies, hangs or fails: real processes, really killed and stopped."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from nightrec.errors import BadInput, NightrecError, TrainingFailed, UsageError
from nightrec.launch import on_executors


def failure(spark, function: Callable[[], object], folder: Path, deadline_s: float | None = None) -> tuple[str, float]:
    """How training by two processes fails, and how many seconds after they all began."""

    def told() -> object:
        import horovod.torch as hvd

        hvd.barrier()
        # The same clock in every process of a machine.
        (folder / f"{hvd.rank()}").write_text(f"{os.getpid()} {time.monotonic()}")
        return function()

    with pytest.raises(TrainingFailed) as caught:
        on_executors(spark, told, 2, 60, deadline_s)
    failed = time.monotonic()
    return str(caught.value), failed - min(float(file.read_text().split()[1]) for file in folder.iterdir())


def ended(folder: Path, rank: int) -> str:
    """The pid of a process that is not there any more, 10 s after the failure at the latest."""
    pid = (folder / str(rank)).read_text().split()[0]
    until = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()
    return pid


def test_a_killed_process_is_named_and_the_next_training_works(spark, tmp_path, capfd) -> None:
    def one_dies() -> None:
        import signal

        import horovod.torch as hvd
        import torch

        if hvd.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        hvd.allreduce(torch.ones(1))

    def ranks() -> tuple[object, ...]:
        import horovod.torch as hvd

        return hvd.rank(), hvd.size(), hvd.local_rank(), os.environ["HOROVOD_GLOO_IFACE"]

    said, seconds = failure(spark, one_dies, tmp_path)
    pid = ended(tmp_path, 1)
    assert said.startswith(f"training process 1 of 2 (pid {pid} on ") and "died without a word, as of SIGKILL" in said
    assert seconds < 30
    # The other one's own error, by which it learned of it, is in the log too.
    log = capfd.readouterr().err
    assert "training process 0 of 2" in log and "HorovodInternalError" in log and "training process 1 of 2" in log
    assert on_executors(spark, ranks, 2, 60) == [(0, 2, 0, "lo"), (1, 2, 1, "lo")]


def test_a_process_is_patient_while_it_trains_and_no_longer(spark) -> None:
    def policy() -> tuple[int, int]:
        import threading

        found: list[int] = []
        begun = threading.Thread(target=lambda: found.append(os.sched_getscheduler(0)))
        begun.start()
        begun.join()
        return os.sched_getscheduler(0), found[0]

    def policies(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for _ in batches:
            yield pa.RecordBatch.from_pydict({"policy": pa.array([os.sched_getscheduler(0)], pa.int32())})

    assert on_executors(spark, policy, 2, 60) == [(os.SCHED_BATCH, os.SCHED_BATCH)] * 2
    later = spark.range(2).mapInArrow(policies, "policy int").toArrow()["policy"].to_pylist()
    assert set(later) == {os.SCHED_OTHER}


@pytest.mark.parametrize(("number", "name"), [("SIGSEGV", "Segmentation fault"), ("SIGTERM", "SIGTERM")])
def test_the_signal_is_told_where_it_leaves_words(spark, tmp_path, capfd, number: str, name: str) -> None:
    def one_crashes() -> None:
        import signal

        import horovod.torch as hvd
        import torch

        if hvd.rank() == 0:
            os.kill(os.getpid(), signal.Signals[number])
        hvd.allreduce(torch.ones(1))

    said, seconds = failure(spark, one_crashes, tmp_path)
    assert said.startswith(f"training process 0 of 2 (pid {ended(tmp_path, 0)} on ") and name in said
    assert "in one_crashes" in capfd.readouterr().err and seconds < 30


def test_a_stopped_process_is_ended_at_the_deadline(spark, tmp_path, capfd) -> None:
    def one_stops() -> None:
        import signal

        import horovod.torch as hvd
        import torch

        if hvd.rank() == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        hvd.allreduce(torch.ones(1))

    said, seconds = failure(spark, one_stops, tmp_path, deadline_s=5)
    pid = ended(tmp_path, 1)
    ended(tmp_path, 0)
    assert said == (
        f"training process 1 of 2 (pid {pid} on {os.uname().nodename}) does not answer: it was stopped, or its machine "
        "is gone; no training process had got on for 5 s, and all were ended"
    )
    assert 5 < seconds < 30
    # Where the other one was when it was ended.
    assert "training process 0 of 2" in (log := capfd.readouterr().err) and "hvd.allreduce" in log


def test_a_process_that_sleeps_is_ended_while_one_that_gets_on_is_not(spark, tmp_path) -> None:
    def one_sleeps() -> None:
        import horovod.torch as hvd
        import torch

        from nightrec.lifeline import progress

        if hvd.rank() == 0:
            # Longer than the deadline, step by step.
            for _ in range(26):
                time.sleep(0.25)
                progress()
            time.sleep(600)
        hvd.allreduce(torch.ones(1))

    said, seconds = failure(spark, one_sleeps, tmp_path, deadline_s=5)
    assert f"training process 0 of 2 (pid {ended(tmp_path, 0)} on " in said and "time.sleep(600)" in said
    assert "process 1" not in said and 10 < seconds < 40
    ended(tmp_path, 1)


def test_every_process_tells_its_own_error(spark, capfd) -> None:
    def both_fail() -> None:
        import horovod.torch as hvd

        raise ZeroDivisionError(f"number {hvd.rank()} had no luck")

    with pytest.raises(TrainingFailed, match=r"process 0 of 2 \(pid .*\) failed: ZeroDivisionError: number 0 had"):
        on_executors(spark, both_fail, 2, 60)
    log = capfd.readouterr().err
    for rank in (0, 1):
        _, after = log.split(f"training process {rank} of 2 (pid ", 1)
        trace = after.split("training process", 1)[0]
        assert ", in both_fail\n" in trace and trace.endswith(f"\nZeroDivisionError: number {rank} had no luck\n")


def test_the_first_error_is_told_and_not_that_a_partner_has_gone(spark, capfd) -> None:
    def one_fails() -> None:
        import horovod.torch as hvd
        import torch

        if hvd.rank() == 1:
            raise ZeroDivisionError("number one had no luck")
        # number 0 waits for number 1, and is told that it has gone
        hvd.allreduce(torch.ones(1))

    with pytest.raises(NightrecError, match=r"process 1 of 2 .* failed: ZeroDivisionError: number one had no luck"):
        on_executors(spark, one_fails, 2, 60)
    log = capfd.readouterr().err
    assert log.count("training process 0") == log.count("training process 1") == 1 and "HorovodInternalError" in log


def test_a_process_that_knows_nothing_of_another_s_failure_is_ended(spark, tmp_path) -> None:
    """Trees of a kind grow in one process: it would go on for minutes for nothing."""

    def one_fails() -> None:
        import horovod.torch as hvd

        if hvd.rank() == 1:
            raise BadInput("a user's mistake")
        (tmp_path / "0").write_text(str(os.getpid()))
        time.sleep(600)

    started = time.monotonic()
    with pytest.raises(BadInput, match="a user's mistake"):
        on_executors(spark, one_fails, 2, 60)
    assert time.monotonic() - started < 30
    ended(tmp_path, 0)


def test_too_few_slots_is_said_at_once(spark) -> None:
    started = time.monotonic()
    said = r"horovod.processes = 3, but the session on local\[2\] has 2 task slots; give"
    with pytest.raises(UsageError, match=said):
        on_executors(spark, lambda: None, 3, 600)
    assert time.monotonic() - started < 30
