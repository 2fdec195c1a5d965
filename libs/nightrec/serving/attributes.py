"""Item-to-item similarity by what the catalogue says of both: the categories, tags and attributes they share, one step
through the graph of items and values, each value weighed by its rarity.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column
from pyspark.sql import functions as F
from scipy import sparse

from nightrec.serving import held


def values() -> Column:
    """The values of an item of item_profiles as strings: kind, a line break, value; names of attributes are kinds.

    Numbers with a fraction are measures, not names: two items of one price are no more alike than others.
    """
    none = F.array().cast("array<string>")

    def named(kind: str) -> Column:
        return F.transform(kind, lambda value: F.concat(F.lit(f"{kind}\n"), value))

    measure = r"^\s*[-+]?\d+[.,]\d+\s*$"
    pairs = F.filter(F.map_entries("attributes"), lambda pair: ~pair["value"].rlike(measure))
    attributes = F.transform(pairs, lambda pair: F.concat(F.lit("attribute "), pair["key"], F.lit("\n"), pair["value"]))
    return F.concat(named("categories"), named("tags"), F.coalesce(attributes, none))


def price() -> Column:
    """The number in the attribute called `price`, whatever the case of its letters; null where there is none.

    A currency may stand on either side of it. A point or comma divides off the fraction ("12.50", "12,50", "1,234"),
    and where others stand before it, these divide thousands ("1,234.50"). What holds two numbers, or a minus before
    one, is no price.
    """
    named = F.filter(F.map_entries("attributes"), lambda pair: F.lower(F.trim(pair["key"])) == "price")
    # Of two spellings in one item the first by its bytes.
    said = F.array_min(named)["value"]
    whole = F.regexp_replace(said, r"(?<=\d)[.,'\s](?=\d{3}[.,])", "")
    number = F.regexp_extract(whole, r"^(?:[^\d-]*[^\d.,-])?(\d+(?:[.,]\d+)?)\D*$", 1)
    return F.replace(number, F.lit(","), F.lit(".")).try_cast("double")


def neighbours(rows: pa.Table, most: int) -> pa.Table:
    """`item_idx`, `neighbour_idx`, `similarity` (`held.neighbours`) of the items of `candidates.item_rows`, which has
    `values` in the column of that name.
    """
    return held.neighbours(
        holding(rows["values"].combine_chunks()), rows["is_available"].to_numpy(), rows["user_count"].to_numpy(), most
    )


def holding(column: pa.ListArray) -> Any:
    """Ones where an item has a value (N x V, sparse)."""
    return named(column)[1]


def named(column: pa.ListArray) -> tuple[pa.StringArray, Any]:
    """The V values, and ones where an item has one (N x V, sparse)."""
    flat = column.flatten().dictionary_encode()
    offsets = np.concatenate([[0], np.cumsum(pc.fill_null(column.value_lengths(), 0).to_numpy())])
    entries = flat.indices.to_numpy()
    held = sparse.csr_matrix((np.ones(len(entries)), entries, offsets), (len(column), len(flat.dictionary)))
    return flat.dictionary, held
