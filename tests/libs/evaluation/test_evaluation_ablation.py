"""What a variant leaves out of the candidates, cell by cell, and which variants there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nightrec.config import Candidates, Config, Ranker
from nightrec.errors import UsageError
from nightrec.evaluation import ablation
from nightrec.evaluation.ablation import chosen, cleared, variants, without, without_sources
from nightrec.features import FEATURES, GROUPS
from nightrec.tables import CANDIDATES

F = len(FEATURES)
NOMINATIONS = FEATURES.index("nomination_count")


def test_features_are_cleared_and_lists_without_them_stay_so() -> None:
    rows = np.arange(2 * F, dtype=np.float32).reshape(2, F) + 1
    features = pa.array([rows[0].tolist(), None, rows[1].tolist()], pa.list_(pa.float32()))
    places = [FEATURES.index(name) for name in GROUPS["own"]]
    # One of three was named by the source; of a slice, as Spark hands them over.
    found = cleared(features.slice(0, 3), np.array([0, 1, 1]), places).to_pylist()
    expected = rows.copy()
    expected[:, places] = 0
    expected[1, NOMINATIONS] -= 1
    assert found[1] is None and np.array_equal(np.array([found[0], found[2]], np.float32), expected)
    assert cleared(features.slice(2, 1), np.array([1]), []).to_pylist()[0][NOMINATIONS] == rows[1, NOMINATIONS] - 1
    assert cleared(features.slice(1, 1), np.array([1]), places).to_pylist() == [None]


def test_without_a_source(rows: Any) -> None:
    known = [float(n + 2) for n in range(F)]
    user = {"list_kind": "user", "list_key": "u", "features": known}
    frame = rows(CANDIDATES, [
        {**user, "item_id": "of als alone", "als_rank": 1, "als_score": 1.0},
        {**user, "item_id": "of both", "als_rank": 2, "als_score": 0.5, "text_rank": 1, "text_score": 0.1},
        {**user, "item_id": "of text alone", "text_rank": 2, "text_score": 0.1},
        # No ranker orders it: nothing to clear, but als named it no more.
        {"list_kind": "everyone", "list_key": "everyone", "item_id": "of both", "als_rank": 3, "popularity_rank": 1},
    ])  # fmt: skip
    left = without_sources(frame, ["als"])
    assert left.schema.simpleString() == frame.schema.simpleString()
    found = {(row["list_kind"], row["item_id"]): row for row in left.collect()}
    assert set(found) == {("user", "of both"), ("user", "of text alone"), ("everyone", "of both")}
    assert all(row["als_rank"] is None and row["als_score"] is None for row in found.values())
    both, text = found["user", "of both"], found["user", "of text alone"]
    gone = {*GROUPS["als"], *GROUPS["als rising"], *GROUPS["als week"]}
    for name, value, of_both, of_text in zip(FEATURES, known, both["features"], text["features"], strict=True):
        assert of_text == (0 if name in gone else value)
        assert of_both == of_text - (name == "nomination_count")
    assert found["everyone", "of both"]["features"] is None and both["text_rank"] == 1
    # Two at once: a nomination less for each that had named it.
    rest = without_sources(rows(CANDIDATES, [
        {**user, "item_id": "x", "als_rank": 1, "text_rank": 1, "bm25_rank": 1},
        {**user, "item_id": "y", "als_rank": 1, "text_rank": 1},
    ]), ["als", "text"]).collect()  # fmt: skip
    assert [(row["item_id"], row["features"][NOMINATIONS]) for row in rest] == [("x", known[NOMINATIONS] - 2)]
    # Features alone: the candidates stay.
    every = without(frame, ["user"]).collect()
    assert len(every) == 4 and {row["als_rank"] for row in every} == {1, 2, None, 3}
    assert every[0]["features"][FEATURES.index(GROUPS["user"][0])] == 0
    assert every[0]["features"][NOMINATIONS] == known[NOMINATIONS]


def test_variants_are_those_of_the_deployment() -> None:
    names = {variant.name: variant for variant in variants(Config())}
    assert {"without als", "without features own", "the trees alone", "1 past night", "4 past nights"} <= set(names)
    # Nothing is picked by hand, and three past nights are what there is; of habits the log may decide.
    assert not {"without editorial", "3 past nights"} & set(names) and "without habit" in names
    assert names["2 past nights"].ranker == {"past_cuts": 2} and names["2 past nights"].view is None
    assert names["the cosine head"].ranker == {"head": "cosine"} and "the deep head" not in names
    assert names["the cosine head, alone"].ranker == {"head": "cosine", "blend": "network"}
    bare = Config(candidates=Candidates(als=0, repeats_allowed=False), ranker=Ranker(trees=0, past_cuts=1))
    names = {variant.name: variant for variant in variants(bare)}
    assert {"without text", "3 past nights"} <= set(names)
    assert not {"the cosine head, alone", "without habit", "without als", "1 past night"} & set(names)
    assert not {"the network alone", "the trees alone"} & set(names)


def test_variants_are_chosen_by_kind_and_by_name() -> None:
    every = variants(Config())
    assert chosen(Config(), []) == every or len(chosen(Config(), [])) == len(every)
    some = [variant.name for variant in chosen(Config(), ["nights", "without text"])]
    assert some == ["without text", "1 past night", "2 past nights", "4 past nights"]
    with pytest.raises(UsageError, match="no such part: without luck; there are sources, features, heads, ble"):
        chosen(Config(), ["without luck"])
    assert {variant.kind for variant in every} == set(ablation.KINDS)
