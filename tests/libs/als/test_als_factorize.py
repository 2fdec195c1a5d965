"""Factors of planted tastes, and that the same pairs give the same bits."""

from __future__ import annotations

import datetime as dt
import math
import os
import re
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import horovod.torch as hvd
import numpy as np
import pytest
from pyspark.sql import functions as F

from nightrec import failpoint
from nightrec.als.checkpoint import Checkpoint
from nightrec.als.confidence import item_index, pair_weights, with_item_idx, with_user_idx
from nightrec.als.factorize import entries, item_factors
from nightrec.als.fold_in import user_factors
from nightrec.als.objective import Objective
from nightrec.als.train import Plan, train
from nightrec.config import Als, Horovod
from nightrec.errors import BadInput, TrainingFailed
from nightrec.launch import over_partitions
from nightrec.tables import CLEAN_EVENTS

DAY = dt.date(2026, 3, 10)
SMALL = Als(rank=2, iterations=8, alpha=5.0, regularisation=0.05, blocks=3)
TINY = Objective.of(SMALL)


def planted() -> list[dict[str, Any]]:
    """24 users like 4 to 9 of the 10 items of their group, red or blue; a few also take one of the other group's."""
    rng = np.random.default_rng(3)
    events = []
    for user in range(24):
        group, other = ("red", "blue") if user % 2 else ("blue", "red")
        liked = [f"{group}{n}" for n in rng.permutation(10)[: 4 + user % 6]] + ([f"{other}0"] if user % 7 == 0 else [])
        events += [{"user_id": f"u{user}", "item_id": item, "weight": float(rng.integers(1, 6))} for item in liked]
    return events


def test_pair_weights(rows: Any) -> None:
    frame = rows(
        CLEAN_EVENTS,
        [
            {"user_id": "a", "item_id": "x", "weight": 1.0},
            {"user_id": "a", "item_id": "x", "weight": 1.0},  # the same again: a second sign, added
            {"user_id": "a", "item_id": "x", "weight": 0.0},  # seen, says nothing
            {"user_id": "a", "item_id": "y", "weight": 0.0},  # nothing but weight 0: no pair
            {"user_id": "b", "item_id": "x", "weight": 0.5},
            {"user_id": "b", "item_id": "z", "weight": 1e-9},  # below a millionth: no pair
        ],
    )
    found = {(r["user_id"], r["item_id"]): r["weight"] for r in pair_weights(frame).toArrow().to_pylist()}
    assert found == {("a", "x"): pytest.approx(math.log(3.0)), ("b", "x"): pytest.approx(math.log(1.5))}


def test_planted_tastes_come_back_bit_for_bit(rows: Any) -> None:
    events = planted()
    frame, losses = item_factors(rows(CLEAN_EVENTS, events), SMALL, Horovod(processes=2), DAY, "m")
    first = frame.toArrow().sort_by("item_id")
    assert set(first["model_id"].to_pylist()) == {"m"} and set(first["as_of_date"].to_pylist()) == {DAY}
    vectors = np.array(first["factors"].to_pylist())
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = unit @ unit.T - 2 * np.eye(len(unit))
    names = first["item_id"].to_pylist()
    assert len(names) == 20
    for item, row in zip(names, near, strict=True):
        assert names[int(row.argmax())].rstrip("0123456789") == item.rstrip("0123456789"), item
    assert len(losses) == SMALL.iterations and losses == sorted(losses, reverse=True)
    # The same pairs in another order, in more partitions, with one event split in two, and all in one process.
    split = {**events[0], "weight": 0.5}
    again = [split, *reversed(events[1:]), {**events[0], "weight": events[0]["weight"] - 0.5}]
    shuffled = rows(CLEAN_EVENTS, again).repartition(5, F.col("item_id"))
    alone, same_losses = item_factors(shuffled, SMALL, Horovod(processes=1), DAY, "m")
    assert alone.toArrow().sort_by("item_id").equals(first) and same_losses == losses


def test_the_last_loss_is_that_of_the_factors(rows: Any) -> None:
    """Users solved exactly can only be better than the trainer's, and by little: both are its half-step."""
    frame = rows(CLEAN_EVENTS, planted()).persist()
    long = SMALL.model_copy(update={"iterations": 60})
    items, losses = item_factors(frame, long, Horovod(processes=2), DAY, "m")
    ours = {r["user_id"]: np.array(r["factors"]) for r in user_factors(frame, items, long).toArrow().to_pylist()}
    vectors = {r["item_id"]: np.array(r["factors"]) for r in items.toArrow().to_pylist()}
    weights = {(r["user_id"], r["item_id"]): r["weight"] for r in pair_weights(frame).toArrow().to_pylist()}
    frame.unpersist()
    total = 0.0
    for user, x in ours.items():
        for item, y in vectors.items():
            weight = weights.get((user, item), 0.0)
            total += (1 + SMALL.alpha * weight) * (x @ y - (weight > 0)) ** 2
    for side, place in ((ours, 0), (vectors, 1)):
        for name, vector in side.items():
            total += SMALL.regularisation * sum(pair[place] == name for pair in weights) * (vector @ vector)
    assert losses[-1] * 0.999 < total <= losses[-1] * (1 + 1e-6)


