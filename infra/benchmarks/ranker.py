"""The ranker's data path: two training processes against one, and scoring through Spark against the bare network.

Training: `train` as the night calls it, in Horovod processes on Spark's executors, from a Parquet file of examples.
Examples/s are those of whole epochs, their evaluation included, from the second epoch on. A process has one thread in
either case, as a rank on a 2-core host of two has; one process with both cores is shown too. Equal work: the losses of
every epoch agree to half a percent.

Scoring: `with_score` of a network alone in local[2] on rows whose features are cached, to Spark's noop sink. The bare
network is the same one in torch, in double precision, in one process, fed with slices of a matrix in memory: of 1,024,
4,096 and 16,384 rows, with one thread and with two; the fastest counts. Equal work: the same score for every row.
Everything is warm. What the compiled network reaches in memory with one thread is shown beside.
"""

from __future__ import annotations

import datetime as dt
import itertools
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import measure
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from measure import Report, side_by_side
from pyspark import cloudpickle

from nightrec.config import Ranker, Spark
from nightrec.features import FEATURES
from nightrec.launch import on_executors
from nightrec.session import session

CORES = 2
# Thirty steps per epoch and eight; the default, 1,024, is meant for logs of some thousand examples.
LARGE_BATCHES = (16_384, 65_536)
_WIDTH = len(FEATURES)


def versions() -> dict[str, str]:
    """What the figures depend on."""
    return measure.versions("torch", "horovod", "pyspark", "pyarrow")


def run(report: Report, *, smoke: bool) -> None:
    """Train, then score."""
    # Spark's workers do not know this folder: the functions of this module travel to them whole.
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    spark = session(Spark(master=f"local[{CORES}]", partitions=CORES, driver_memory="3g"), "ranker", warm=True)
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = planted(Path(folder) / "examples.parquet", 4_000 if smoke else 500_000, seed=4)
            rates = {
                batch: _training(report, spark, file, 4_000 if smoke else 500_000, batch, 1 if smoke else 3)
                for batch in (Ranker().batch, *LARGE_BATCHES)
            }
            _goal(report, rates)
        _scoring(report, spark, 5_000 if smoke else 1_000_000, 1 if smoke else 3)
    finally:
        spark.stop()


