"""How long the parts of a stage took: each source, the network, the trees. Seconds by name, added up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from pyspark.accumulators import AccumulatorParam

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Where work that has a name is done: `with clock("als"): ...`. Whoever does not ask gives contextlib.nullcontext.
Clock = Callable[[str], AbstractContextManager[object]]


class _Adding(AccumulatorParam[dict[str, float]]):
    def zero(self, value: dict[str, float]) -> dict[str, float]:
        return dict.fromkeys(value, 0.0)

    def addInPlace(self, value1: dict[str, float], value2: dict[str, float]) -> dict[str, float]:
        return {name: value1.get(name, 0.0) + value2.get(name, 0.0) for name in {**value1, **value2}}


class Stopwatch:
    """A Clock for the driver and for the functions that Spark's tasks run alike: it travels with them.

    What runs on several cores at once counts on each of them, so that the parts of a stage may come to more seconds
    than it took; a task that is run again counts again. What is timed within a part counts there alone. Seconds of
    tasks are there once their query is done.
    """

    def __init__(self, spark: SparkSession) -> None:
        self._total = spark.sparkContext.accumulator({}, _Adding())
        self._inner = [0.0]  # of each part that is open, seconds of those within

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Add the seconds until the `with` ends to those of a part, also where it ends with an error."""
        started = time.perf_counter()
        self._inner.append(0.0)
        try:
            yield
        finally:
            took = time.perf_counter() - started
            self.add({part: took - self._inner.pop()})
            self._inner[-1] += took

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add what was measured otherwise."""
        self._total.add(dict(seconds))

    def seconds(self) -> dict[str, float]:
        """By part, most first, ties by name. On the driver alone."""
        return dict(sorted(self._total.value.items(), key=lambda part: (-part[1], part[0])))
