"""Training on a GPU walks the same path as on a CPU, and goes on from its checkpoint. Skipped where there is none.

Needs no Spark: one Horovod process, as each of a cluster's is on its own GPU.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nightrec.config import Ranker
from nightrec.features import FEATURES
from nightrec.ranker import fit
from nightrec.ranker.checkpoint import Kept
from nightrec.ranker.dataset import Split
from nightrec.ranker.lessons import Lessons
from nightrec.ranker.texts import Vectors

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

LISTS, PER_LIST, WIDTH = 200, 30, 24
LOSSES = ("binary", "pairwise", "listwise", "squared")
HEADS: tuple[dict[str, Any], ...] = (
    {"head": "deep"}, {"head": "deep", "attention": 5}, {"head": "bilinear"}, {"head": "cosine"}, {"head": "product"},
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def horovod() -> Iterator[None]:
    """Horovod of one process."""
    import horovod.torch as hvd

    hvd.init()
    yield
    hvd.shutdown()


def planted() -> tuple[Split, Vectors]:
    """The first feature decides, and the product of user and item: likes are the likelier, the larger both are."""
    rng = np.random.default_rng(3)
    size = LISTS * PER_LIST
    features = rng.normal(size=(size, len(FEATURES))).astype(np.float32)
    texts = rng.normal(size=(51, WIDTH)).astype(np.float32)
    texts[1:] /= np.linalg.norm(texts[1:], axis=1, keepdims=True)
    texts[0] = 0
    users = texts[rng.integers(1, 51, LISTS)]
    items, lists = rng.integers(0, 51, size).astype(np.int32), np.repeat(np.arange(LISTS, dtype=np.int32), PER_LIST)
    likes = 3 * features[:, 0] + 6 * (users[lists] * texts[items]).sum(1) - 3
    labels = (rng.random(size) < 1 / (1 + np.exp(-likes))).astype(np.float32)
    ratings = np.where(labels > 0, 3 + features[:, 1], np.nan).astype(np.float32)
    split = Split(0, np.zeros(size, np.int32), lists, items, labels, np.zeros(size, np.int32), ratings, features)
    return split, Vectors(texts, items, users, rng.integers(0, 51, (LISTS, 5)).astype(np.int32))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("head", HEADS, ids=lambda head: "-".join(map(str, head.values())))
def test_a_gpu_learns_what_a_cpu_learns(head: dict[str, Any], loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two epochs with dropout, from the same seed; float32 sums in another order move scores by some 1e-4."""
    settings = Ranker(loss=loss, batch=512, hidden=(16, 8), popularity_correction=0.1, **head)  # type: ignore[arg-type]
    split, vectors = planted()
    read = vectors if settings.reads_vectors else None
    lessons = Lessons.of(split, split, settings, read)
    torch.cuda.reset_peak_memory_stats()
    network, curve = fit.fitted(split, settings, read, 2, lessons)
    on_gpu = fit.scored(network, lessons)
    assert next(network.parameters()).is_cuda and torch.cuda.max_memory_allocated() > 0
    monkeypatch.setattr(fit, "_device", lambda: torch.device("cpu"))
    other, expected = fit.fitted(split, settings, read, 2, lessons)
    on_cpu = fit.scored(other, lessons)
    assert not next(other.parameters()).is_cuda
    np.testing.assert_allclose(on_gpu, on_cpu, atol=5e-3, rtol=1e-3)
    for ours, theirs in zip(curve, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=2e-3)


def test_a_training_that_ended_goes_on_from_its_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept after each second step, ended in the third step of the second epoch; to the same weights."""
    settings = Ranker(loss="listwise", batch=1024, hidden=(16, 8))
    split, _ = planted()
    lessons = Lessons.of(split, split, settings, None)
    undisturbed, curve = fit.fitted(split, settings, None, 3, lessons)
    kept, steps = Kept(tmp_path / "network.npz", "mark", 2), iter(range(10**6))

    def dies(place: str) -> None:
        if place == "ranker_model.step" and next(steps) == 8:
            raise InterruptedError

    monkeypatch.setattr(fit, "reach", dies)
    with pytest.raises(InterruptedError):
        fit.fitted(split, settings, None, 3, lessons, kept)
    done = next(steps)
    resumed, again = fit.fitted(split, settings, None, 3, lessons, kept)
    taken = next(steps) - done - 1
    assert next(resumed.parameters()).is_cuda
    assert (done, taken) == (9, 10)  # six steps an epoch
    for ours, theirs in zip(again, curve, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    np.testing.assert_allclose(fit.scored(resumed, lessons), fit.scored(undisturbed, lessons), atol=1e-5)


def test_processes_without_a_gpu_each_train_on_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process more than this host has GPUs: NCCL refuses two on one, and there is none beyond the last."""
    from horovod.runner import run

    def trained() -> tuple[str, float]:
        import horovod.torch as hvd

        hvd.init()
        split, _ = planted()
        settings = Ranker(loss="binary", batch=512, hidden=(16, 8))
        network, curve = fit.fitted(split, settings, None, 1, Lessons.of(split, split, settings, None))
        return next(network.parameters()).device.type, curve[0]["valid_ndcg"]

    processes = torch.cuda.device_count() + 1
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    found = run(trained, np=processes, use_gloo=True)
    assert {device for device, _ in found} == {"cpu"}
    assert len(set(found)) == 1 and len(found) == processes
