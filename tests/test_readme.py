"""Every command and snippet in the README does what it says, or this fails."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import DataFrame, SparkSession

from nightrec.config import Config
from nightrec.errors import AuditRefused, BadInput, NightrecError, UsageError
from nightrec.store import Store, location
from nightrec.tables import PUBLISHED_TOPK, TABLES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TABLE = "var/demo/warehouse/published_topk"
LISTS = 200

# Each command line of the README: the tests that run it, and words that they must hold to do so. None where the checks
# below stand for it (they parse it, or look the target up). A new command without an entry here fails.
SUBMIT, CLUSTER, AIRFLOW = "jobs/test_spark_submit.py", "jobs/test_standalone_cluster.py", "airflow_commands.py"
DAEMONS = "spark_commands.py"  # starts the cluster of test_standalone_cluster.py
EVENING = "test_first_evening.py"  # takes its commands from the README
RUN_BY: dict[str, tuple[str, tuple[str, ...]] | None] = {
    r"make [a-z-]+( (DATE|ONLY)=\S+)?": None,
    r"\.venv/bin/nightrec (doctor|init|run|show|report)\b.*": (EVENING, ("README.md", ".venv/bin/nightrec ")),
    r"spark-submit --master 'local\[2\]' jobs/clean_events\.py .*": (
        SUBMIT,
        ("jobs/clean_events.py", "--config"),
    ),
    r"spark-submit --master spark://.* jobs/clean_events\.py .*": (
        CLUSTER,
        ("--master", "clean_events", "--config"),
    ),
    r"SPARK_MASTER_OPTS=-Dspark\.master\.rest\.enabled=false spark-class .*\.Master .*": (
        DAEMONS,
        ("spark-class", "-Dspark.master.rest.enabled=false", "master.Master"),
    ),
    r"spark-class .*\.Worker .*": (DAEMONS, ("worker.Worker", "--cores", "--memory")),
    r"export [A-Z_]+=.*": None,
    r"airflow db migrate": (AIRFLOW, ("migrate",)),
    r"airflow pools set nightrec_warehouse 1 .*": (AIRFLOW, ("pools", "nightrec_warehouse")),
    r"airflow connections add spark_default .*": (AIRFLOW, ("connections", "spark_default")),
    r"airflow dags test nightrec_daily .*": ("trust/test_airflow_task.py", ("dags", "test", "nightrec_daily")),
    r"airflow (api-server|dag-processor|scheduler).*": (AIRFLOW, ("api-server", "dag-processor", "--skip-serve-logs")),
}


def blocks(language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def shell_lines() -> list[str]:
    return [line for block in blocks("sh") for line in block.splitlines() if line.strip()]


def plain(value: Any) -> Any:
    """What a reader returned as plain Python: nested arrays of NumPy as lists, rows as dicts, NaN as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, pd.Timestamp) or hasattr(value, "isoformat"):
        return value.isoformat()[:10]
    return None if isinstance(value, float) and math.isnan(value) else value


