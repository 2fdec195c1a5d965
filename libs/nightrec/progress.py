"""What a person sees while a stage works: one moving line with Spark's tasks. Nothing where output is no terminal."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_POLL_S = 0.3


class StageProgress:
    """Watches the stages of a run: the label, the time and the tasks of the Spark jobs that are running."""

    def __init__(self, spark: SparkSession, console: Console) -> None:
        self._spark = spark
        self._console = console

    @contextmanager
    def __call__(self, label: str) -> Iterator[None]:
        """Show one stage while it runs, under its name in Spark's own pages too."""
        self._spark.sparkContext.setJobDescription(label)
        if not self._console.is_terminal:
            yield
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(24),
            TextColumn("{task.fields[tasks]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            line = progress.add_task(label, total=None, tasks="")
            done = threading.Event()
            poller = threading.Thread(target=self._poll, args=(progress, line, done), daemon=True)
            poller.start()
            try:
                yield
            finally:
                done.set()
                poller.join()

    def _poll(self, progress: Progress, line: TaskID, done: threading.Event) -> None:
        tracker = self._spark.sparkContext.statusTracker()
        while not done.wait(_POLL_S):
            # Stage information may be gone by the time it is asked for.
            stages = [info for id_ in tracker.getActiveStageIds() if (info := tracker.getStageInfo(id_)) is not None]
            total = sum(info.numTasks for info in stages)
            finished = sum(info.numCompletedTasks for info in stages)
            told = f"{finished}/{total} tasks" if total else ""
            progress.update(line, total=total or None, completed=finished, tasks=told)
