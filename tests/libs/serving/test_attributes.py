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


def test_prices_as_people_write_them(rows: Any) -> None:
    said = {
        "12.50": 12.5, " 12,50 ": 12.5, "12": 12.0, "0.001": 0.001, "€12.50": 12.5, "12,50 €": 12.5, "US$ 12.50": 12.5,
        "Rs. 500": 500.0, "12,-": 12.0, "1,234.50": 1234.5, "1.234.567,89": 1234567.89, "1 234,50": 1234.5,
        "1,234": 1.234,
        "-5": None, "10-20": None, "1.2.3": None, ".50": None, "free": None, "": None, None: None,
    }  # fmt: skip
    items = [{"item_id": f"{n:02}", "attributes": {"price": value}} for n, value in enumerate(said)]
    found = rows(ITEM_PROFILES, items).orderBy("item_id").select("attributes.price", attributes.price().alias("_price"))
    assert {row.price: row._price for row in found.collect()} == said


def test_whose_attribute_is_a_price(rows: Any) -> None:
    named = [
        {"brand": "7", " PRICE": "5"}, {"price": "2", "Price": "1"}, {"prices": "5", "list price": "6"}, {}, None,
    ]  # fmt: skip
    items = [{"item_id": f"{n}", "attributes": value} for n, value in enumerate(named)]
    found = rows(ITEM_PROFILES, items).orderBy("item_id").select(attributes.price().alias("price")).collect()
    assert [row.price for row in found] == [5.0, 1.0, None, None, None]


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
