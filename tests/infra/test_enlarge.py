"""The enlarged log has its source's shape: inequality of users and items, singular values, days, repeats."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import SparkSession
from scipy import sparse
from scipy.sparse.linalg import svds

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "infra/benchmarks"))

import enlarge

USERS, ITEMS, EVENTS, FACTOR = 300, 120, 12_000, 5
FIRST = date(2026, 1, 30)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tastes, and popularity and activity with long tails; ten days, the last twice as busy as the first."""
    root, draw = tmp_path_factory.mktemp("source"), np.random.default_rng(3)
    active, popular = draw.permutation(1 / np.arange(1, USERS + 1) ** 0.7), 1 / np.arange(1, ITEMS + 1) ** 0.8
    users = draw.choice(USERS, EVENTS, p=active / active.sum())
    own = draw.random(EVENTS) < 0.8
    share = np.array([popular * (np.arange(ITEMS) % 3 == taste) for taste in range(3)])
    share /= share.sum(axis=1, keepdims=True)
    items = np.array([
        draw.choice(ITEMS, p=share[user % 3] if mine else popular / popular.sum())
        for user, mine in zip(users, own, strict=True)
    ])  # fmt: skip
    days = draw.choice(10, EVENTS, p=np.linspace(1, 2, 10) / 15)
    for day in range(10):
        lines: list[dict[str, Any]] = [
            {
                "event_id": f"e{n}", "user_id": f"u{users[n]}", "item_id": f"i{items[n]}", "event_type": "purchase",
                "event_ts": f"{FIRST + timedelta(days=day)}T{n % 24:02d}:{n % 60:02d}:00Z", "value": 2,
                "context": {"basket": f"b{n}"},
            }
            for n in np.flatnonzero(days == day)
        ]  # fmt: skip
        # the second day's first line came twice; one line names nobody and one no time: neither is an event
        extra = [lines[0], lines[1] | {"user_id": None}, lines[2] | {"event_ts": "soon"}] if day == 1 else []
        write(root / f"events/ingest_date={FIRST + timedelta(days=day)}", [*lines, *extra])
    catalogue = [{"item_id": f"i{n}", "title": f"Thing {n}", "tags": ["a"]} for n in range(ITEMS)]
    write(root / f"items/ingest_date={FIRST}", catalogue)
    people = [{"user_id": f"u{n}", "attributes": {"region": "north"}, "blocked_items": ["i1"]} for n in range(USERS)]
    write(root / f"users/ingest_date={FIRST}", people)
    return root


@pytest.fixture(scope="module")
def made(spark: SparkSession, source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, enlarge.Expansion]:
    out = tmp_path_factory.mktemp("enlarged") / "raw"
    return out, enlarge.enlarge(spark, str(source), out, FACTOR * EVENTS)


