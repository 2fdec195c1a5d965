"""A contract finds everything that is wrong at once, and creates what it says."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession

from nightrec.contract import Column, Table
from nightrec.errors import ContractError

TABLE = Table(
    "things",
    "stage",
    "one thing",
    ("a",),
    (),
    (
        Column("a", "string", "the thing's name"),
        Column("b", "bigint", "how many", nullable=True),
        Column("c", "array<float>", "v"),
    ),
)


def test_every_mismatch_in_one_message(spark: SparkSession) -> None:
    frame = spark.createDataFrame([], "b int, c array<double>, d date")
    with pytest.raises(ContractError) as error:
        TABLE.checked(frame, "writing")
    assert str(error.value) == (
        "things (writing): missing column a string; unexpected column d date; column b: expected bigint, found int; "
        "column c: expected array<float>, found array<double>"
    )


def test_columns_come_out_in_the_contracts_order(spark: SparkSession) -> None:
    frame = spark.createDataFrame([], "c array<float>, b bigint, a string")
    assert TABLE.checked(frame, "reading").columns == ["a", "b", "c"]


def test_ddl_and_schema(spark: SparkSession) -> None:
    # a straight quote would end the comment
    assert TABLE.ddl() == (
        "a string NOT NULL COMMENT 'the thing’s name', b bigint COMMENT 'how many', c array<float> NOT NULL COMMENT 'v'"
    )
    assert [(field.name, field.nullable) for field in TABLE.schema()] == [("a", False), ("b", True), ("c", False)]
    assert TABLE.names == ["a", "b", "c"]
