"""How a column of text reads as times."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

EPOCHS = {"epoch seconds": 1, "epoch milliseconds": 10**3, "epoch microseconds": 10**6, "epoch nanoseconds": 10**9}
# 1990 to 2100, in seconds: small numbers are ids and counts, not times
EPOCH_RANGE = (631_152_000, 4_102_444_800)
ISO = "ISO 8601"
PATTERNS = (
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%m/%d/%Y",
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%d/%m/%Y",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
    "%m %d, %Y",
)


def parsed_times(text: pa.Array, time_format: str) -> pd.Series:
    """UTC times of a text column in one format; NaT where it does not read. A time without a zone is taken as UTC."""
    if time_format == ISO:
        zoned = pc.replace_substring_regex(text, r"\s*UTC$", "Z")
        return pd.to_datetime(objects(zoned), format="ISO8601", utc=True, errors="coerce")
    strings = objects(text)
    if time_format in EPOCHS:
        numbers = pd.to_numeric(strings, errors="coerce")
        seconds = numbers / EPOCHS[time_format]
        inside = seconds.between(-(2.0**33), 2.0**33)
        micros = (numbers.where(inside) * (10**6 / EPOCHS[time_format])).round()
        return pd.to_datetime(micros, unit="us", utc=True)
    return pd.to_datetime(strings, format=time_format, utc=True, errors="coerce")


def objects(text: pa.Array) -> pd.Series:
    """A text column as pandas strings, None where missing."""
    return pd.Series(text.to_pandas(), dtype=object)


def time_formats(text: pa.Array, number_share: float, numbers: np.ndarray) -> list[str]:
    """Every format that reads at least 95 of 100 cells of a sample as a time."""
    if number_share >= 0.95:
        low, high = EPOCH_RANGE
        inside = {name: (numbers >= low * unit) & (numbers < high * unit) for name, unit in EPOCHS.items()}
        return [name for name, cells in inside.items() if np.mean(cells) >= 0.95]
    if number_share > 0.05 or not len(text):
        return []
    first = text.slice(0, 200)

    def reads(sample: pa.Array, form: str) -> bool:
        return bool(parsed_times(sample, form).notna().mean() >= 0.95)

    return [form for form in (ISO, *PATTERNS) if reads(first, form) and reads(text, form)]
