"""Rows of a table's contract, of which a test says only what matters."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from nightrec.contract import Column, Table

NIGHT = dt.date(2026, 3, 10)  # a Tuesday

# What a test does not say about a NOT NULL column: never a value that a test would look for.
_DEFAULTS: dict[str, Any] = {
    "string": "-",
    "date": NIGHT,
    "timestamp": dt.datetime(2026, 3, 1, tzinfo=dt.UTC),
    "double": 0.0,
    "float": 0.0,
    "bigint": 0,
    "int": 0,
    "boolean": True,
    "map<string,string>": {},
    "map<string,double>": {},
    "map<string,bigint>": {},
    "map<string,int>": {},
}


def filled(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    """All columns of a table in their order: what the row says, else null, else a value of the type."""
    return {column.name: row[column.name] if column.name in row else _unsaid(column) for column in table.columns}


def _unsaid(column: Column) -> Any:
    if column.nullable:
        return None
    return [] if column.type.startswith("array") else _DEFAULTS[column.type]
