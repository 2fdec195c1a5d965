"""Trees of both kinds, trained by one process and by two, in teams of one and of two."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from pyspark.sql import SparkSession

from nightrec.config import Ranker
from nightrec.features import FEATURES
from nightrec.launch import on_executors
from nightrec.ranker import teams, trees
from nightrec.ranker.dataset import Split

SETTINGS = Ranker(trees=12, tree_depth=3, tree_learning_rate=0.4, tree_leaf_weight=1.0, tree_features=1.0)


def planted(lists: int) -> Split:
    """Lists of 20; acted on where the first feature is above 1, whatever the others say."""
    values = np.random.default_rng(3).normal(size=(20 * lists, len(FEATURES))).astype(np.float32)
    number = np.arange(len(values), dtype=np.int32)
    acted = (values[:, 0] > 1).astype(np.float32)
    return Split(number // 20, number % 20, acted, np.zeros_like(number), np.full_like(acted, np.nan), values)


def test_one_process_trains_both_kinds_and_two_train_one_each(spark: SparkSession) -> None:
    split = planted(60)
    (one,) = on_executors(spark, lambda: teams.grown([split], SETTINGS), 1, 60)
    assert list(one) == list(trees.KINDS) and one["binary"] != one["ranking"]
    assert on_executors(spark, lambda: teams.grown([split], SETTINGS), 2, 60) == [one, one]
    assert one == {kind: trees.trained(kind, [split], SETTINGS) for kind in trees.KINDS}


@pytest.mark.parametrize("lists", [60, 1])
def test_processes_of_a_team_train_one_model_together_and_tell_nobody(spark: SparkSession, lists: int) -> None:
    """In a world of one kind, two processes are a team. Of a single list, one of them has nothing."""
    split = planted(lists)

    def ranking_alone() -> tuple[dict[str, bytes], str]:
        kinds, trees.KINDS = trees.KINDS, ("ranking",)
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                return teams.grown([split, split.taken(slice(0, 0))], SETTINGS), said.getvalue()
        finally:
            trees.KINDS = kinds

    (first, said), (second, also_said) = on_executors(spark, ranking_alone, 2, 60)
    assert first == second and list(first) == ["ranking"] and said == also_said == ""
    scores = trees.margins(trees.loaded(first["ranking"]), split.features)
    found = {taste: scores[split.labels == taste].mean() for taste in (0, 1)}
    # By the examples of both: one half alone would know half of them.
    assert found[1] > found[0] + 1
    assert (first["ranking"] == trees.trained("ranking", [split], SETTINGS)) == (lists == 1)


def test_every_list_is_one_process_s_and_all_are_dealt() -> None:
    lists = np.repeat(np.arange(9, dtype=np.int32), [1, 7, 1, 1, 40, 2, 2, 3, 3])
    ones = np.ones(len(lists), np.float32)
    split = Split(lists, lists, ones, lists, ones, ones[:, None])
    for of in range(1, 12):
        parts = [teams.share(split, place, of).lists for place in range(of)]
        assert (np.concatenate(parts) == lists).all()
        assert sum(len(set(part)) for part in parts) == 9
    # Whoever trains: each kind by somebody, and nobody idle.
    for size in range(1, 8):
        dealt = [[teams.team(number, rank, size) for number in range(2)] for rank in range(size)]
        for number in range(2):
            places = [kinds[number] for kinds in dealt if kinds[number][0] is not None]
            assert sorted(place for place, _ in places) == list(range(len(places))) and places
            assert {of for _, of in places} == {len(places)}
        assert all(any(place is not None for place, _ in kinds) for kinds in dealt)


def test_of_a_whole_split_the_positives_and_a_share_of_the_others_are_kept() -> None:
    split = planted(60)
    thin = teams.thinned(split, 0.3, 17)
    assert thin.labels.sum() == split.labels.sum()
    assert 0.25 < (thin.labels == 0).sum() / (split.labels == 0).sum() < 0.35
    assert (thin.features == split.features[thin.lists * 20 + thin.items]).all()