def planted(file: Path, count: int, seed: int) -> Path:
    """`count` examples of a fold and a fifth as many of the next, 100 a user; the first features decide the label."""
    rng = np.random.default_rng(seed)
    with pq.ParquetWriter(file, _table(rng, 100, 0).schema) as writer:
        for fold, rows in enumerate((count, count // 5)):
            for start in range(0, rows, 100_000):
                writer.write_table(_table(rng, min(100_000, rows - start), fold, start), row_group_size=50_000)
    return file


def _table(rng: np.random.Generator, rows: int, fold: int, start: int = 0) -> pa.Table:
    values = rng.normal(size=(rows, _WIDTH)).astype(np.float32)
    chance = 1 / (1 + np.exp(-(values[:, 0] * values[:, 1] + 2 * values[:, 2] - 3)))
    number = np.arange(start, start + rows)
    return pa.table({
        "fold": pa.array([fold] * rows, pa.int32()),
        "is_lesson": [True] * rows,
        "cut_date": [(dt.date(2026, 2, 10), dt.date(2026, 2, 24))[fold]] * rows,
        "user_id": [f"user-{user}" for user in number // 100],
        "item_id": [f"item-{item}" for item in number * 7919 % 20_011],
        "label": (rng.random(rows) < chance).astype(np.float32),
        "kinds": pa.array([[]] * rows, pa.list_(pa.string())),
        "rating": pa.nulls(rows, pa.float64()),
        "features": pa.ListArray.from_arrays(np.arange(rows + 1, dtype=np.int32) * _WIDTH, values.reshape(-1)),
    })


def _goal(report: Report, rates: dict[int, tuple[str, float]]) -> None:
    why = (
        "averaging takes 1 to 2 ms a step whatever the batch (Horovod wakes once a millisecond, agrees with the others "
        "that all are ready, and is asked for the result once a millisecond), a step of one process 2.3 ms at batch "
        "1024, 26 ms at 16384 and 105 ms at 65536. The largest batches are bound by memory: two processes that share "
        "nothing, side by side, did 1.6 to 2.1 times the work of one. Waking more often (HOROVOD_CYCLE_TIME 0.5) is "
        "within the noise, less often (3) slower"
    )
    report.note(f"two processes at batch {Ranker().batch}: {rates[Ranker().batch][1]:.2f} times one")
    for batch in LARGE_BATCHES:
        report.goal(f"ranker, two training processes over one, batch {batch}", *rates[batch], 1.6, why=why)


def _training(
    report: Report, spark: Any, file: Path, examples: int, batch: int, runs: int
) -> tuple[str, float]:
    """The case, and how much faster two processes are than one."""
    settings = Ranker(loss="binary", batch=batch, epochs=5, patience=5, trees=0)
    case = f"training, {examples} examples, batch {batch}"
    found: dict[str, list[dict[str, Any]]] = {}

    def contestant(name: str, processes: int, threads: int) -> Callable[[], None]:
        def work() -> None:
            function = partial(_timed_training, partial(pads.dataset, str(file)), settings, threads)
            found.setdefault(name, []).append(on_executors(spark, function, processes, 120)[0])

        return work

    one, both, two = "one process, one thread", "one process, two threads", "two processes"
    contestants = {one: contestant(one, 1, 1), two: contestant(two, 2, 1)}
    if batch in LARGE_BATCHES:
        contestants[both] = contestant(both, 1, 2)
    side_by_side(contestants, runs)
    rates = {
        name: report.figure(
            case, name, "examples/s", [examples / one_run["epoch_s"] for one_run in results],
            steps_only_per_s=float(np.median([examples / one_run["steps_s"] for one_run in results])),
            valid_loss=results[0]["losses"][-1][1], private_MB=results[0]["private_MB"],
            mapped_MB=results[0]["mapped_MB"], prepare_s=results[0]["prepare_s"],
        ).median
        for name, results in found.items()
    }
    losses = [np.array(found[name][0]["losses"]) for name in (one, two)]
    # Another order of rounding grows with the steps: .35 % after 2,400 of 1,024 examples, .0001 % after 40 large ones.
    gap = float(np.abs(losses[0] / losses[1] - 1).max())
    report.check(case, gap < 5e-3, f"losses of {len(losses[0])} epochs of one and two processes differ by {gap:.1e}")
    return case, rates[two] / rates[one]


def _timed_training(read: Callable[[], Any], settings: Ranker, threads: int) -> dict[str, Any]:
    """Learn from the first fold in this rank with so many threads, and look at the clock around each evaluation."""
    import torch

    from nightrec.ranker import fit
    from nightrec.ranker.lessons import Lessons
    from nightrec.ranker.train import splits

    started = time.perf_counter()
    stamps: list[tuple[float, float]] = []
    device, evaluate = fit._device, fit.evaluate

    def timed(*arguments: Any) -> tuple[float, float]:
        before = time.perf_counter()
        result = evaluate(*arguments)
        stamps.append((before, time.perf_counter()))
        return result

    def bounded() -> Any:
        found = device()
        torch.set_num_threads(threads)
        return found

    fit._device, fit.evaluate = bounded, timed
    try:
        examples, _ = splits(read)
        lessons = examples.before(1)
        _, curve = fit.fitted(lessons, settings, None, settings.epochs, Lessons.of(examples.of(1), lessons, settings))
    finally:
        fit._device, fit.evaluate = device, evaluate
    epochs = [after - before for (_, before), (_, after) in itertools.pairwise(stamps)]
    steps = [begun - before for (_, before), (begun, _) in itertools.pairwise(stamps)]
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return {
        "epoch_s": float(np.median(epochs)),
        "steps_s": float(np.median(steps)),
        "prepare_s": stamps[0][0] - started - float(np.median(steps)),
        "losses": [(epoch["train_loss"], epoch["valid_loss"]) for epoch in curve],
        "private_MB": int(status["RssAnon"].split()[0]) / 1024,
        "mapped_MB": (int(status["RssFile"].split()[0]) + int(status["RssShmem"].split()[0])) / 1024,
    }


def _network(folder: Path) -> tuple[Any, Path, str]:
    """A trained-looking network of the default size, also on disk, and the file's fingerprint."""
    import torch

    from nightrec.ranker import heads, members, model
    from nightrec.ranker.blend import Blend

    torch.manual_seed(4)
    made = heads.Network(torch.zeros(_WIDTH), torch.ones(_WIDTH), torch.tensor(-1.0), Ranker().hidden)
    file = folder / "model.safetensors"
    packed = members.packed({"network_binary": model.dumped(made)}, {}, Blend({"network_binary": 1.0}, 1.0, 0.0), {})
    return made, file, model.write(packed, file)


def _scoring(report: Report, spark: Any, rows: int, runs: int) -> None:
    import torch
    from pyspark.sql import functions as F

    from nightrec.ranker import members, model, score

    case = f"scoring {rows} rows"
    # Values of 24 bits, which a float holds exactly, so that the matrix below is the same.
    values = [(F.col("id") * (2 * n + 3) + n * 7919) % 16_777_213 / 4_194_304 - 2 for n in range(_WIDTH)]
    features = F.array(*(value.cast("float") for value in values))
    examples = spark.range(0, rows, 1, CORES).select("id", features.alias("features")).cache()
    examples.count()
    number = np.arange(rows)[:, None]
    column = np.arange(_WIDTH)
    matrix = ((number * (2 * column + 3) + column * 7919) % 16_777_213 / 4_194_304 - 2).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        made, file, sha256 = _network(Path(folder))
        blob = model.read(file, sha256)
    network = made.double().eval()
    direct = members.unpacked(blob).networks["network_binary"]

    def bare(size: int, threads: int) -> Any:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            parts = [
                torch.sigmoid(network(torch.from_numpy(matrix[start : start + size]).double()))
                for start in range(0, rows, size)
            ]
        return torch.cat(parts).numpy()

    scored = score.with_score(examples, blob, sha256, {}).select("id", "score")

    def through_spark() -> None:
        scored.write.format("noop").mode("overwrite").save()

    through_spark(), through_spark(), direct.probabilities(matrix[:100])
    names = {
        f"bare network, {size} rows at once, threads: {threads}": partial(bare, size, threads)
        for size in (1024, 4096, 16_384)
        for threads in (1, CORES)
    }
    ours, own = "nightrec through Spark", "nightrec's kernel in memory, one thread"
    contestants = {**names, own: partial(direct.probabilities, matrix), ours: through_spark}
    seconds = side_by_side(contestants, runs)
    rates = {
        name: report.figure(case, name, "rows/s", [rows / value for value in values]).median
        for name, values in seconds.items()
    }
    found = scored.toArrow().sort_by("id")["score"].to_numpy()
    gap = float(np.abs(found - bare(4096, 1).clip(1e-7, 1 - 1e-7)).max())
    report.check(case, gap <= 1e-7, f"largest difference of a score {gap:.1e}; scores are rounded to 7 digits")
    best = max(rates[name] for name in names)
    why = (
        "of 0.9 core seconds per million rows the network takes 0.15; the rest is Spark writing 30 floats a row into "
        "Arrow, one call each, and moving them to Python. Larger or smaller record batches and Unix sockets instead of "
        "TCP changed less than the noise (0.33 to 0.51 in four runs)"
    )
    report.goal("ranker, scoring through Spark over the bare network", case, rates[ours] / best, 0.5, why=why)
    examples.unpersist()
