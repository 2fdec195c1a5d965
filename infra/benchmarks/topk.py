"""The best 50 items of every user, seen ones removed: ours beside Spark ML, implicit and the bare matrix product.

All get the same random factors (rank 64, normal: items are nearly equally long, so that nothing can be left out by its
norm, the hardest case for us) and the same seen items (50 per user on average, log-normal, popular items first). Two
threads each, in one process each; ours is one search per thread, as one task of Spark runs it. Spark ML has no mask:
it is asked for 50 and as many more as the user who has seen most, and the seen ones are joined away.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import measure
import numpy as np
import topk_spark
from measure import Report, fresh, side_by_side

K, RANK, THREADS, RUNS, MOST = 50, 64, 2, 3, 200
SAMPLE = 100  # users whose lists are compared with brute force


@dataclass(frozen=True)
class Data:
    """Factors of R users and A items, and what each user has seen: columns seen[offsets[r]:offsets[r + 1]]."""

    users: Any
    items: Any
    offsets: Any
    seen: Any

    @classmethod
    def of(cls, users: int, items: int, *, spread: float = 0.0, one: int = 0) -> Data:
        """`spread` of the logarithm of the items' norms; `one` user has seen so many items."""
        rng = np.random.default_rng(7)
        x, y = (rng.normal(size=(n, RANK)).astype(np.float32) for n in (users, items))
        y *= rng.lognormal(0, spread, (items, 1)).astype(np.float32)
        counts = np.minimum(rng.lognormal(3.6, 0.8, users), min(MOST, items // 3)).astype(np.int64) + 1
        # Duplicates would count twice: of each user's draws, which fall on popular items first, only distinct ones.
        rows = np.repeat(np.arange(users), counts)
        columns = (items * rng.random(len(rows)) ** 3).astype(np.int64)
        pairs = np.unique(rows * items + columns)
        if one:
            pairs = np.concatenate([np.arange(one), pairs[pairs >= items]])
        offsets = np.searchsorted(pairs, np.arange(users + 1) * items)
        return cls(x, y, offsets, (pairs % items).astype(np.int32))

    def part(self, start: int, stop: int) -> Data:
        """The users start .. stop-1."""
        offsets = self.offsets[start : stop + 1]
        return Data(self.users[start:stop], self.items, offsets - offsets[0], self.seen[offsets[0] : offsets[-1]])


def ours(data: Data) -> tuple[Any, Any]:
    """Columns and scores by `nightrec.serving.inner_product`, indexed anew: a night does so once."""
    from nightrec.serving.inner_product import Index, search

    index, cuts = Index.of(data.items), np.linspace(0, len(data.users), THREADS + 1).astype(int)
    parts = [data.part(start, stop) for start, stop in pairwise(cuts)]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda part: search(index, part.users, part.offsets, part.seen, K), parts))
    return np.concatenate([one[0] for one in found]), np.concatenate([one[1] for one in found])


def of_implicit(data: Data) -> tuple[Any, Any]:
    """Columns and scores by the `recommend` of implicit's ALS model, its factors set to ours."""
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix

    model = AlternatingLeastSquares(factors=RANK, num_threads=THREADS)
    model.user_factors, model.item_factors = data.users, data.items
    shape = (len(data.users), len(data.items))
    seen = csr_matrix((np.ones(len(data.seen), np.float32), data.seen, data.offsets), shape=shape)
    return model.recommend(np.arange(len(data.users)), seen, N=K, filter_already_liked_items=True)


def product(data: Data) -> None:
    """Every score in float32 by the same BLAS in the same blocks, and nothing done with it."""
    from nightrec.serving.inner_product import COLUMNS, ROWS

    def multiply(part: Data) -> None:
        out = np.empty(ROWS * COLUMNS, np.float32)
        for row in range(0, len(part.users), ROWS):
            for column in range(0, len(part.items), COLUMNS):
                x, y = part.users[row : row + ROWS], part.items[column : column + COLUMNS]
                np.dot(x, y.T, out=out[: len(x) * len(y)].reshape(len(x), len(y)))

    cuts = np.linspace(0, len(data.users), THREADS + 1).astype(int)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(multiply, [data.part(*cut) for cut in pairwise(cuts)]))


