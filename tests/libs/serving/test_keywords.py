"""Items by the words of their texts, against scikit-learn's own TfidfVectorizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from nightrec.serving import keywords


def rows(texts: dict[str, str], users: Any = None) -> pa.Table:
    return pa.table({
        "item_id": pa.array(list(texts)), "text": pa.array(list(texts.values())),
        "is_available": pa.array([True] * len(texts)),
        "user_count": pa.array([0] * len(texts) if users is None else users, pa.int64()),
    })  # fmt: skip


def near(texts: dict[str, str], most: int = 9) -> dict[str, dict[str, float]]:
    names, found = list(texts), {name: {} for name in texts}
    for row in keywords.neighbours(rows(texts), most).to_pylist():
        found[names[row["item_idx"]]][names[row["neighbour_idx"]]] = row["similarity"]
    return found


def test_equals_the_vectorizer_of_scikit_learn() -> None:
    texts = {
        "a": "Red garden spade. garden", "b": "garden watering can, RED", "c": "Jazz piano album",
        "d": "Piano tape. jazz", "e": "e", "f": "Élan. red herb", "g": "elan and herb",
        "h": "concert of nobody else", "i": "blue can",
    }  # fmt: skip
    # min_df and max_df are what `held.telling` keeps of nine items.
    vectors = TfidfVectorizer(strip_accents="unicode", min_df=2, max_df=4).fit_transform(
        ["" if text == name else text for name, text in texts.items()]
    )
    cosine, names = (vectors @ vectors.T).toarray(), list(texts)
    expected = {
        a: {b: pytest.approx(cosine[m, n], abs=1e-6) for n, b in enumerate(names) if m != n and cosine[m, n]}
        for m, a in enumerate(names)
    }
    assert near(texts) == expected and "g" in expected["f"] and not expected["e"]


def test_a_new_item_has_neighbours_and_is_one() -> None:
    texts = {"new": "vinyl single", "old": "vinyl record", "other": "garden spade", "more": "lawn spade"}
    table = keywords.neighbours(rows(texts, [0, 9, 3, 3]), 5).to_pylist()
    assert {(row["item_idx"], row["neighbour_idx"]) for row in table} == {(0, 1), (1, 0), (2, 3), (3, 2)}


def test_words_of_scripts_without_blanks() -> None:
    texts = {"a": "赤い花瓶", "b": "青い花瓶", "c": "時計abc", "d": "abc d", "e": "самовар", "f": "Самовар, чай"}
    found = near(texts)
    assert set(found["a"]) == {"b"} and set(found["c"]) == {"d"} and set(found["e"]) == {"f"}


@pytest.mark.parametrize(
    "texts", [{}, {"a": "a", "b": "b"}, {"a": "x", "b": "?!"}, {"a": "one", "b": "two"}], ids=str
)
def test_no_words_to_share(texts: dict[str, str]) -> None:
    assert keywords.neighbours(rows(texts).cast(rows({"a": ""}).schema), 5).num_rows == 0


def test_an_id_says_nothing() -> None:
    texts = {"blue can": "blue can", "x": "blue can", "y": "blue lamp", "z": "red lamp"}
    words = keywords.words(rows(texts)["item_id"], rows(texts)["text"])
    assert np.diff(words.indptr).tolist() == [0, 2, 2, 2]
