"""What a session's JVM and its workers write aside goes with them, or with the next session where they are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from processes import MARK, alive, marked
from spark_commands import environment

SHUFFLED = """
import sys
from nightrec.config import Spark
from nightrec.session import session
options = dict(word.split("=") for word in sys.argv[1:])
spark = session(Spark(options=options), "aside")
rows = spark.range(1000).repartition(4, "id").mapInArrow(lambda batches: batches, "id long")
print(rows.count(), flush=True)
sys.stdin.read()
spark.stop()
"""


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder of temporary files with a path as short as they have it on machines."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="t") as folder:
        yield Path(folder)


def started(temporary: Path, mark: str, *options: str) -> subprocess.Popen[str]:
    """A session that has shuffled rows, used a Python worker, and waits."""
    variables = environment(TMPDIR=str(temporary), **{MARK: mark})
    command = [sys.executable, "-c", SHUFFLED, *options]
    begun = subprocess.Popen(command, env=variables, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert begun.stdout and begun.stdout.readline() == "1000\n"
    return begun


def files(folder: Path, kind: str = "") -> list[Path]:
    return [file for file in folder.rglob(f"*{kind}") if file.is_socket() or file.is_file()]


def test_nothing_stays_of_a_session_that_ends(temporary: Path) -> None:
    mark = str(temporary)
    begun = started(temporary, mark)
    (own,) = temporary.iterdir()
    assert files(own, ".sock") and files(own, ".data"), list(own.rglob("*"))
    begun.communicate("")
    assert not begun.returncode and not alive(mark)
    assert not list(temporary.iterdir())


def test_what_a_killed_session_left_goes_with_the_next_one(temporary: Path) -> None:
    spill, mark = temporary / "disk", str(temporary)
    begun = started(temporary, mark, f"spark.local.dir={spill}")
    (own,) = spill.iterdir()
    assert files(own, ".data") and not files(own, ".sock")
    # The JVM first: left without its driver it would clear away by itself.
    for pid in sorted(marked(mark), key=begun.pid.__eq__):
        os.kill(pid, signal.SIGKILL)
    begun.communicate("")
    assert own.exists() and not alive(mark)
    started(temporary, mark, f"spark.local.dir={spill}").communicate("")
    assert not alive(mark)
    assert list(temporary.iterdir()) == [spill] and not list(spill.iterdir())


def test_a_jvm_ends_with_its_driver_however_busy_it_is(temporary: Path) -> None:
    """Held, so that it cannot see that its input ends, let alone stop in order."""
    mark = str(temporary)
    begun = started(temporary, mark)
    (jvm,) = [pid for pid, command in marked(mark).items() if "SparkSubmit" in command]
    os.kill(jvm, signal.SIGSTOP)
    try:
        begun.kill()
        begun.wait()
        assert not alive(mark)
    finally:
        with suppress(ProcessLookupError):
            os.kill(jvm, signal.SIGKILL)


def test_temporary_files_of_a_long_path_leave_sockets_in_a_short_one(temporary: Path) -> None:
    (far := temporary / ("container-of-an-application-" * 3)).mkdir()
    begun = started(far, str(temporary))
    assert not files(temporary, ".sock")
    begun.communicate("")
    assert not begun.returncode and not list(far.iterdir())
