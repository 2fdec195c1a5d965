"""Every job file is a program: it explains itself, and a person's mistake ends in a sentence and an exit code."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from spark_commands import CHECKOUT, spark_submit

from nightrec.pipeline import STAGES

JOBS = CHECKOUT / "jobs"


def test_there_is_one_job_file_per_stage_and_no_other() -> None:
    assert {path.stem for path in JOBS.glob("*.py")} - {"__init__"} == {stage.name for stage in STAGES}


@pytest.mark.parametrize("name", [stage.name for stage in STAGES])
def test_a_job_explains_itself(name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # As a program, but in this process: fifteen Java machines would take a minute.
    monkeypatch.setattr("nightrec.night.die_with_parent", lambda: None)
    monkeypatch.setattr("sys.argv", [f"jobs/{name}.py", "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(JOBS / f"{name}.py"), run_name="__main__")
    assert end.value.code == 0
    said = capsys.readouterr().out
    # What it writes and how it is started, then the arguments all jobs share.
    assert f"spark-submit jobs/{name}.py --config" in said
    assert "--als-model" in said


def test_spark_submit_passes_a_users_mistake_on_without_a_traceback(tmp_path: Path) -> None:
    ended = spark_submit("jobs/clean_events.py", "--config", tmp_path / "none.toml", "--date", "2026-03-10")
    assert ended.returncode == 2
    said = ended.stdout + ended.stderr  # spark-submit prints a program's complaints on its own standard output
    assert f"clean_events 2026-03-10: config {tmp_path}/none.toml does not exist" in said
    assert "Traceback" not in said