def checksum(lists: Any) -> str:
    """One number for a table as a reader returned it, whatever the order of its rows."""
    rows = lists.to_dict("records") if isinstance(lists, pd.DataFrame) else lists.to_dicts()
    lines = sorted(json.dumps(plain(row), sort_keys=True, ensure_ascii=False) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read(block: str, table: str) -> Any:
    """Run a snippet of the README on another table; what it names `lists`."""
    assert TABLE in block
    values: dict[str, Any] = {}
    exec(block.replace(TABLE, table), values)
    return values["lists"]


def rows_of_lists() -> list[dict[str, Any]]:
    """200 lists: of many lengths (an empty one among them), ids of several scripts, quotes, a score of 0."""
    words = ["plain", "日本語", "ключ", 'o\'neil \\ "x"', "e\u0301", "🎬"]
    return [
        {
            "list_kind": "user",
            "list_key": f"{words[n % 6]}-{n}",
            "list_id": f"{n:032x}",
            "items": [
                {
                    "rank": place + 1,
                    "item_id": f"{words[(n + place) % 6]}{place}",
                    "score": n / 7 / (place + 1),
                    "source": "als",
                    "reason": f"because of {words[place % 6]}",
                }
                for place in range(n % 11)
            ],
            "changed_date": pd.Timestamp("2026-03-10").date(),
        }
        for n in range(LISTS)
    ]


@pytest.fixture(scope="module")
def published(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, DataFrame]:
    """A published table written by the Store through Spark, and the frame it was written from."""
    store = Store(spark, str(tmp_path_factory.mktemp("warehouse")), run_id="test")
    frame = spark.createDataFrame(rows_of_lists(), PUBLISHED_TOPK.schema())
    store.merge(PUBLISHED_TOPK, frame, "list_id")
    store.close()
    return location(store.warehouse, PUBLISHED_TOPK), frame


def test_three_readers_without_spark_agree_to_the_last_character(published: tuple[str, DataFrame]) -> None:
    table, _ = published
    snippets = blocks("python")
    assert [next(iter(re.findall("polars|duckdb|pandas", block))) for block in snippets] == [
        "pandas",
        "polars",
        "duckdb",
    ]
    expected = checksum(pd.DataFrame(rows_of_lists()))
    assert [checksum(read(block, table)) for block in snippets] == [expected] * 3


def test_a_table_with_column_mapping_would_be_caught(published: tuple[str, DataFrame], tmp_path: Path) -> None:
    # the opposite: the same rows in a table that readers cannot all read must not pass for readable
    _, frame = published
    mapped = str(tmp_path / "mapped")
    frame.write.format("delta").option("delta.columnMapping.mode", "name").save(mapped)
    expected = checksum(pd.DataFrame(rows_of_lists()))
    wrong = 0
    for block in blocks("python"):
        try:
            wrong += checksum(read(block, mapped)) != expected
        except Exception:
            wrong += 1
    assert wrong, "every reader read column mapping: PUBLISHED_TOPK need not be held back from it any more"


def test_every_command_is_known_and_run_somewhere() -> None:
    lines = shell_lines()
    assert lines
    for line in lines:
        found = [runner for pattern, runner in RUN_BY.items() if re.fullmatch(pattern, line)]
        assert len(found) == 1, f"no test runs this line of the README: {line}"
        if found[0] is not None:
            files, words = found[0]
            text = "".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "tests").glob(files)))
            assert not [word for word in words if word not in text], f"tests/{files} do not run: {line}"
    for pattern in RUN_BY:
        assert any(re.fullmatch(pattern, line) for line in lines), f"no line of the README is {pattern}"


def test_make_targets_exist_and_explain_themselves() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    explained = set(re.findall(r"^([a-z-]+):.*  ## .+$", makefile, flags=re.MULTILINE))
    named = {match[1] for line in shell_lines() if (match := re.match(r"make ([a-z-]+)", line))}
    named |= set(re.findall(r"`make ([a-z-]+)`", README))
    assert named and named <= explained, named - explained


def test_subcommands_exist_with_their_options() -> None:
    import click
    import typer

    from nightrec.cli import app

    group = typer.main.get_command(app)
    lines = [line for line in shell_lines() if line.startswith(".venv/bin/nightrec")]
    lines += [f".venv/bin/{line}" for line in re.findall(r"`(nightrec [a-z_-]+[^`]*)`", README)]
    assert len(lines) > 5
    for line in lines:
        name, *given = shlex.split(line.split(" > ")[0])[1:]
        command: Any = group.commands.get(name)  # type: ignore[attr-defined]
        assert command is not None, f"{line}: no command {name}"
        if not given:
            continue  # a command that is only spoken of
        with click.Context(group) as context:
            # parses without running: an unknown option, a missing one or a wrong date would raise
            command.make_context(name, given, parent=context, resilient_parsing=False)


def test_jobs_and_links_exist() -> None:
    for job in set(re.findall(r"(?<!tests/)\bjobs/\w+\.py", README)):
        assert (ROOT / job).is_file(), job
    for file in set(re.findall(r"`((?:tests|infra)/[\w/.]+)`", README)):
        assert (ROOT / file).exists(), file
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_exit_codes_are_those_of_the_errors() -> None:
    said = {int(code): text for code, text in re.findall(r"^\| (\d) \| (.*) \|$", README, flags=re.MULTILINE)}
    assert sorted(said) == [0, 1, 2, 3, 4]
    codes = {kind: kind.exit_code for kind in (NightrecError, UsageError, BadInput, AuditRefused)}
    assert sorted(codes.values()) == [1, 2, 3, 4]
    assert "arguments" in said[UsageError.exit_code] and "input" in said[BadInput.exit_code]
    assert "audit" in said[AuditRefused.exit_code]


def test_what_it_names_is_there() -> None:
    # folders and options of a deployment that the README speaks of are those of the config
    for option in ("--als-model", "--ranker-model"):
        assert option in (ROOT / "libs/nightrec/cli.py").read_text(encoding="utf-8")
    assert Config().paths.exports == "exports" and Config().paths.warehouse == "warehouse"
    assert all(f"`{table.name}`" in README for table in TABLES)


def test_the_readme_keeps_to_itself() -> None:
    assert not re.search(r"/(work|tmp|root|home)/|issue \d|localhost", README)
