"""`nightrec doctor`: what would go wrong in the first hour, each with its cause and the command that mends it."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from nightrec import machine
from nightrec.config import Config, Encoder, Privacy, cache_folder
from nightrec.errors import UsageError
from nightrec.machine import Check

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_CHECKOUT = Path(__file__).resolve().parents[2]


def checks(config: Config | None, deep: bool) -> list[Check]:
    """Look at everything, without starting Spark (about 1 s). Without a config the defaults' needs are looked at.

    `deep` also starts a session, runs a Python function on a worker, commits to a Delta table and reads it back; it is
    left out where something has failed before, since it could only fail for the same cause.
    """
    settings = config or Config()
    found = [
        machine.java(),
        machine.workers_python(),
        machine.spark_home(),
        machine.leaks(),
        machine.delta(),
        machine.arrow(),
        machine.host(),
        *machine.scratch(settings.spark.options.get("spark.local.dir")),
        *(
            [machine.folder("warehouse", config.paths.warehouse, "name another [paths] warehouse in the TOML", 2)]
            if config
            else []
        ),
        machine.folder("cache", str(cache_folder()), "export XDG_CACHE_HOME=FOLDER", 1),
        machine.memory(settings.spark.driver_memory),
        encoder(settings.encoder),
        *([privacy(config.privacy)] if config else []),
        horovod(),
        airflow(),
        gpu(),
    ]
    if deep:
        found += (
            [Check("Spark itself", "warn", "not started: mend the failures above first")]
            if exit_code(found)
            else started(settings)
        )
    return found


def exit_code(found: list[Check]) -> int:
    """0 where nothing failed, 1 otherwise; warnings do not count."""
    return int(any(check.state == "fail" for check in found))


def render(found: list[Check]) -> str:
    """The checks as plain text, one a line, each mend on the line below."""
    lines = []
    for check in found:
        lines.append(f"{check.state:<4}  {check.name:<16} {check.found}")
        if check.mend:
            lines.append(f"{'':<6}{'':<16}   mend: {check.mend}")
    failed, warned = (sum(check.state == state for check in found) for state in ("fail", "warn"))
    lines.append(f"{len(found)} checks: {failed} failed, {warned} to know about")
    return "\n".join(lines)


def encoder(settings: Encoder) -> Check:
    """The encoder's files are there, and its weights are those of the pinned revision."""
    name, folder, mend = (
        "encoder",
        settings.path,
        "make install" if not settings.folder else "put the encoder's files there",
    )
    missing = [part for part in ("config.json", "tokenizer.json", "model.safetensors") if not (folder / part).is_file()]
    if missing:
        return Check(name, "fail", f"{folder} lacks {', '.join(missing)}", mend)
    with (folder / "model.safetensors").open("rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()[:12]
    if digest != settings.revision:
        again = (
            f"rm -r {folder} && make install"
            if not settings.folder
            else f'set revision = "{digest}" in [encoder] of the TOML'
        )
        return Check(name, "fail", f"{folder} holds revision {digest}, the config says {settings.revision}", again)
    return Check(name, "ok", f"{settings.id} at {folder}")


def privacy(settings: Privacy) -> Check:
    """Where there are pseudonyms, the key can be read here, and by nobody else. Every worker needs it too."""
    from nightrec.privacy import pseudonyms

    try:
        ids = pseudonyms.of(settings)
    except UsageError as error:
        said, _, mend = str(error).rpartition("; ")
        return Check("privacy", "fail", said, mend)
    if ids is None:
        return Check("privacy", "ok", "pseudonyms are off: user ids stand in the tables as logged")
    return Check("privacy", "ok", f"pseudonyms under the key {ids.key_id}")


def horovod() -> Check:
    """Horovod is there, with its torch library, built with gloo. Not imported: torch alone takes seconds."""
    name, mend = "Horovod", "make install   (builds it once, 3 to 5 minutes)"
    spec = find_spec("horovod")
    if spec is None or not spec.submodule_search_locations:
        return Check(name, "fail", "not installed: the ranker cannot be trained", mend)
    library = next(Path(spec.submodule_search_locations[0]).glob("torch/mpi_lib_v2*.so"), None)
    if library is None:
        return Check(
            name,
            "fail",
            f"{spec.submodule_search_locations[0]} was built without torch",
            f"rm -r {cache_folder()}/horovod && {mend}",
        )
    built = library.read_bytes()
    if b"GlooContext" not in built:
        return Check(name, "fail", f"{library} was built without gloo", f"rm -r {cache_folder()}/horovod && {mend}")
    return Check(
        name,
        "ok",
        f"{machine._version('horovod')} with gloo" + (" and NCCL" if b"ncclAllReduce" in built else ", CPU only"),
    )


def airflow() -> Check:
    """Airflow has an environment of its own, apart from the jobs'. Only the DAGs need it."""
    program = _CHECKOUT / ".venv-airflow/bin/airflow"
    if not program.is_file():
        return Check("Airflow", "warn", f"{program} is missing; only the DAGs need it", "make airflow-install")
    path = shutil.which("spark-submit") or f"{Path(sys.executable).parent}/spark-submit, to be on its workers' PATH"
    return Check("Airflow", "ok", f"{program}; spark-submit is {path}")


def gpu() -> Check:
    """Whether training and encoding may use a GPU. None is no fault."""
    cards = sorted(Path("/dev").glob("nvidia[0-9]*"))
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if cards and hidden != "":
        return Check("GPU", "ok", f"{len(cards)} seen" + (f", CUDA_VISIBLE_DEVICES={hidden}" if hidden else ""))
    return Check("GPU", "ok", "none seen: the CPU path, Horovod over gloo")


def started(settings: Config) -> list[Check]:
    """Spark really works: a session, a Python function on a worker, a Delta commit read back with and without Spark."""
    from pyspark.sql import SparkSession

    from nightrec.session import session

    before = SparkSession.getActiveSession()
    try:
        spark = session(settings.spark, "nightrec doctor")
    except Exception as error:
        return [
            Check(
                "session",
                "fail",
                _first_line(error),
                "read Spark's own messages above; nightrec doctor without --deep names causes",
            )
        ]
    found = [Check("session", "ok", f"Spark {spark.version} on {spark.sparkContext.master}")]
    try:
        found += [_on_a_worker(spark), _delta_round_trip(spark)]
    except Exception as error:
        found.append(Check("first job", "fail", _first_line(error), "read Spark's own messages above"))
    if before is None:
        spark.stop()
    return found


def _on_a_worker(spark: SparkSession) -> Check:
    from pyspark.sql import functions as F

    row = spark.range(1).select(F.udf(lambda _: sys.version.split()[0])("id").alias("python")).first()
    return Check("Python function", "ok", f"ran on a worker under Python {row['python'] if row else '?'}")


def _delta_round_trip(spark: SparkSession) -> Check:
    from deltalake import DeltaTable

    with tempfile.TemporaryDirectory(prefix="nightrec-doctor-") as folder:
        spark.range(3).write.format("delta").save(f"{folder}/table")
        rows = (
            spark.read.format("delta").load(f"{folder}/table").count(),
            DeltaTable(f"{folder}/table").to_pyarrow_table().num_rows,
        )
    if rows != (3, 3):
        return Check(
            "Delta commit", "fail", f"3 rows committed; Spark reads {rows[0]}, deltalake {rows[1]}", "make install"
        )
    return Check("Delta commit", "ok", "3 rows committed and read back, with Spark and without")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
