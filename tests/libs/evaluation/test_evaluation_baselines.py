"""Baselines against their definitions, pair by pair, without Spark."""

from __future__ import annotations

import datetime as dt
import math
import threading
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from pyspark import cloudpickle
from scipy import sparse

from nightrec.evaluation import baselines
from nightrec.evaluation.baselines import EVER, WINDOWS, Histories, Items
from nightrec.evaluation.judge import families

CUT = dt.date(2026, 3, 10)
WIDTH = 7
Log = dict[str, dict[int, tuple[int, int]]]  # user: item: count, age


def log() -> Log:
    """Pairs of twelve users, one user with one item, one without any."""
    rng = np.random.default_rng(8)
    found: Log = {f"u{n}": {} for n in range(12)}
    for _ in range(45):
        found[f"u{rng.integers(12)}"][int(rng.integers(WIDTH))] = (int(rng.integers(1, 6)), int(rng.integers(0, 60)))
    return {**found, "one": {0: (1, 3)}, "none": {}}


def batch(users: Log) -> pa.RecordBatch:
    """Their histories, numbered by place."""
    own = [sorted(pairs.items()) for pairs in users.values()]
    lists = {
        "items": [[item for item, _ in pairs] for pairs in own],
        "counts": [[count for _, (count, _) in pairs] for pairs in own],
        "ages": [[age for _, (_, age) in pairs] for pairs in own],
    }
    columns = {name: pa.array(values, pa.list_(pa.int32())) for name, values in lists.items()}
    return pa.RecordBatch.from_pydict({"_user": pa.array(range(len(users)), pa.int64()), **columns})


def known(users: Log) -> Items:
    """The item side, counted item by item."""
    ages = [[own[item][1] for own in users.values() if item in own] for item in range(WIDTH)]
    counts = np.array([[*(sum(age < days for age in of) for days in WINDOWS), len(of)] for of in ages], float)
    events = np.array([sum(own[item][0] for own in users.values() if item in own) for item in range(WIDTH)], float)
    item_id = pa.array([f"i{n}" for n in range(WIDTH)])
    people = sum(bool(own) for own in users.values())
    return Items(item_id, people, counts, events, Histories.of([batch(users)], WIDTH))


def scores(method: baselines.Method) -> np.ndarray:
    return method(known(log()))(Histories.of([batch(log())], WIDTH))


def test_counts_and_habits_are_the_definitions() -> None:
    items = known(log())
    assert (scores(baselines.popularity(1)) == items.users[:, 1]).all()
    found = scores(baselines.habit(20.0))
    for row, own in zip(found, log().values(), strict=True):
        for item in range(WIDTH):
            count, age = own.get(item, (0, 0))
            assert row[item] == pytest.approx(count * 0.5 ** (age / 20), rel=1e-5, abs=1e-11)
    # Whoever has nothing is shown what is popular.
    popular = np.argsort(-items.users[:, EVER - 1], kind="stable")
    assert np.argsort(-found[-1], kind="stable").tolist() == popular.tolist()


def test_segments_show_what_is_popular_inside_them() -> None:
    users = log()
    items, everybody = known(users), known(users).users[:, 3]
    inside = {"north": ["u1", "u2", "u3"], "south": ["u4"]}
    tables = [
        sparse.csr_matrix([[float(sum(users[u].get(i, (0, 99))[1] < days for u in of)) for i in range(WIDTH)]
                           for of in inside.values()])
        for days in WINDOWS
    ]  # fmt: skip
    items = replace(items, segment=pa.array(list(inside)), by_segment=tables)
    named = ["south", "north", "west", None]
    rows = batch({f"u{n}": {} for n in range(4)}).append_column("segment", pa.array(named, pa.string()))
    assert (tables[2] != tables[3]).nnz and (tables[0] != tables[3]).nnz
    found = baselines.segment_popularity(3, 2.0)(items)(Histories.of([rows], WIDTH))
    shared = 2 * everybody / everybody.max()
    for row, segment in zip(found, named, strict=True):
        own = tables[3].toarray()[list(inside).index(segment)] if segment in inside else 0
        assert row == pytest.approx(own + shared, rel=1e-6)


def test_item_to_item_scores_are_the_definitions() -> None:
    users, every = log(), range(WIDTH)
    together = np.array([[sum(i in own and j in own for own in users.values()) for j in every] for i in every])
    inverse = np.linalg.inv(together + 30 * np.eye(WIDTH))
    linear = np.where(np.eye(WIDTH) > 0, 0, -inverse / np.diag(inverse))
    near = together / (np.sqrt(np.outer(np.diag(together), np.diag(together))) + 2)
    ease = scores(baselines.ease(30.0))
    for nearest in (2, WIDTH):
        found = scores(baselines.cosine(2.0, nearest))
        kept = [sorted((j for j in every if j != i), key=lambda j, of=near[i]: (-of[j], j))[:nearest] for i in every]
        for u, own in enumerate(users.values()):
            for i in every:
                assert found[u, i] == pytest.approx(sum(near[j, i] for j in own if i in kept[j]), rel=1e-5)
                assert ease[u, i] == pytest.approx(sum(linear[j, i] for j in own), abs=1e-5)