def write(folder: Path, lines: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True)
    (folder / "part-0.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def events(root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(root.glob("events/*/*")):
        text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for line in text.splitlines():
            event = json.loads(line)
            if event.get("user_id") and event["event_ts"] != "soon":
                yield path.parent.name.removeprefix("ingest_date="), event


def matrix(root: Path) -> sparse.csr_matrix:
    """Counts of events, users x items."""
    pairs = Counter((event["user_id"], event["item_id"]) for _, event in events(root))
    users, items = ({name: n for n, name in enumerate(sorted({pair[side] for pair in pairs}))} for side in (0, 1))
    rows, columns = [users[user] for user, _ in pairs], [items[item] for _, item in pairs]
    return sparse.csr_matrix((np.array(list(pairs.values()), float), (rows, columns)))


def gini(counts: np.ndarray) -> float:
    """Inequality of counts above 0: 0 where all are equal, towards 1 where one has everything."""
    ordered = np.sort(np.asarray(counts).ravel())
    place = np.arange(1, len(ordered) + 1)
    return float((2 * place - len(ordered) - 1) @ ordered / (len(ordered) * ordered.sum()))


def test_gini_and_singular_values_are_those_of_the_source(source: Path, made: tuple[Path, enlarge.Expansion]) -> None:
    out, expansion = made
    small, large = matrix(source), matrix(out)
    assert abs(large.sum() / (FACTOR * EVENTS) - 1) < 0.02
    assert expansion.events == large.sum()
    shards, blocks = expansion.thinning.shape
    assert (shards, blocks) == enlarge.shape(FACTOR)
    assert shards > 1 and blocks > 1
    for side in (0, 1):
        assert abs(gini(large.sum(axis=side)) - gini(small.sum(axis=side))) < 0.03
    spectra = [svds(small, 6, return_singular_vectors=False), np.linalg.svd(expansion.thinning)[1]]
    predicted = np.sort(np.outer(*spectra).ravel())[::-1][:4]
    seen = np.sort(svds(large, 4, return_singular_vectors=False))[::-1]
    assert np.abs(seen / predicted - 1).max() < 0.15, (seen, predicted)
    # not flat: the copies themselves have a structure
    assert expansion.thinning.max() > 1.2 * expansion.thinning.mean()
    np.testing.assert_allclose(expansion.thinning.sum(axis=1), FACTOR / shards, rtol=1e-4)


def test_what_an_event_says_stays(source: Path, made: tuple[Path, enlarge.Expansion]) -> None:
    out, expansion = made
    before = {event["context"]["basket"]: (day, event) for day, event in events(source)}
    seen, users = Counter[str](), Counter[str]()
    for day, event in events(out):
        was_day, was = before[event["context"]["basket"]]
        assert (day, event["event_ts"][:10]) == (was_day, was["event_ts"][:10])
        assert abs(minutes(event) - minutes(was)) <= 30
        assert (event["event_type"], event["value"]) == ("purchase", "2")
        seen[was_day] += 1
        users[event["event_id"]] += 1
    # days as busy as they were
    days = Counter(day for day, _ in events(source))
    assert all(abs(seen[day] / count / FACTOR - 1) < 0.05 for day, count in days.items())
    # a line that came twice is still there twice, everything else once
    assert set(users.values()) == {1, 2}
    shards, blocks = expansion.thinning.shape
    listed = [json.loads(line) for line in lines_of(out, "items")]
    assert len({row["item_id"] for row in listed}) == len({row["title"] for row in listed}) == ITEMS * blocks
    assert {event["item_id"] for _, event in events(out)} <= {row["item_id"] for row in listed}
    people = [json.loads(line) for line in lines_of(out, "users")]
    assert len({row["user_id"] for row in people}) == USERS * shards
    assert people[0]["attributes"] == {"region": "north"}
    assert people[0]["blocked_items"][0] in {row["item_id"] for row in listed if row["title"].startswith("Thing 1, ")}


def minutes(event: dict[str, Any]) -> float:
    hour, minute, second = event["event_ts"][11:19].split(":")
    return int(hour) * 60 + int(minute) + int(second) / 60


def lines_of(root: Path, kind: str) -> list[bytes]:
    return [line for path in root.glob(f"{kind}/*/*.gz") for line in gzip.decompress(path.read_bytes()).splitlines()]


def test_same_seed_same_bytes_whatever_the_number_of_partitions(
    spark: SparkSession, source: Path, made: tuple[Path, enlarge.Expansion], tmp_path: Path
) -> None:
    before = spark.conf.get("spark.sql.shuffle.partitions")
    spark.conf.set("spark.sql.shuffle.partitions", "5")
    try:
        enlarge.enlarge(spark, str(source), tmp_path / "again", FACTOR * EVENTS)
        enlarge.enlarge(spark, str(source), tmp_path / "other", FACTOR * EVENTS, seed=18)
    finally:
        spark.conf.set("spark.sql.shuffle.partitions", before)
    assert digests(tmp_path / "again") == digests(made[0])
    assert not set(digests(tmp_path / "other").items()) & set(digests(made[0]).items())


def digests(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*")) if path.is_file()
    }  # fmt: skip


@pytest.mark.parametrize(("factor", "expected"), [(0.5, (1, 1)), (2.5, (3, 2)), (12.5, (8, 4)), (62.5, (20, 8))])
def test_users_and_items_grow_as_the_events_do(factor: float, expected: tuple[int, int]) -> None:
    assert enlarge.shape(factor) == expected
