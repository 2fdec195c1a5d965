"""How time and memory of every stage of a night grow with the log: 1, 5 and 25 million events on 2 cores.

    python infra/benchmarks/growth.py --sizes 1 5

Each size is a deployment of its own, enlarged from one real log (`enlarge.py`), and its first night in one session of
its own: everything is cleaned, models are trained, lists published. While a stage runs, the resident memory of the JVM
and of each Python worker is sampled.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import enlarge
import measure
import numpy as np
import psutil
from measure import Report, fresh

MILLION = 10**6
SIZES = (1.0, 5.0, 25.0)
HEAP = "3g"


@dataclass
class Peaks:
    """Most resident memory seen, in bytes: of the JVM, of the largest Python worker, of the driver's own Python."""

    jvm: int = 0
    worker: int = 0
    driver: int = 0


@dataclass
class Sampler:
    """Samples this process's children; `stages` has the peaks by stage label."""

    stages: dict[str, Peaks] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    label: str = ""

    def watch(self) -> None:
        me = psutil.Process()
        while True:
            peaks = self.stages.get(self.label)
            if peaks:
                peaks.driver = max(peaks.driver, me.memory_info().rss)
                for child in me.children(recursive=True):
                    with suppress(psutil.Error):
                        size = child.memory_info().rss
                        if child.name() == "java":
                            peaks.jvm = max(peaks.jvm, size)
                        elif child.name().startswith("python"):  # not a JVM's thread that is about to become one
                            peaks.worker = max(peaks.worker, size)
            time.sleep(0.2)

    @contextmanager
    def __call__(self, label: str) -> Iterator[None]:
        self.stages[label], self.label = Peaks(), label
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[label] = time.monotonic() - start
            print(f"    {label}: {self.seconds[label]:.1f} s, {self.stages[label]}", flush=True)


def night(folder: str, day: str) -> dict[str, tuple[float, Peaks]]:
    """Run a deployment's first night; seconds and peaks by label."""
    from nightrec import config as configuration
    from nightrec import runner
    from nightrec.night import Night
    from nightrec.session import session

    settings = configuration.load(Path(folder) / "nightrec.toml")
    sampler = Sampler()
    threading.Thread(target=sampler.watch, daemon=True).start()
    spark = session(settings.spark, "growth", warm=True)
    with Night(spark, settings, date.fromisoformat(day), warm=True) as opened:
        for _ in runner.run(opened, sampler):
            pass
    spark.stop()
    return {label: (sampler.seconds[label], peaks) for label, peaks in sampler.stages.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--partitions", type=int, default=4)
    asked = parser.parse_args()
    folder = Path(asked.folder)
    (folder / "nightrec.toml").write_text(f'[spark]\nmaster = "local[2]"\npartitions = {asked.partitions}\ndriver_memory = "{HEAP}"\n')
    last = max(path.name[-10:] for path in (folder / "raw/events").iterdir())
    start = time.monotonic()
    found = night(str(folder), last)
    print(f"total {time.monotonic() - start:.0f}")
    for label, (seconds, p) in found.items():
        print(f"{label:40} {seconds:8.1f} s  jvm {p.jvm/2**20:6.0f}  worker {p.worker/2**20:6.0f}  driver {p.driver/2**20:6.0f}")


if __name__ == "__main__":
    main()