def test_bm25_is_that_of_implicit_s_definition() -> None:
    users = log()
    lengths = [sum(own[i][0] for own in users.values() if i in own) for i in range(WIDTH)]
    mean = sum(lengths) / WIDTH

    def weight(i: int, own: dict[int, tuple[int, int]]) -> float:
        count = own[i][0] if i in own else 0
        rarity = math.log(WIDTH) - math.log1p(len(own))
        return count * 2.2 / (1.2 * (0.25 + 0.75 * lengths[i] / mean) + count) * rarity

    every = range(WIDTH)
    alike = [[sum(weight(i, own) * weight(j, own) for own in users.values()) for j in every] for i in every]
    for nearest in (3, WIDTH):
        kept = [sorted(range(WIDTH), key=lambda j, of=row: -of[j])[:nearest] for row in alike]
        found = scores(baselines.bm25(nearest))
        for u, own in enumerate(users.values()):
            for i in range(WIDTH):
                expected = sum(own[j][0] * alike[j][i] for j in own if i in kept[j])
                assert found[u, i] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_nearest_of_a_block_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "_ROWS", 4)
    rng = np.random.default_rng(3)
    # Ties, products below 0, rows that share nothing, and a row without anything.
    table = rng.integers(-1, 3, (11, 9)) * (rng.random((11, 9)) < 0.3)
    table[5] = 0
    weighted, products = sparse.csr_matrix(table.astype(float)), table @ table.T
    assert (products < 0).any() and 1 < (products[0] != 0).sum() < 11
    for most in (1, 3, 11, 20):
        found = baselines._nearest(weighted, most)
        found.sort_indices()
        for i in range(11):
            kept = sorted(np.flatnonzero(products[i]), key=lambda j, of=products[i]: (-of[j], j))[:most]
            at = slice(found.indptr[i], found.indptr[i + 1])
            assert found.indices[at].tolist() == sorted(kept)
            assert found.data[at].tolist() == products[i][sorted(kept)].tolist()
    assert found.shape == (11, 11) and found.dtype == np.float32
    assert baselines._nearest(sparse.csr_matrix((0, 9)), 3).shape == (0, 0)


def test_what_scores_takes_along_nothing_but_what_it_needs() -> None:
    """Items hold whole histories: a hundred megabytes that executors would be sent."""
    alone = replace(known(log()), item_id=threading.Lock())  # cannot be sent
    for settings in families(WIDTH).values():
        for method in settings.values():
            assert cloudpickle.dumps(baselines.for_everyone(method(alone), alone))


def test_neighbours_are_the_most_alike_but_oneself() -> None:
    users = list(log().values())
    for nearest in (2, 50):
        found = scores(baselines.neighbours(nearest))
        for u, own in enumerate(users):
            cosine = {
                v: len(own.keys() & other.keys()) / math.sqrt(len(own) * len(other))
                for v, other in enumerate(users) if v != u and own.keys() & other.keys()
            }  # fmt: skip
            near = sorted(cosine, key=lambda v, of=cosine: (-round(of[v], 5), v))[:nearest]
            for i in range(WIDTH):
                expected = sum(cosine[v] for v in near if i in users[v])
                assert found[u, i] == pytest.approx(expected, abs=1e-5)


def test_ials_learns_two_tastes() -> None:
    """Items 0 to 3 are one taste, 4 to 6 the other; what a user misses of the own taste comes before the other's."""
    tastes = range(4), range(4, WIDTH)
    users: Log = {
        f"{taste} {missing}": {item: (1, 0) for item in own if item != missing}
        for taste, own in enumerate(tastes)
        for missing in own
    }
    learned = baselines.ials(3.0, 0.1, rank=2)(known(users))
    block = Histories.of([batch({**users, "none": {}})], WIDTH)
    found = learned(block)
    assert (found == learned(block)).all() and (found[-1] == 0).all()
    for name, row in zip(users, found, strict=False):
        taste, missing = map(int, name.split())
        assert row[missing] > 0.5 > 0.2 > max(row[item] for item in tastes[1 - taste])


def test_trend_weighs_scores_above_zero() -> None:
    items = known(log())
    expected = [(recent + 1) / math.sqrt(ever + 1) for recent, ever in items.users[:, [EVER - 1, EVER]]]
    assert items.trend.tolist() == pytest.approx(expected, rel=1e-6)
    trend = np.array([2.0, 3.0], np.float32)
    assert baselines.trending(np.array([[1.0, -1.0]], np.float32), trend).tolist() == [[2.0, -1.0]]


def test_the_best_are_those_of_a_full_sort() -> None:
    rng = np.random.default_rng(9)
    every = rng.integers(0, 6, (300, 40)).astype(np.float32)
    every[rng.random(every.shape) < 0.3] = -np.inf
    every[0, 3:] = -np.inf
    for row, columns, count in zip(every, *baselines.best(every, 7), strict=True):
        order = [n for n in np.argsort(-row, kind="stable") if row[n] > -np.inf]
        assert columns[:count].tolist() == order[:7] and (columns[count:] == -1).all()


def test_newcomers_get_what_is_popular_from_every_baseline() -> None:
    items = known(log())
    plain = scores(baselines.cosine(0.0, WIDTH))
    found = baselines.for_everyone(baselines.cosine(0.0, WIDTH)(items), items)(Histories.of([batch(log())], WIDTH))
    assert (plain[-1] == 0).all() and (found[-1] == items.users[:, EVER - 1]).all()
    assert (found[:-1] == plain[:-1]).all()