def test_users_equal_the_last_half_step_of_the_trainer(rows: Any) -> None:
    """At the end of a long training a half-step changes nothing: the users it solved and ours are the same."""
    frame = rows(CLEAN_EVENTS, planted()).persist()
    long = SMALL.model_copy(update={"iterations": 400})
    items, _ = item_factors(frame, long, Horovod(processes=2), DAY, "m")
    users = user_factors(frame, items, long).toArrow().to_pylist()
    swapped = user_factors(
        frame.select(F.col("user_id").alias("item_id"), F.col("item_id").alias("user_id"), "weight"),
        frame.sparkSession.createDataFrame(
            [(r["user_id"], r["factors"]) for r in users], "item_id string, factors array<float>"
        ),
        long,
    )
    frame.unpersist()
    ours = {r["user_id"]: r["factors"] for r in swapped.toArrow().to_pylist()}
    for row in items.toArrow().to_pylist():
        np.testing.assert_allclose(row["factors"], ours[row["item_id"]], atol=1e-5, err_msg=row["item_id"])


def test_blocks_that_come_one_by_one_give_the_same_bits(rows: Any) -> None:
    """Memory for no fixed side at all: every block travels, in either number of processes."""
    frame = rows(CLEAN_EVENTS, planted()).persist()
    whole, losses = item_factors(frame, SMALL, Horovod(processes=2), DAY, "m")
    expected = whole.toArrow().sort_by("item_id")
    for processes in (1, 2):
        routed, same_losses = item_factors(frame, SMALL, Horovod(processes=processes, gathered_mb=0), DAY, "m")
        assert routed.toArrow().sort_by("item_id").equals(expected) and same_losses == losses
    frame.unpersist()


def test_processes_of_one_host_share_and_those_of_two_send_with_the_same_bits(rows: Any) -> None:
    def of_two_hosts(plan: Plan, batches: Any) -> Any:
        """The training, in processes that each think they are alone on their host."""
        before = hvd.local_size, hvd.local_rank
        hvd.local_size, hvd.local_rank = (lambda: 1), (lambda: 0)
        try:
            return train(plan, batches)
        finally:
            hvd.local_size, hvd.local_rank = before

    def sharing(plan: Plan, batches: Any) -> Any:
        """The training, and how many matrices this process held in memory of the host's first."""
        held = []

        def watched(checkpoint: Checkpoint, losses: list[float]) -> None:
            held.append(Path("/proc/self/maps").read_text().count("/memfd:nightrec"))

        before, Checkpoint.save = Checkpoint.save, watched  # type: ignore[method-assign]
        try:
            return train(plan, batches), held[-1]
        finally:
            Checkpoint.save = before  # type: ignore[method-assign]

    pairs = pair_weights(rows(CLEAN_EVENTS, planted()))
    index = item_index(pairs.select("item_id").distinct().toArrow()["item_id"])
    found = with_user_idx(with_item_idx(pairs, index)).persist()
    plan = Plan(TINY, 20, 3, rank=2, iterations=3, seed=1, gathered_bytes=2**20)
    sent = over_partitions(entries(found, 3, 2), partial(of_two_hosts, plan), 2, 60)[0]
    shared = over_partitions(entries(found, 3, 2), partial(sharing, plan), 2, 60)
    found.unpersist()
    assert [matrices for _, matrices in shared] == [2, 2]  # users and items
    assert sent.losses == shared[0][0].losses
    assert sent.item_factors.tobytes() == shared[0][0].item_factors.tobytes()


def test_ratings_are_met_by_the_products(rows: Any) -> None:
    """Each user gives every item but one the product of a mood and a merit; the one left out is predicted.

    A pair rated twice counts by its later rating; views say nothing.
    """
    moods, merits = np.array([1.0, 1.5, 2.0, 0.5, 1.2]), np.array([1.0, 2.0, 3.0, 2.5])
    day = [dt.datetime(2026, 3, n, tzinfo=dt.UTC) for n in (1, 2, 3)]
    events = [
        {"user_id": f"u{u}", "item_id": f"i{i}", "event_type": "rating", "value": float(m * q), "event_ts": day[1]}
        for u, m in enumerate(moods) for i, q in enumerate(merits) if (u, i) != (2, 2)
    ]  # fmt: skip
    events += [
        {"user_id": "u0", "item_id": "i0", "event_type": "rating", "value": 99.0, "event_ts": day[0]},  # taken back
        {"user_id": "u2", "item_id": "i2", "event_type": "view", "value": None, "event_ts": day[2], "weight": 9.0},
        {"user_id": "u2", "item_id": "i2", "event_type": "purchase", "value": 7.0, "event_ts": day[2], "weight": 9.0},
    ]
    # With one factor an item that starts with the other sign may stay there for ever: this seed starts all alike.
    settings = Als(feedback="explicit", rank=1, iterations=40, regularisation=1e-4, blocks=2, seed=2)
    frame = rows(CLEAN_EVENTS, events).persist()
    items, losses = item_factors(frame, settings, Horovod(processes=2), DAY, "m")
    users = {r["user_id"]: r["factors"][0] for r in user_factors(frame, items, settings).toArrow().to_pylist()}
    found = {r["item_id"]: r["factors"][0] for r in items.toArrow().to_pylist()}
    frame.unpersist()
    for u, mood in enumerate(moods):
        for i, merit in enumerate(merits):
            assert users[f"u{u}"] * found[f"i{i}"] == pytest.approx(mood * merit, rel=0.01)
    assert losses[-1] < 0.02
    with pytest.raises(BadInput, match="no rating had arrived by then"):
        item_factors(rows(CLEAN_EVENTS, planted()), settings, Horovod(), DAY, "m")


