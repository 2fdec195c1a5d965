"""Vectors of item texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from nightrec.embeddings.encode import Settings, encode, new_texts

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def item_embeddings(
    profiles: DataFrame, held: DataFrame, text_count: int, encoder: str, settings: Settings
) -> DataFrame:
    """One row per text of the item profiles that is not in `held`, in the columns of tables.ITEM_EMBEDDINGS.

    `held` are the rows of this encoder (its id and revision); `text_count` is how many texts are new.
    """
    vectors = encode(new_texts(profiles, held), text_count, settings)
    return vectors.select(F.lit(encoder).alias("encoder"), "text_hash", "vector")
