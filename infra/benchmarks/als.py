"""ALS beside Spark ML's and `implicit`'s: seconds an iteration at equal loss, a second worker, memory.

The pairs are made up: users and items drawn with a long tail, with planted tastes, every pair of weight 1, so that all
three minimise the same sum. Spark ML scales the penalty by the entries of a row and `implicit` does not: nightrec is
run with either, and each pair of contestants has one objective. nightrec's loss is its own record, whose formula tests
check; the others' is computed here.
"""

from __future__ import annotations

import statistics
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import measure
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from measure import Report, fresh, peak_memory
from scipy import sparse

RANKS, ALPHA, PENALTY, CORES = (64, 128), 10.0, 0.05, 2
# Pairs, users, items: one in a thousand cells and less, as in logs of shops and media.
SIZES = {"5M": (5_000_000, 100_000, 20_000), "25M": (25_000_000, 400_000, 60_000)}
SMOKE = {"tiny": (20_000, 500, 300)}
# Iterations of each contestant; every one of them is a run of the median. At 25 M Spark ML does one: it takes up to
# half an hour, and the others' first is as long as their later ones.
ITERATIONS = 3

SECOND = (
    "the half-steps alone are 1.86 times as fast (25 M, rank 64: 2.97 s in one process, 1.60 s in two); two processes "
    "that share nothing, side by side, did 1.6 to 2.1 times the work of one (bare half-steps of 5 M, rank 64: 0.25 to "
    "0.29 s alone, 0.27 to 0.33 s side by side), for the cores are shared with other machines; the rest goes into "
    "waiting for the slower process. Another run of the same code gave 1.65 and 1.66 at rank 64"
)
SPARK_ML = (
    "an iteration of two workers took 0.44 to 0.56 s with the penalty by frequency and 0.36 to 0.44 s without it, of "
    "equal work: cores are shared with other machines; another run of the same code gave 21.7"
)

Floats = npt.NDArray[np.float32]


def versions() -> dict[str, str]:
    """Versions of the contestants."""
    return measure.versions("nightrec", "pyspark", "implicit", "numba", "horovod")


def run(report: Report, *, smoke: bool) -> None:
    """All sizes and ranks; Spark ML's largest case takes most of the time."""
    with tempfile.TemporaryDirectory() as folder:
        for size, (pairs, users, items) in (SMOKE if smoke else SIZES).items():
            file = Path(folder) / f"{size}.parquet"
            write_pairs(file, pairs, users, items)
            for rank in (8,) if smoke else RANKS:
                one_case(report, f"als {size} rank {rank}", file, rank, 1 if pairs > 10**7 else ITERATIONS)


