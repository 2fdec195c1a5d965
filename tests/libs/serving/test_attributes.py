"""Items by the values that they share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from nightrec.serving import attributes
from nightrec.tables import ITEM_PROFILES


def test_values_of_a_profile(rows: Any) -> None:
    items = [
        {"item_id": "a", "categories": ["x", "y"], "tags": ["x"], "attributes": {"brand": "x", "price": "12.99"}},
        {"item_id": "b", "attributes": {"year": "1995", "size": "-1,5", "empty": None, "model": "2.0 TDI"}},
        {"item_id": "c"},
    ]
    found = rows(ITEM_PROFILES, items).select("item_id", attributes.values().alias("values")).collect()
    assert {row.item_id: sorted(row["values"]) for row in found} == {
        # One word in three roles is three values; a price is none.
        "a": ["attribute brand\nx", "categories\nx", "categories\ny", "tags\nx"],
        "b": ["attribute model\n2.0 TDI", "attribute year\n1995"],
        "c": [],
    }


def table(values: list[list[str]], users: list[int]) -> pa.Table:
    return pa.table({
        "values": pa.array(values, pa.list_(pa.string())), "is_available": pa.array([True] * len(values), pa.bool_()),
        "user_count": pa.array(users, pa.int64()),
    })  # fmt: skip


def test_the_rarer_value_counts_for_more() -> None:
    values = [["brand", "category"], ["category"], ["brand"], *([["category"]] * 3), *([[]] * 6)]
    values[1].append("other")
    values[2].append("other")
    found = attributes.neighbours(table(values, [0] * 12), 9).to_pylist()
    near = {(row["item_idx"], row["neighbour_idx"]): row["similarity"] for row in found}
    assert near[0, 2] > near[0, 1] > 0
    assert {b for a, b in near if a == 0} == {1, 2, 3, 4, 5}
    assert not any(a > 5 or b > 5 for a, b in near)


def test_holding_reads_sliced_and_empty_columns() -> None:
    column = pa.array([["z"], ["a", "b"], [], ["b"]], pa.list_(pa.string()))
    assert attributes.holding(column[1:]).toarray().tolist() == [[1, 1], [0, 0], [0, 1]]
    assert attributes.holding(column[:0]).shape == (0, 0)
    none = attributes.neighbours(table([], []), 3)
    assert none.num_rows == 0 and none["item_idx"].to_numpy().dtype == np.int32
