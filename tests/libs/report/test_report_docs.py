"""Generated documentation: never stale, and it loads."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from nightrec.config import Config
from nightrec.pipeline import STAGES
from nightrec.report import docs
from nightrec.settings import literal, toml
from nightrec.tables import TABLES

ROOT = Path(__file__).resolve().parents[3]
PARTS = ("stages", "tables", "benchmarks", "growth", "quality", "made", "ablation")


def test_nothing_generated_is_stale() -> None:
    assert docs.stale(ROOT) == [], "run: .venv/bin/python -m nightrec.report.docs --write"


def test_a_stale_readme_is_found(tmp_path: Path) -> None:
    (tmp_path / "infra/config").mkdir(parents=True)
    marks = "".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in PARTS)
    (tmp_path / "README.md").write_text(marks, encoding="utf-8")
    assert docs.stale(tmp_path) == [tmp_path / "README.md", tmp_path / "infra/config/reference.toml"]
    for file, text in docs.generated(tmp_path).items():
        file.write_text(text, encoding="utf-8")
    assert docs.stale(tmp_path) == []
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert all(f"| `{stage.name}` | {stage.rhythm} |" in text for stage in STAGES)
    assert all(f"| `{table.name}` | {table.grain} |" in text for table in TABLES)
    with pytest.raises(ValueError, match="no <!-- stages -->"):
        docs.readme("nothing to fill", [], [], [], {})


def test_what_was_measured_is_told_with_the_reason_of_a_miss() -> None:
    machine = {"processor": "a processor", "cores": "2", "memory": "24 GiB"}
    goals = [
        {"name": "als beside x", "ratio": 21.04, "goal": 20, "at_most": False, "why": "-", "outcome": "met"},
        {"name": "growth", "ratio": 1.31, "goal": 1.1, "at_most": True, "why": "the sort", "outcome": "missed"},
    ]
    told = docs.benchmarks([{"benchmark": "als", "machine": machine, "goals": goals}])
    assert "on: a processor, 2 cores, 24 GiB." in told
    assert "| als | als beside x | 21 | at least 20 | met |" in told
    assert "| als | growth | 1.31 | at most 1.1 | missed |" in told
    assert told.endswith("Missed, and why:\n- growth: the sort")


def test_growth_is_told_by_stage_and_size() -> None:
    facts = {"processor_s": 9, "jvm_GiB": 1.25, "python_GiB": 0.5}
    figures = [
        {"case": f"{size} M events", "contestant": name, "median": size * 10.0, "facts": facts}
        for size in (1, 5)
        for name in ("clean_events 2026-02-24", *(stage.name for stage in STAGES))
    ]
    lines = docs.growth([{"benchmark": "growth", "figures": figures}]).splitlines()
    assert lines[0] == "| stage | 1 M events | 5 M events |" and len(lines) == 2 + len(STAGES)
    assert lines[2] == "| `clean_events` | 10 s, 1.2 + 0.5 GiB | 50 s, 1.2 + 0.5 GiB |"


def test_every_default_of_the_reference_is_the_default() -> None:
    # with each commented setting put in force the file says what Config() says: defaults and names cannot drift
    text = re.sub(r"^#(\w+ = .*)$", r"\1", docs.reference(), flags=re.MULTILINE)
    values = tomllib.loads("\n".join(line for line in text.splitlines() if "# not set by default" not in line))
    assert Config.model_validate(values) == Config()
    fields = {
        (section, name)
        for section, field in Config.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        for name in field.annotation.model_fields
    }
    given = {(section, name) for section, entries in values.items() for name in entries}
    assert fields - given == {
        ("profiles", "segment_attribute"), ("candidates", "repeats_allowed"), ("candidates", "texts"),
        ("profiles", "recent_days"), ("ranker", "horizon_days"), ("ranker", "attention"),
    }


def test_what_was_decided_stands_in_force() -> None:
    values = tomllib.loads(toml("about", {("lists", "k"): (7, "a test"), ("paths", "raw"): ('a "b"\\c\n', "a test")}))
    assert values["lists"] == {"k": 7} and values["paths"] == {"raw": 'a "b"\\c\n'}
    with pytest.raises(AssertionError, match="no such config fields"):
        toml("about", {("lists", "kk"): (7, "a test")})


@pytest.mark.parametrize("value", [True, 1, 1.5, 1e-9, "ä\x7f\t", [], {}, {"a": [1, 2]}, ["x", "y"]])
def test_literals_read_back(value: object) -> None:
    assert tomllib.loads(f"x = {literal(value)}")["x"] == value
