"""Which GPU a process works on, where its host has any."""

from __future__ import annotations

from collections.abc import Sequence


def own(place: int) -> int | None:
    """The index of this process's GPU among those it sees: the one that Spark gave its task (spark.task.resource.gpu),
    else the one at `place`, its number among the processes of its host. None where it does not see so many.
    """
    import torch

    seen = torch.cuda.device_count()
    return next((index for index in (_given(), place) if index is not None and index < seen), None)


def _given() -> int | None:
    """The address of the GPU that Spark gave the running task; None outside a task and where it gave none."""
    from pyspark import TaskContext

    task = TaskContext.get()
    gpu = task.resources().get("gpu") if task else None
    return int(gpu.addresses[0]) if gpu and gpu.addresses[0].isdigit() else None


def identity(index: int) -> str:
    """What tells a GPU from all others of a job."""
    import torch

    return str(torch.cuda.get_device_properties(index).uuid)


def each_has_its_own(gpus: Sequence[str | None]) -> bool:
    """Whether all processes of a job, of which each told its GPU, can train on them: NCCL refuses two on one GPU."""
    return None not in gpus and len(set(gpus)) == len(gpus)