def single_threaded(work: Callable[[], Any]) -> Any:
    """Call `work` with the libraries' own threads off: the contestants bring their two."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    with threadpool_limits(1):
        return work()


def race(users: int, items: int, spread: float) -> dict[str, Any]:
    """Ours, implicit and the bare product in turn, in one process; how far their lists agree."""

    def work() -> dict[str, Any]:
        data = Data.of(users, items, spread=spread)
        warm = data.part(0, 64)
        lists = {"ours": ours(warm), "implicit": of_implicit(warm)}
        times = side_by_side(
            {
                "ours": lambda: lists.update(ours=ours(data)),
                "implicit": lambda: lists.update(implicit=of_implicit(data)),
                "product": lambda: product(data),
            },
            RUNS,
        )
        close = agreement(lists["ours"], lists["implicit"])
        return {"times": times, "implicit": close, "brute": brute(data, lists["ours"])}

    return single_threaded(work)


def agreement(mine: tuple[Any, Any], theirs: tuple[Any, Any]) -> tuple[float, float]:
    """Share of equal places, and by how much the scores of one place differ at most, in units of the best score."""
    scale = np.abs(mine[1]).max()
    return float((mine[0] == theirs[0]).mean()), float(np.abs(mine[1] - theirs[1]).max() / scale)


def brute(data: Data, mine: tuple[Any, Any]) -> bool:
    """Whether the lists of some users are those of all pairs scored in double, rounded once, and sorted."""
    some = data.part(0, min(SAMPLE, len(data.users)))
    scores = (some.users.astype(np.float64) @ data.items.T.astype(np.float64)).astype(np.float32)
    scores[np.repeat(np.arange(len(scores)), np.diff(some.offsets)), some.seen] = -np.inf
    columns = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    found = np.take_along_axis(scores, columns, 1)
    return bool((columns == mine[0][: len(scores)]).all() and (found == mine[1][: len(scores)]).all())


def memory(users: int, items: int, contestant: str, one: int) -> None:
    """One contestant alone, for its peak; `one` user has seen so many items."""
    data = Data.of(users, items, one=one)
    single_threaded(lambda: {"ours": ours, "implicit": of_implicit}.get(contestant, lambda _: None)(data))


def run(report: Report, *, smoke: bool) -> None:
    """20k x 20k and 100k x 100k; Spark ML on all users of the first and 1,000 of the second, scaled."""
    sizes = [(200, 1_000, 200)] if smoke else [(20_000, 20_000, 20_000), (100_000, 100_000, 1_000)]
    for users, items, some in sizes:
        case = f"{users:,} x {items:,}"
        found = fresh(race, users, items, 0.0).result
        _raced(report, case, found)
        mine, theirs, product = (measure.statistics.median(found["times"][name]) for name in found["times"])
        report.goal(f"topk {case} vs implicit", case, theirs / mine, 2)
        report.goal(f"topk {case} vs the bare product", case, product / mine, 0.6)
        _against_spark(report, users, items, some)
        if not smoke:
            _raced(report, f"{case}, norms as after ALS", fresh(race, users, items, 0.5).result)
        _memory(report, users, items)


def _raced(report: Report, case: str, found: dict[str, Any]) -> None:
    for name, times in found["times"].items():
        report.figure(case, name, "s", times)
    same, off = found["implicit"]
    report.check(case, same > 0.99 and off < 1e-5, f"{same:.2%} of implicit's places equal, scores within {off:.1g}")
    report.check(case, found["brute"], f"bit for bit brute force in double on {SAMPLE} users")


def _against_spark(report: Report, users: int, items: int, some: int) -> None:
    """Spark ML in turn with ours, on the same users."""
    case = f"{users:,} x {items:,}, {some:,} users through Spark ML"
    found = fresh(topk_spark.race, users, items, some).result
    scale = users / some
    for name, times in found["times"].items():
        report.figure(case, name, "s", times, scaled_to_all=float(scale * measure.statistics.median(times)))
    same, off = found["agreement"]
    report.check(case, same > 0.99 and off < 1e-5, f"{same:.2%} of Spark ML's places equal, scores within {off:.1g}")
    report.note(f"Spark ML was asked for {found['asked']} items; its JVM held {found['peak'] / 2**20:,.0f} MiB at most")
    mine, theirs = (measure.statistics.median(found["times"][name]) for name in ("ours", "Spark ML"))
    report.goal(f"topk {users:,} x {items:,} vs Spark ML", case, theirs / mine, 30)


def _memory(report: Report, users: int, items: int) -> None:
    """Peaks above that of a process with the data alone, and with a user who has seen half of all items."""
    case, many = f"memory, {users:,} x {items:,}", items // 2
    plain = fresh(memory, users, items, "nothing", 0, threads=1).peak
    peaks = {name: fresh(memory, users, items, name, 0, threads=1).peak for name in ("ours", "implicit")}
    peaks["ours, one user has seen half"] = fresh(memory, users, items, "ours", many, threads=1).peak
    for name, peak in peaks.items():
        report.figure(case, name, "MiB", [peak / 2**20], above_the_data_alone=(peak - plain) / 2**20)
    from nightrec.serving.inner_product import COLUMNS, ROWS
    from nightrec.serving.inner_product import screen as chosen

    held = items * ((6 if chosen(items).is_short else 8) * RANK + 36)
    room = THREADS * ROWS * (COLUMNS * (2 if chosen(items).is_short else 4) + 12 * max(4 * K, K + 192))
    report.note(
        f"{case}: formula: index {held / 2**20:.0f} MiB, room of {THREADS} threads {room / 2**20:.0f} MiB, lists "
        f"{16 * K * users / 2**20:.0f} MiB, and torch's code"
    )
    report.check(case, True, "the same data")
    ratio = peaks["ours, one user has seen half"] / peaks["ours"]
    report.goal(f"topk {users:,} x {items:,} memory with a user who has seen half", case, ratio, 1.05, at_most=True)


def versions() -> dict[str, str]:
    """Of what took part."""
    return measure.versions("numpy", "torch", "numba", "implicit", "pyspark", "scipy")