def write_pairs(file: Path, count: int, users: int, items: int, seed: int = 3) -> None:
    """`user`, `item`: distinct pairs, some `count` of them; two thirds of a user's lie in one of 50 tastes."""
    import pyarrow.parquet as pq

    draw = np.random.default_rng(seed)
    drawn = int(count * 1.12)
    user = (users * draw.random(drawn) ** 2).astype(np.int64)
    item = (items * draw.random(drawn) ** 2.5).astype(np.int64)
    own = draw.random(drawn) < 0.66
    item[own] = item[own] // 50 * 50 + user[own] % 50
    item = np.minimum(item, items - 1)
    keys = draw.permutation(np.unique(user * items + item))[:count]
    pq.write_table(
        pa.table({"user": (keys // items).astype(np.int32), "item": (keys % items).astype(np.int32)}), file
    )


def one_case(report: Report, case: str, file: Path, rank: int, spark_iterations: int) -> None:
    """One size and rank: all contestants on the same pairs, one after the other."""
    found: dict[str, Found] = {
        **fresh(nightrec, file, rank).result,
        "implicit, 2 threads": fresh(by_implicit, file, rank, threads=CORES).result,
        "Spark ML, 2 threads": fresh(by_spark_ml, file, rank, spark_iterations).result,
    }
    for name, one in found.items():
        told = " and ".join(f"{peak / 2**30:.2f}" for peak in one.peaks)
        report.figure(case, name, "s an iteration", one.seconds, loss=one.losses[-1], peak_GiB_by_process=told)
    medians = {name: statistics.median(one.seconds) for name, one in found.items()}
    pairs = (
        ("implicit", "implicit, 2 threads", "nightrec, 2 workers", 1.0, ""),
        ("Spark ML", "Spark ML, 2 threads", "nightrec, 2 workers, penalty by frequency", 20.0, SPARK_ML),
    )
    for peer, theirs, ours, goal, why in pairs:
        beside, after = f"{case} beside {peer}", found[theirs].iterations
        mine, other = found[ours].losses[after - 1], found[theirs].losses[-1]
        # Half a percent: `implicit` and nightrec start from other random factors.
        report.check(beside, mine <= other * 1.005, f"loss after {after} iterations {mine:,.0f}, theirs {other:,.0f}")
        report.goal(beside, beside, medians[theirs] / medians[ours], goal, why=why)
    one, two = found["nightrec, 1 worker"], found["nightrec, 2 workers"]
    report.check(f"{case} second worker", one.losses == two.losses, "the same losses with 1 and 2 workers, to the bit")
    ratio = medians["nightrec, 1 worker"] / medians["nightrec, 2 workers"]
    report.goal(f"{case} second worker", f"{case} second worker", ratio, 1.7, why=SECOND)
    bound = _bound(file, rank)
    report.note(f"{case}: a worker's training may take {bound / 2**30:.2f} GiB by the formula of nightrec.als.train")
    report.goal(f"{case} worker memory", case, max(two.added) / bound, 1, at_most=True)


@dataclass(frozen=True)
class Found:
    """Seconds of each iteration, the loss after each that is known, the peak of each process and, of nightrec's, what
    the training added to it."""

    seconds: list[float]
    losses: list[float]
    peaks: list[int]
    added: list[int] = field(default_factory=list)
    iterations: int = ITERATIONS


def _bound(file: Path, rank: int) -> float:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    from nightrec.als.train import memory

    pairs = pq.read_table(file)
    users, items = (pc.max(pairs[name]).as_py() + 1 for name in ("user", "item"))
    return memory(pairs.num_rows, users, items, rank, blocks=8, processes=CORES, gathered_bytes=2**31)


def nightrec(file: Path, rank: int) -> dict[str, Found]:
    """The product's training in Spark's barrier stage, with 1 and 2 workers, and with Spark ML's penalty."""
    from nightrec.als.factorize import entries
    from nightrec.als.objective import Objective
    from nightrec.als.train import Plan, train
    from nightrec.config import Spark
    from nightrec.launch import over_partitions
    from nightrec.session import session

    # As measure.peak_memory, which workers cannot import.
    def resident() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

    def trained(plan: Plan, batches: Any) -> tuple[Any, int, int]:
        """What a worker trained, its peak while it did, and how much that is above what it held before."""
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew: workers serve many stages
        before = resident()
        return train(plan, batches), resident(), resident() - before

    spark = session(Spark(master=f"local[{CORES}]", partitions=4, driver_memory="6g"), "benchmark", warm=True)
    pairs = spark.read.parquet(str(file)).selectExpr("user user_idx", "item item_idx", "float(1) weight")
    items = pairs.agg({"item_idx": "max"}).first()[0] + 1
    found = {}
    for name, workers, power in (
        ("warm-up", 2, 0.0),
        ("nightrec, 2 workers", 2, 0.0),
        ("nightrec, 1 worker", 1, 0.0),
        ("nightrec, 2 workers, penalty by frequency", 2, 1.0),
    ):
        plan = Plan(Objective(ALPHA, PENALTY, frequency_power=power), items, 8, rank, ITERATIONS, 17, 2**31)
        some = pairs.where("user_idx < 1000") if name == "warm-up" else pairs
        results = over_partitions(entries(some, 8, workers), partial(trained, plan), workers, 120)
        first = next(trained for trained, _, _ in results if trained)
        found[name] = Found(first.seconds, first.losses, [peak for _, peak, _ in results], [add for *_, add in results])
    spark.stop()
    del found["warm-up"]
    return found


def by_implicit(file: Path, rank: int) -> Found:
    """`implicit`'s own training loop; a confidence of 1 + alpha as it wants it."""
    from implicit.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    pairs = _matrix(file)
    model = AlternatingLeastSquares(
        rank, regularization=PENALTY, alpha=1.0, iterations=ITERATIONS,
        num_threads=CORES, random_state=17, use_gpu=False,
    )  # fmt: skip
    # What it advises: its threads are its own, BLAS must not add more.
    threadpool_limits(1, "blas")
    seconds: list[float] = []
    model.fit(pairs * np.float32(1 + ALPHA), show_progress=False, callback=lambda *told: seconds.append(told[1]))
    peak = peak_memory()
    return Found(seconds, [loss(pairs, model.user_factors, model.item_factors, 0.0)], [peak])


def by_spark_ml(file: Path, rank: int, iterations: int) -> Found:
    """Spark ML's ALS; an iteration lasts from one job over the users' Gramian to the next, by Spark's own books."""
    from pyspark.ml.recommendation import ALS
    from pyspark.sql import functions as F

    from nightrec.config import Spark
    from nightrec.session import session

    spark = session(Spark(master=f"local[{CORES}]", partitions=4, driver_memory="9g"), "benchmark", warm=True)
    pairs = spark.read.parquet(str(file)).withColumn("rating", F.lit(1.0))
    solver = ALS(
        rank=rank, maxIter=iterations, regParam=PENALTY, implicitPrefs=True, alpha=ALPHA, seed=17,
        numUserBlocks=4, numItemBlocks=4, userCol="user", itemCol="item",
    )  # fmt: skip
    model = solver.fit(pairs)
    ends = _gramian_ends(spark)
    sides = [frame.toArrow().sort_by("id") for frame in (model.userFactors, model.itemFactors)]
    java = int(spark.sparkContext._jvm.java.lang.ProcessHandle.current().pid())
    peak = peak_memory(java)
    spark.stop()
    matrix = _matrix(file)
    users, items = (_factors(side, count) for side, count in zip(sides, matrix.shape, strict=True))
    return Found(list(np.diff(ends)), [loss(matrix, users, items, 1.0)], [peak], iterations=iterations)


def _gramian_ends(spark: Any) -> list[float]:
    """When each iteration of the last fit began and ended, in seconds: its jobs over Gramians come two by two."""
    jobs = spark.sparkContext._jsc.sc().statusStore().jobsList(None)
    told = sorted((jobs.apply(n) for n in range(jobs.size())), key=lambda job: job.jobId())
    gramians = [job for job in told if job.name().startswith("aggregate at ALS")]
    last = max(job.completionTime().get().getTime() for job in told if "ALS.scala" in job.name())
    return [job.completionTime().get().getTime() / 1000 for job in gramians[::2]] + [last / 1000]


def _matrix(file: Path) -> Any:
    import pyarrow.parquet as pq

    pairs = pq.read_table(file)
    user, item = (pairs[name].to_numpy() for name in ("user", "item"))
    return sparse.csr_matrix((np.ones(len(user), np.float32), (user, item)))


def _factors(side: pa.Table, count: int) -> Floats:
    values = side["features"].combine_chunks().flatten().to_numpy().reshape(side.num_rows, -1)
    factors = np.zeros((count, values.shape[1]), np.float32)
    factors[side["id"].to_numpy()] = values
    return factors


def loss(pairs: Any, users: Floats, items: Floats, power: float) -> float:
    """The objective of nightrec.als.objective, written out in numpy in pieces."""
    everywhere = float((_gram(users) * _gram(items)).sum())
    seen, coo = 0.0, pairs.tocoo()
    for start in range(0, coo.nnz, 2**20):
        part = slice(start, start + 2**20)
        scores = np.einsum("nd,nd->n", users[coo.row[part]], items[coo.col[part]]).astype(np.float64)
        seen += float(((1 + ALPHA) * (scores - 1) ** 2 - scores**2).sum())
    penalties = 0.0
    for factors, counts in ((users, np.diff(pairs.indptr)), (items, np.diff(pairs.tocsc().indptr))):
        squares = np.einsum("nd,nd->n", factors, factors, dtype=np.float64)
        penalties += PENALTY * float(counts.astype(np.float64) ** power @ squares)
    return seen + everywhere + penalties


def _gram(factors: Floats) -> Any:
    wide = factors.astype(np.float64)
    return wide.T @ wide
