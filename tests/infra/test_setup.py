"""The set-up, as far as it can be tried without installing anything: what it says, and what it refuses."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def shell(command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "JAVA_", "MAKE"))}
    return subprocess.run(
        ["bash", "-c", command], cwd=CHECKOUT, env=kept | variables, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


@pytest.fixture
def stubs(tmp_path: Path) -> str:
    """A PATH on which Java does not work, apt-get would be noticed, and the user is not root."""
    for name, text in {"java": "exit 1", "apt-get": "echo apt-get ran >&2", "id": "echo 1000"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    return f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


def test_make_alone_explains_every_target() -> None:
    targets = re.findall(r"^\.PHONY: (.*)$", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)[0].split()
    said = shell("make")
    assert said.returncode == 0
    explained = re.findall(r"^  ([a-z-]+)  +\S", said.stdout, re.MULTILINE)
    assert sorted(explained) == sorted(targets)


def test_without_java_a_user_who_is_not_root_reads_the_command(stubs: str) -> None:
    said = shell("infra/setup/system.sh", PATH=stubs)
    assert said.returncode == 1
    assert "missing: openjdk-17-jre-headless" in said.stderr
    assert "apt-get update && apt-get install -y --no-install-recommends openjdk-17-jre-headless" in said.stderr
    assert "apt-get ran" not in said.stderr


def test_java_home_that_points_nowhere_is_named(stubs: str) -> None:
    said = shell("infra/setup/system.sh", PATH=stubs, JAVA_HOME="/nowhere")
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr == "set-up: JAVA_HOME=/nowhere has no bin/java; unset it, or set it to a Java 17\n"


def test_another_python_is_refused_by_name(tmp_path: Path) -> None:
    for name in ("python3.11", "python3"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    said = shell(". infra/setup/common.sh; python311", PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert said.returncode == 1
    assert "Python 3.11 is needed and neither python3.11 nor python3 on PATH is it" in said.stderr


def test_what_pip_was_told_holds_for_uv() -> None:
    told = {"PIP_INDEX_URL": "https://index.invalid/simple", "PIP_FIND_LINKS": "/one /two"}
    said = shell('. infra/setup/common.sh; echo "$UV_DEFAULT_INDEX $UV_FIND_LINKS"', **told)
    assert said.stdout == "https://index.invalid/simple /one,/two\n"


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-airflow.txt"])
def test_constraints_hold_versions_only(name: str) -> None:
    lines = (CHECKOUT / name).read_text().splitlines()
    assert len(lines) > 50
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*( ; .*)?", line)] == []


def test_every_dependency_is_pinned() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    asked = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["test"]]
    pinned = {line.partition("==")[0] for line in (CHECKOUT / "constraints.txt").read_text().splitlines()}
    assert [name for name in asked if re.split(r"[<>=!~\[ ]", name)[0] not in pinned] == []
    airflow = {line.partition("==")[0] for line in (CHECKOUT / "constraints-airflow.txt").read_text().splitlines()}
    groups = project["dependency-groups"]["airflow"]
    assert [name for name in groups if re.split(r"[<>=!~\[ ]", name)[0] not in airflow] == []
