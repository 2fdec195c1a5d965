"""The words given to BERT: tidied, in a stable order, and their fingerprint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

if TYPE_CHECKING:
    from pyspark.sql import Column


def tidy(text: Column) -> Column:
    """`text` with every run of white space as one blank and none at the ends; NULL where nothing is left."""
    return F.nullif(F.trim(F.regexp_replace(text, r"[\s\p{Z}]+", " ")), F.lit(""))


def listed(words: Column) -> Column:
    """An array of strings without NULLs, blanks and repetitions, in its own order; empty where it is NULL."""
    kept = F.array_distinct(F.filter(F.transform(words, tidy), lambda word: word.isNotNull()))
    return F.coalesce(kept, F.array().cast("array<string>"))


def enumerated(words: Column) -> Column:
    """An array as `a, b, c`; NULL where it is empty or NULL."""
    return F.nullif(F.array_join(words, ", "), F.lit(""))


def text_hash(text: Column) -> Column:
    """SHA-256 of the text in hex: what embeddings are keyed by. NULL where the text is."""
    return F.sha2(text, 256)
