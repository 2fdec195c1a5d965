"""A digest of rows that does not depend on their order, on partitions, or on how many workers there are."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import MapType, StructField

# Times to the microsecond: JSON's default has milliseconds. Nulls are told from fields that are not there.
_JSON = {"ignoreNullFields": "false", "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSSXXX"}
# Hexadecimal digits of a row's hash that are added up: 2^60 fits a decimal of 38 digits for 10^20 rows.
_DIGITS = 15


def digest(frame: DataFrame) -> tuple[int, str]:
    """Rows of a frame and 30 digits that are equal where the rows are: values, nulls and the order within arrays count,
    the order of rows and of a map's entries does not.

    Each row's sha-256 is added up in two parts: a sum asks for no order, and unlike XOR it sees a row that is doubled.
    """
    row = F.struct(*(_ordered(field).alias(field.name) for field in sorted(frame.schema, key=lambda f: f.name)))
    hashed = frame.select(F.sha2(F.to_json(row, _JSON), 256).alias("_hash"))
    sums = [
        F.sum(F.conv(F.substring("_hash", 1 + part * _DIGITS, _DIGITS), 16, 10).cast("decimal(38,0)"))
        for part in (0, 1)
    ]
    found = hashed.agg(F.count(F.lit(1)), *sums).first()
    assert found is not None
    return int(found[0]), "".join(f"{int(total or 0) % 16**_DIGITS:0{_DIGITS}x}" for total in found[1:])


def _ordered(field: StructField) -> Column:
    """A column as it is, a map as its entries in order of their keys."""
    column = F.col(f"`{field.name}`")
    return F.array_sort(F.map_entries(column)) if isinstance(field.dataType, MapType) else column