def test_a_training_that_was_killed_or_stopped_goes_on_from_its_last_iteration(
    rows: Any, tmp_path: Path
) -> None:
    def disturbed(what: str, plan: Plan, batches: Any) -> Any:
        """The training, in which the second process comes upon a fail-point."""
        failpoint._passed.clear()  # this process may have been in an attempt before
        if hvd.rank() == 1:
            os.environ[failpoint.PLACE] = what  # it will not live
        return train(plan, batches)

    pairs = pair_weights(rows(CLEAN_EVENTS, planted()))
    index = item_index(pairs.select("item_id").distinct().toArrow()["item_id"])
    found = with_user_idx(with_item_idx(pairs, index)).persist()

    def trained(
        work: Any, folder: Path | None, processes: int = 2, objective: Objective = TINY, deadline_s: int | None = None
    ) -> Any:
        plan = Plan(objective, 20, 3, rank=2, iterations=8, seed=1, gathered_bytes=2**20, checkpoint=folder)
        dealt = entries(found, 3, processes)
        return over_partitions(dealt, partial(work, plan), processes, 60, deadline_s)[0]

    def failure(what: str) -> str:
        """What an attempt fails of."""
        started = time.monotonic()
        with pytest.raises(TrainingFailed) as caught:
            trained(partial(disturbed, what), tmp_path / "killed", deadline_s=8)
        assert time.monotonic() - started < 60  # with its start
        return str(caught.value)

    undisturbed = trained(train, None)
    dead = r"training process 1 of 2 \(pid \d+ on .*\) died"
    hangs = r"training process 1 of 2 .* does not answer: it was stopped"
    assert re.match(dead, failure("als_item_factors.iteration#2:kill"))
    # While it writes: a hidden file stays, and goes with the next attempt.
    assert re.match(dead, failure("als_item_factors.in_checkpoint#1:kill"))
    assert (hidden := list(tmp_path.rglob(".*.npz.*")))
    assert re.match(hangs, failure("als_item_factors.iteration#2:pause"))
    assert not any(file.exists() for file in hidden)
    for name in ("alone", "other"):
        shutil.copytree(tmp_path / "killed", tmp_path / name)
    # One iteration may have been lost each time, by the process that was ended before it had written its own.
    resumed = trained(train, tmp_path / "killed")
    assert 3 <= resumed.resumed <= 4 and len(resumed.seconds) == 8 - resumed.resumed
    alone = trained(train, tmp_path / "alone", processes=1)
    assert alone.resumed == resumed.resumed
    for one in (resumed, alone):
        assert one.losses == undisturbed.losses
        assert one.item_factors.tobytes() == undisturbed.item_factors.tobytes()
    # Of another objective, and all done already.
    assert trained(train, tmp_path / "other", objective=Objective(alpha=1.0, regularisation=1.0)).resumed == 0
    assert trained(train, tmp_path / "killed").resumed == 8
    found.unpersist()


def test_a_process_without_blocks_takes_part(rows: Any) -> None:
    # One user and one item lie in one or two of 8 blocks: of 2 processes one may have none.
    for user in ("a", "b", "c"):
        only = rows(CLEAN_EVENTS, [{"user_id": user, "item_id": "x", "weight": 1.0}])
        frame, losses = item_factors(only, Als(rank=2, iterations=3), Horovod(processes=2), DAY, "m")
        assert [len(row["factors"]) for row in frame.toArrow().to_pylist()] == [2] and np.isfinite(losses).all()


def test_nothing_to_factorize(rows: Any) -> None:
    only_seen = rows(CLEAN_EVENTS, [{"user_id": "a", "item_id": "x", "weight": 0.0}])
    with pytest.raises(BadInput, match="2026-03-10: no event with weight above 0 had arrived by then"):
        item_factors(only_seen, SMALL, Horovod(), DAY, "m")
