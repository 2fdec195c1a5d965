"""How time and memory of every stage of a night grow with the log: 1, 5 and 25 million events on 2 cores.

    python infra/benchmarks/growth.py --sizes 1 5

Each size is a deployment of its own, enlarged from one real log (`enlarge.py`), and its first night in a session of its
own: everything is cleaned, models are trained, lists published. While a stage runs, the resident memory of the JVM and
of every Python process is sampled. Users and items grow alike, so that users x items grows as the events do.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import enlarge
import measure
import numpy as np
import psutil  # type: ignore[import-untyped]
from measure import Report, fresh

CHECKOUT = Path(__file__).resolve().parents[2]
MILLION = 10**6
SIZES = (1.0, 5.0, 25.0)
GOAL = 1.1

# The caps, the same for every size. The JVM: its heap, and 1 GiB for compiled code (512 MiB at most), classes, threads,
# and Arrow's and the network's buffers (0.7 GiB seen at 1 M). A Python process: 0.85 GiB of libraries, which workers
# share but each is charged for, and 1.25 GiB for the items' matrices and the batches at hand.
HEAP_GIB = 3.0
JVM_CAP_GIB = HEAP_GIB + 1.0
PYTHON_CAP_GIB = 2.1


@dataclass
class Seen:
    """One stage: seconds by the wall, processor seconds of all processes, most resident memory in bytes."""

    seconds: float = 0.0
    processor: float = 0.0
    jvm: int = 0
    python: int = 0


@dataclass
class Sampler:
    """Watches this process and its children while stages run; use it as the runner's watch."""

    stages: dict[str, Seen] = field(default_factory=dict)
    running: Seen | None = None

    @contextmanager
    def __call__(self, label: str) -> Iterator[None]:
        """Open and close the record of a stage."""
        seen = self.stages[label] = Seen()
        start, before = time.monotonic(), self._processor()
        self.running = seen
        try:
            yield
        finally:
            self.running = None
            seen.seconds, seen.processor = time.monotonic() - start, self._processor() - before
            print(f"    {label}: {seen.seconds:.0f} s, JVM {seen.jvm / 2**30:.2f} GiB, "
                  f"Python {seen.python / 2**30:.2f} GiB", flush=True)  # fmt: skip

    def start(self) -> None:
        """Sample five times a second until the process ends."""
        threading.Thread(target=self._sample, daemon=True).start()

    def _sample(self) -> None:
        while True:
            for process in self._family():
                # A forked JVM that is about to become another program is neither.
                with suppress(psutil.Error):
                    kind, size = process.name(), process.memory_info().rss
                    if (seen := self.running) and kind == "java":
                        seen.jvm = max(seen.jvm, size)
                    elif seen and kind.startswith("python"):
                        seen.python = max(seen.python, size)
            time.sleep(0.2)

    def _processor(self) -> float:
        total = 0.0
        for process in self._family():
            with suppress(psutil.Error):
                used = process.cpu_times()
                total += used.user + used.system + used.children_user + used.children_system
        return total

    @staticmethod
    def _family() -> list[psutil.Process]:
        me = psutil.Process()
        return [me, *me.children(recursive=True)]


def run(report: Report, *, smoke: bool, sizes: Sequence[float] = SIZES) -> None:
    """Measure `sizes`, in million events; with `smoke` four thousand."""
    found: dict[float, dict[str, Seen]] = {}
    for size in (0.004,) if smoke else sizes:
        with tempfile.TemporaryDirectory() as folder:
            events = fresh(deploy, folder, int(size * MILLION), smoke).result
            case = f"{size:g} M events"
            report.check(case, abs(events / (size * MILLION) - 1) < 0.1, f"{events} events were generated")
            found[events / MILLION] = fresh(night, folder).result
        for label, seen in found[events / MILLION].items():
            memory = {"jvm_GiB": round(seen.jvm / 2**30, 2), "python_GiB": round(seen.python / 2**30, 2)}
            report.figure(case, label, "s", [seen.seconds], processor_s=round(seen.processor), **memory)
    _exponents(report, found)
    _caps(report, found)


