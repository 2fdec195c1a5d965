"""The types behind `tables.py`: a table's contract as one value that creates, checks and documents the table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nightrec.errors import ContractError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.types import StructType


@dataclass(frozen=True)
class Column:
    """One column: `type` is a Spark DDL type; `check` is an SQL condition that every row must meet."""

    name: str
    type: str
    meaning: str
    nullable: bool = False
    check: str = ""


@dataclass(frozen=True)
class Table:
    """One Delta table. `key` names the columns that identify a row; `partition` those that a write replaces whole."""

    name: str
    stage: str
    grain: str
    key: tuple[str, ...]
    partition: tuple[str, ...]
    columns: tuple[Column, ...]
    change_feed: bool = False

    @property
    def names(self) -> list[str]:
        """Column names in the table's order."""
        return [column.name for column in self.columns]

    def ddl(self) -> str:
        """The columns as Spark DDL, with NOT NULL and comments: what creates the Delta table."""
        return ", ".join(
            f"{c.name} {c.type}{'' if c.nullable else ' NOT NULL'} COMMENT '{c.meaning.replace(chr(39), chr(8217))}'"
            for c in self.columns
        )

    def schema(self) -> StructType:
        """The Spark schema. Needs a running session (Spark parses the DDL)."""
        from pyspark.sql.types import StructType

        schema = StructType.fromDDL(self.ddl())
        assert isinstance(schema, StructType)
        return schema

    def checked(self, frame: DataFrame, where: str) -> DataFrame:
        """`frame` narrowed to the contract's columns in order. Nullability and CHECKs are enforced by Delta at commit.

        Raises ContractError naming `where` and every missing, surplus or wrongly typed column at once.
        """
        found = {field.name: field.dataType.simpleString() for field in frame.schema}
        expected = {field.name: field.dataType.simpleString() for field in self.schema()}
        problems = [f"missing column {name} {type_}" for name, type_ in expected.items() if name not in found]
        problems += [f"unexpected column {name} {found[name]}" for name in found if name not in expected]
        problems += [
            f"column {name}: expected {type_}, found {found[name]}"
            for name, type_ in expected.items()
            if name in found and found[name] != type_
        ]
        if problems:
            raise ContractError(f"{self.name} ({where}): " + "; ".join(problems))
        return frame.select(self.names)


def no_rows(spark: SparkSession, ddl: str) -> DataFrame:
    """A frame of columns without rows. Those of createDataFrame([]), none, come from a Python worker: 6 s to start."""
    from pyspark.sql import functions as F
    from pyspark.sql.types import StructType

    schema = StructType.fromDDL(ddl)
    assert isinstance(schema, StructType)
    return spark.range(0).select(*(F.lit(None).cast(field.dataType).alias(field.name) for field in schema))
