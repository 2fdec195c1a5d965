"""Doctor: the seven ways in which a first hour goes wrong, each really broken, and a healthy machine."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from nightrec import doctor, machine
from nightrec.config import Config, Encoder, Paths
from nightrec.machine import Check

VARIABLES = (
    "JAVA_HOME", "SPARK_HOME", "SPARK_CONF_DIR", "SPARK_LOCAL_DIRS", "SPARK_LOCAL_IP", "PYSPARK_PYTHON", "PYTHONPATH",
    "PYSPARK_SUBMIT_ARGS", "PYSPARK_DRIVER_PYTHON",
)  # fmt: skip


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def only_failure(found: list[Check]) -> Check:
    """The one check that failed: a cause must not be reported under three names."""
    failed = [check for check in found if check.state == "fail"]
    assert len(failed) == 1, doctor.render(found)
    assert failed[0].mend
    return failed[0]


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_nothing_fails_here_and_it_takes_less_than_five_seconds(config: Config) -> None:
    started = time.monotonic()
    found = doctor.checks(config, deep=False)
    assert time.monotonic() - started < 5
    assert doctor.exit_code(found) == 0, doctor.render(found)
    assert "0 failed" in doctor.render(found)
    # A check that changes nothing: the warehouse is still not there.
    assert not Path(config.paths.warehouse).exists()


# 1 ---- JAVA_HOME points nowhere; Spark says only JAVA_GATEWAY_EXITED.
def test_java_home_that_points_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    found = only_failure(doctor.checks(None, deep=True))
    assert found.found.startswith("JAVA_HOME=/nowhere has no bin/java; java on PATH is ")
    assert found.mend == "unset JAVA_HOME"


def test_java_of_another_version_and_none_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin/java", "echo 'openjdk version \"11.0.2\" 2019-01-15' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert "is version 11.0.2; Spark 4.2 needs 17 or 21" in machine.java().found
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert machine.java().found == "no java on PATH and JAVA_HOME is not set"
    assert "openjdk-17-jre-headless" in machine.java().mend


# 2 ---- Delta's jar is not there (offline at install time, wrong Scala); Spark says only JAVA_GATEWAY_EXITED.
def test_jar_folder_without_deltas_jar_or_with_another_scalas(tmp_path: Path) -> None:
    (tmp_path / "scala-library-2.13.18.jar").touch()
    found = machine.delta(jars=tmp_path)
    assert (found.state, found.found) == ("fail", f"delta-spark_4.2_2.13-4.4.0.jar is not in {tmp_path}")
    assert found.mend.startswith("make install")
    (tmp_path / "io.delta_delta-spark_4.2_2.12-4.4.0.jar").touch()
    assert "(there is io.delta_delta-spark_4.2_2.12-4.4.0.jar)" in machine.delta(jars=tmp_path).found
    (tmp_path / "io.delta_delta-spark_4.2_2.13-4.4.0.jar").touch()
    assert machine.delta(jars=tmp_path).state == "ok"


# 3 ---- SPARK_HOME of another install; it is used without a word, or not found.
def test_foreign_spark_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    assert machine.spark_home().found == f"SPARK_HOME={tmp_path} has no bin/spark-submit"
    program(tmp_path / "bin/spark-submit", "exit 1")
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars/spark-core_2.13-3.5.1.jar").touch()
    found = machine.spark_home()
    assert found.state == "fail"
    assert found.found == f"SPARK_HOME={tmp_path} is another Spark, 3.5.1; this environment's is 4.2.0"
    assert found.mend == "unset SPARK_HOME"


def test_spark_home_of_this_environment_is_no_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyspark

    monkeypatch.setenv("SPARK_HOME", str(Path(pyspark.__file__).parent))
    assert machine.spark_home().state == "ok"


# 4 ---- Workers with another Python; fails at the first Python function and not before.
def test_workers_with_another_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = program(tmp_path / "python3.12", "echo 3.12")
    monkeypatch.setenv("PYSPARK_PYTHON", str(stub))
    found = only_failure(doctor.checks(None, deep=False))
    assert found.found == f"workers would run Python 3.12 (PYSPARK_PYTHON={stub}), the driver runs 3.11"
    assert found.mend == "unset PYSPARK_PYTHON"
    monkeypatch.setenv("PYSPARK_PYTHON", "/nowhere/python")
    assert "PYSPARK_PYTHON=/nowhere/python does not run" in machine.workers_python().found


# 5 ---- Scratch that cannot be written; Spark says "Answer from Java side is empty".
def test_unwritable_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A file in the folder's place: root, whom these tests may run as, may write into any folder.
    (tmp_path / "taken").write_text("")
    monkeypatch.setenv("SPARK_LOCAL_DIRS", f"{tmp_path},{tmp_path}/taken/spark")
    found = only_failure(doctor.checks(None, deep=False))
    assert found.name == "scratch"
    assert f"{tmp_path}/taken/spark cannot be written" in found.found
    assert found.mend.startswith("set SPARK_LOCAL_DIRS to a folder")


def test_local_dirs_of_the_environment_beat_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [check.found.partition(",")[0] for check in machine.scratch(str(tmp_path))] == [str(tmp_path)]
    monkeypatch.setenv("SPARK_LOCAL_DIRS", "/tmp")
    assert [check.found.partition(",")[0] for check in machine.scratch(str(tmp_path))] == ["/tmp"]


def test_unwritable_and_full_warehouse(tmp_path: Path) -> None:
    (tmp_path / "warehouse").write_text("")
    found = only_failure(doctor.checks(Config(paths=Paths(warehouse=str(tmp_path / "warehouse"))), deep=False))
    assert (found.name, found.mend) == ("warehouse", "name another [paths] warehouse in the TOML")
    assert machine.folder("warehouse", str(tmp_path), "free some", needed_gb=1e9).state == "warn"
    assert machine.folder("warehouse", "s3a://bucket/warehouse", "", needed_gb=1e9).state == "ok"


# 6 ---- A host name that does not resolve, or to another machine's address; Spark retries 16 times, BindException.
def test_host_that_cannot_be_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine.host("no-such-host.invalid")
    assert (found.state, found.found.partition(":")[0]) == ("fail", "no-such-host.invalid does not resolve")
    # 203.0.113.0/24 is kept for documentation: no machine has such an address.
    monkeypatch.setenv("SPARK_LOCAL_IP", "203.0.113.7")
    found = only_failure(doctor.checks(None, deep=False))
    assert found.found == "203.0.113.7 resolves to 203.0.113.7, which is no address of this machine"
    assert found.mend.startswith("export SPARK_LOCAL_IP=127.0.0.1")


# 7 ---- pyarrow is missing; Spark merely warns and goes slow.
def test_missing_pyarrow() -> None:
    blocked = "import sys; sys.modules['pyarrow'] = None; from nightrec import doctor; "
    asked = [sys.executable, "-c", blocked + "print(doctor.render(doctor.checks(None, False)))"]
    said = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "fail  Arrow            pyarrow cannot be imported" in said
    assert "mend: make install" in said
    assert ": 1 failed" in said


def test_what_leaks_in_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", "--master yarn pyspark-shell")
    found = machine.leaks()
    assert found.state == "warn"
    assert f"SPARK_CONF_DIR={tmp_path} (it has no spark-defaults.conf)" in found.found
    assert found.mend.startswith("unset SPARK_CONF_DIR PYSPARK_SUBMIT_ARGS")
    (tmp_path / "pyspark").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert (machine.leaks().state, machine.leaks().mend) == ("fail", "unset PYTHONPATH")


def test_more_memory_asked_for_than_there_is() -> None:
    found = machine.memory("4t")
    assert found.state == "fail"
    assert found.mend.startswith("set driver_memory in [spark]")


def test_encoder_that_is_missing_or_another_one(tmp_path: Path) -> None:
    missing = doctor.encoder(Encoder(folder=str(tmp_path)))
    assert missing.state == "fail"
    assert missing.found == f"{tmp_path} lacks config.json, tokenizer.json, model.safetensors"
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("other")
    other = doctor.encoder(Encoder(folder=str(tmp_path)))
    # The first 12 digits of sha256("other").
    assert other.found == f"{tmp_path} holds revision d9298a10d1b0, the config says 53aa51172d14"


def test_deep_runs_a_function_and_a_commit_and_leaves_the_session_running(spark: SparkSession, config: Config) -> None:
    found = doctor.checks(config, deep=True)
    assert doctor.exit_code(found) == 0, doctor.render(found)
    assert [check.name for check in found[-3:]] == ["session", "Python function", "Delta commit"]
    assert spark.range(1).count() == 1


def test_deep_starts_nothing_where_something_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_HOME", "/nowhere")
    assert doctor.checks(None, deep=True)[-1].found == "not started: mend the failures above first"