def _exponents(report: Report, found: dict[float, dict[str, Seen]]) -> None:
    """The exponent of every stage of pipeline.py over all sizes, and between the two largest of three."""
    from nightrec.pipeline import STAGES

    sizes = sorted(found)
    if len(sizes) < 2:
        return
    for stage in STAGES:
        seconds = [found[size][stage.name].seconds for size in sizes]
        report.check(f"growth of {stage.name}", True, " / ".join(f"{value:.0f} s" for value in seconds))
        report.goal(f"growth {stage.name}", f"growth of {stage.name}", exponent(sizes, seconds), GOAL, at_most=True)
        if len(sizes) > 2:
            last, name = exponent(sizes[-2:], seconds[-2:]), f"growth {stage.name} above {sizes[-2]:.0f} M"
            report.goal(name, f"growth of {stage.name}", last, GOAL, at_most=True)


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of log seconds over log events, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def _caps(report: Report, found: dict[float, dict[str, Seen]]) -> None:
    """The largest process of all sizes and stages beside its cap."""
    every = [seen for stages in found.values() for seen in stages.values()]
    why = (
        "looked at with 25 M events, beside a heap of 3.0 GiB: 0.5 in the C library's pools of 18 threads, 0.5 in a "
        "dozen large pieces of the collector and of Arrow, 0.2 classes, 0.1 compiled code. The cap was set by what 1 M "
        "needs; the pools can be made fewer (MALLOC_ARENA_MAX), which was not tried"
    )
    for name, peak, cap, reason in (
        ("memory of the JVM, GiB", max(seen.jvm for seen in every), JVM_CAP_GIB, why),
        ("memory of a Python process, GiB", max(seen.python for seen in every), PYTHON_CAP_GIB, ""),
    ):
        report.goal(name, name, peak / 2**30, cap, at_most=True, why=reason)


def versions() -> dict[str, str]:
    """Versions of what is measured."""
    return measure.versions("pyspark", "delta-spark", "torch", "horovod", "numba", "pyarrow")


def source(folder: Path, *, smoke: bool) -> str:
    """The raw root to enlarge: the real shop's beside the checkout, else MovieLens; the tests' shop with `smoke`."""
    sys.path += [str(CHECKOUT / "tests"), str(CHECKOUT / "infra/demo")]
    shop = CHECKOUT.parent / "shared/data/online_retail/raw"
    if smoke:
        from synthetic import write_raw

        write_raw(folder / "source", days=18)  # one past cut to learn from
        return str(folder / "source")
    if shop.is_dir():
        return str(shop)
    import movielens

    from nightrec.config import cache_folder

    movielens.deploy(cache_folder() / "movielens", folder / "source")
    return str(folder / "source/raw")


def deploy(folder: str, events: int, smoke: bool) -> int:
    """Write a deployment of about so many events; how many they are."""
    from nightrec.config import Spark
    from nightrec.session import session

    root = Path(folder)
    spark = session(Spark(master="local[2]", partitions=16, driver_memory="2g"), "enlarge")
    made = enlarge.enlarge(spark, source(root, smoke=smoke), root / "raw", events)
    spark.stop()
    # A partition of a shuffle holds a million events.
    (root / "nightrec.toml").write_text(
        f'[spark]\nmaster = "local[2]"\npartitions = {max(4, math.ceil(made.events / MILLION))}\n'
        f'driver_memory = "{HEAP_GIB:.0f}g"\n'
        # The tests' shop has 18 days; the default horizon asks for more.
        + ("\n[ranker]\nhorizon_days = 7\nepochs = 2\ntrees = 10\n" if smoke else "")
    )
    return made.events


def night(folder: str) -> dict[str, Seen]:
    """Run a deployment's first night, as of its last ingest date; what was seen of each stage, by its label."""
    from nightrec import config as configuration
    from nightrec import raw, runner
    from nightrec.night import Night
    from nightrec.session import session

    settings = configuration.load(Path(folder) / "nightrec.toml")
    day: date = raw.ingest_dates(settings.paths.raw, "events")[-1]
    sampler = Sampler()
    sampler.start()
    spark = session(settings.spark, "growth", warm=True)
    with Night(spark, settings, day, warm=True) as opened:
        for _ in runner.run(opened, sampler):
            pass
    spark.stop()
    return sampler.stages


def main() -> None:
    """Command line, for some of the sizes: 25 M take hours on a busy machine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=float, nargs="+", default=SIZES, help="million events")
    report = Report()
    run(report, smoke=False, sizes=parser.parse_args().sizes)
    print(*report.lines(), sep="\n")


if __name__ == "__main__":
    main()
