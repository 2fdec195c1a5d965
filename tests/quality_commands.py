"""The commands that try the system out on the past, in the session that the test run keeps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from pyspark.sql import SparkSession
from typer.testing import CliRunner

from nightrec import cli, quality
from nightrec.night import Books


def quiet(_: str) -> Any:
    return nullcontext()


def answered(monkeypatch: pytest.MonkeyPatch, spark: SparkSession, *words: str) -> dict[str, Any]:
    """What a command answers machines; its session is one that the test run keeps."""

    @contextmanager
    def session(*_: object) -> Iterator[tuple[SparkSession, Any, Callable[[Books], None]]]:
        yield spark, quiet, lambda books: None

    monkeypatch.setattr(quality, "_session", session)
    ended = CliRunner().invoke(cli.app, [*words, "--json"])
    assert ended.exit_code == 0, (ended.output, ended.exception)
    found: dict[str, Any] = json.loads(ended.stdout)
    return found
