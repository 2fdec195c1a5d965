"""The walls of the design, read out of the code itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from nightrec.pipeline import NIGHT, STAGES
from nightrec.tables import TABLES

ROOT = Path(__file__).resolve().parents[1]
LIBS = ROOT / "libs/nightrec"
STAGE_PACKAGES = ("events", "profiles", "als", "embeddings", "ranker", "serving", "metrics", "report")
# What a stage package may stand on; a metric is the same in training and in judging. Everything else in nightrec opens
# sessions, tables or whole nights.
GROUND = {
    "tables", "contract", "errors", "config", "features", "raw_files", "launch", "stopwatch", "metrics", "weekdays",
    "failpoint", "raw_columns", "lifeline", "checkpoint_files", "weights", "printable",
    "seen", "gpu", "scratch",
}  # fmt: skip
# The report reads finished tables for people, and prints what the stages and settings are.
BEYOND = {"report": {"store", "settings", "pipeline"}}
CLOCKS = {
    ("date", "today"),
    ("datetime", "now"),
    ("datetime", "today"),
    ("datetime", "utcnow"),
    ("time", "time"),
    ("time", "localtime"),
    ("time", "gmtime"),
    ("Timestamp", "now"),
    ("F", "current_date"),
    ("F", "current_timestamp"),
    ("functions", "current_date"),
    ("functions", "current_timestamp"),
    ("F", "now"),
    ("F", "curdate"),
}
CHANCES = {("F", "rand"), ("F", "randn"), ("F", "uuid"), ("F", "monotonically_increasing_id"), ("F", "shuffle")}


def sources(root: Path) -> Iterator[tuple[Path, ast.Module]]:
    for file in sorted(root.rglob("*.py")):
        yield file, ast.parse(file.read_text(encoding="utf-8"))


def imported(tree: ast.Module) -> set[str]:
    """Every module a file imports, at the top or within functions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def typing_only(tree: ast.Module) -> ast.Module:
    """The file without what stands under `if TYPE_CHECKING`."""
    kept = [node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))]
    return ast.Module(body=kept, type_ignores=[])


def attributes(tree: ast.Module) -> set[tuple[str, str]]:
    """Every `name.attribute` of a file, and `module.name.attribute` by its last two parts."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            found.add((owner, node.attr))
    return found


def test_stage_packages_never_import_one_another() -> None:
    wrong = []
    for package in STAGE_PACKAGES:
        allowed = GROUND | {package} | BEYOND.get(package, set())
        for file, tree in sources(LIBS / package):
            for module in imported(typing_only(tree)):
                parts = module.split(".")
                if parts[0] == "nightrec" and len(parts) > 1 and parts[1] not in allowed:
                    wrong.append(f"{file.relative_to(ROOT)} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_every_package_of_libs_is_known_here() -> None:
    packages = {path.parent.name for path in LIBS.glob("*/__init__.py")}
    # evaluation calls whole nights, and the functions of all stages beside them; past and privacy know every table
    assert packages == {*STAGE_PACKAGES, "init", "evaluation", "past", "privacy"}


def test_only_the_store_touches_delta() -> None:
    wrong = []
    for root in (LIBS, ROOT / "jobs", ROOT / "airflow_dags"):
        for file, tree in sources(root):
            # doctor proves that Delta works; it owns no table. purge is the store's other half: what goes for good
            if file in (LIBS / "store.py", LIBS / "privacy/purge.py", LIBS / "doctor.py", LIBS / "machine.py"):
                continue
            roots = {module.split(".")[0] for module in imported(tree)}
            wrong += [f"{file.relative_to(ROOT)} imports {name}" for name in roots & {"deltalake", "delta"}]
    assert not wrong, "\n".join(wrong)


def test_nothing_reads_the_clock_or_throws_dice() -> None:
    wrong = []
    for root in (LIBS, ROOT / "jobs"):
        for file, tree in sources(root):
            found = attributes(tree) & (CLOCKS | CHANCES)
            wrong += [f"{file.relative_to(ROOT)}: {owner}.{name}" for owner, name in sorted(found)]
    assert not wrong, "\n".join(wrong)


def test_stages_jobs_and_tables_agree() -> None:
    names = [stage.name for stage in STAGES]
    assert len(set(names)) == len(names)
    jobs = {file.stem for file in (ROOT / "jobs").glob("*.py")} - {"__init__"}
    assert jobs == set(names)
    written = [name for stage in STAGES for name in stage.writes]
    assert len(set(written)) == len(written), "one writer per table"
    tables = {table.name: table.stage for table in TABLES}
    assert len(tables) == len(TABLES)
    # ledger and manifests are written by every stage, runs by every training, forgotten by none; export writes files
    assert {(name, stage.name) for stage in STAGES for name in stage.writes} - {("files", "export")} == {
        (name, stage) for name, stage in tables.items() if stage
    }
    assert [name for name, stage in tables.items() if not stage] == ["runs", "ledger", "manifests", "forgotten"]


def test_stages_stand_in_the_order_data_flows() -> None:
    known = {"raw events", "raw items", "raw users"}
    everything = {name for stage in STAGES for name in stage.writes}
    for stage in NIGHT:
        trained = {name for other in STAGES if other.rhythm == "training" for name in other.writes}
        missing = set(stage.reads) - known - trained
        assert not missing & everything, f"{stage.name} reads {missing} before it is written"
        assert not missing, f"{stage.name} reads {missing}, which no stage writes"
        known |= set(stage.writes)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_contract_keeps_its_own_rules(table: object) -> None:
    from nightrec.contract import Table

    assert isinstance(table, Table)
    names = table.names
    assert len(set(names)) == len(names)
    assert set(table.key) <= set(names) and set(table.partition) <= set(names)
    types = {
        "_ts": "timestamp",
        "_date": "date",
        "_id": "string",
        "_share": "double",
        "_count": "bigint",
        "_rank": "int",
    }
    for column in table.columns:
        assert column.meaning, column.name
        assert column.name not in table.key or not column.nullable, f"{column.name}: a key is never null"
        for suffix, type_ in types.items():
            if column.name.endswith(suffix):
                assert column.type == type_, f"{column.name} is {column.type}"
        if column.name.startswith(("is_", "has_")):
            assert column.type == "boolean", column.name


def test_jobs_read_the_same() -> None:
    for file, tree in sources(ROOT / "jobs"):
        if file.stem == "__init__":
            continue
        assert ast.get_docstring(tree), f"{file.name} has no docstring"
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert "run" in functions, file.name
        last = tree.body[-1]
        assert isinstance(last, ast.If) and ast.unparse(last) == "if __name__ == '__main__':\n    main(run)", file.name
