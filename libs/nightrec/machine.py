"""What `nightrec doctor` looks at outside nightrec: Java, Python, Spark's parts and leaks, the host, folders, memory.

Each function is one check. It names the cause that Spark itself hides (JAVA_GATEWAY_EXITED, "Answer from Java side is
empty", a failure at the first Python function ...) and the command that mends it.
"""

from __future__ import annotations

import importlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

GB = 1024**3
JAVAS = (17, 21)


@dataclass(frozen=True)
class Check:
    """One thing looked at: `found` says what is there, `mend` the command that puts it right."""

    name: str
    state: Literal["ok", "warn", "fail"]
    found: str
    mend: str = ""


def java() -> Check:
    """Java 17 or 21 where Spark looks for it: JAVA_HOME first, then PATH."""
    home, name = os.environ.get("JAVA_HOME"), "Java"
    on_path = shutil.which("java")
    install = "apt-get install -y openjdk-17-jre-headless   (as root)"
    if home and not os.access(Path(home) / "bin/java", os.X_OK):
        there = f"; java on PATH is {on_path}" if on_path else "; there is none on PATH either"
        return Check(
            name, "fail", f"JAVA_HOME={home} has no bin/java{there}", "unset JAVA_HOME" if on_path else install
        )
    program = f"{home}/bin/java" if home else on_path
    if not program:
        return Check(name, "fail", "no java on PATH and JAVA_HOME is not set", install)
    answer = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=20, check=False).stderr
    found = re.search(r'version "(\d+)([^"]*)"', answer)
    if not found or int(found[1]) not in JAVAS:
        shown = f"version {found[1]}{found[2]}" if found else f"no version ({answer.strip()[:80]})"
        return Check(
            name, "fail", f"{program} is {shown}; Spark 4.2 needs 17 or 21", f"{install}; then set JAVA_HOME to it"
        )
    return Check(name, "ok", f"{found[1]}{found[2]} at {program}")


def workers_python() -> Check:
    """The Python of Spark's workers has the driver's version: else the first Python function fails."""
    name = "Python"
    driver = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if driver != "3.11":
        return Check(
            name,
            "fail",
            f"the driver runs {driver} ({sys.executable}), not 3.11",
            "run .venv/bin/nightrec, after make install",
        )
    worker = os.environ.get("PYSPARK_PYTHON") or sys.executable
    mend = "unset PYSPARK_PYTHON"
    try:
        asked = [worker, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        found = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return Check(name, "fail", f"PYSPARK_PYTHON={worker} does not run: {error}", mend)
    if found != driver:
        return Check(
            name, "fail", f"workers would run Python {found} (PYSPARK_PYTHON={worker}), the driver runs {driver}", mend
        )
    return Check(name, "ok", f"{driver} on driver and workers ({worker})")


def spark_home() -> Check:
    """SPARK_HOME, where set, is this environment's pyspark: another install would be used without a word."""
    name, home, mend = "SPARK_HOME", os.environ.get("SPARK_HOME"), "unset SPARK_HOME"
    own = _pyspark_folder()
    if not home:
        return Check(name, "ok", "not set")
    if not (Path(home) / "bin/spark-submit").is_file():
        return Check(name, "fail", f"SPARK_HOME={home} has no bin/spark-submit", mend)
    if own and Path(home).resolve() == own.resolve():
        return Check(name, "ok", f"{home} (this environment's)")
    core = next((Path(home) / "jars").glob("spark-core_*.jar"), None)
    other = core.stem.rpartition("-")[2] if core else "of unknown version"
    mine = _version("pyspark")
    state: Literal["warn", "fail"] = "warn" if other == mine else "fail"
    return Check(name, state, f"SPARK_HOME={home} is another Spark, {other}; this environment's is {mine}", mend)


def leaks() -> Check:
    """Variables that change Spark or its Python from outside: seen, not forbidden: a cluster's client uses some."""
    found = []
    paths = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    if any((Path(part) / "pyspark").exists() or "py4j" in part for part in paths):
        return Check(
            "leaks", "fail", f"PYTHONPATH={os.environ['PYTHONPATH']} brings another pyspark", "unset PYTHONPATH"
        )
    if paths:
        found.append(f"PYTHONPATH={os.environ['PYTHONPATH']}")
    folder = os.environ.get("SPARK_CONF_DIR")
    if folder:
        settings = "" if (Path(folder) / "spark-defaults.conf").is_file() else " (it has no spark-defaults.conf)"
        found.append(f"SPARK_CONF_DIR={folder}{settings}")
    found += [
        f"{name}={os.environ[name]}"
        for name in ("PYSPARK_SUBMIT_ARGS", "PYSPARK_DRIVER_PYTHON")
        if os.environ.get(name)
    ]
    if found:
        names = " ".join(item.partition("=")[0] for item in found)
        return Check(
            "leaks",
            "warn",
            "; ".join(found) + ": used by every Spark started here",
            f"unset {names}   (unless you mean it)",
        )
    return Check("leaks", "ok", "no PYTHONPATH, SPARK_CONF_DIR, PYSPARK_SUBMIT_ARGS, PYSPARK_DRIVER_PYTHON")


def delta(jars: Path | None = None) -> Check:
    """pyspark, delta-spark, Delta's jar and Scala fit: the jar's name says for which Spark and Scala it was built."""
    name, spark, package = "Spark and Delta", _version("pyspark"), _version("delta-spark")
    if not spark or not package:
        return Check(name, "fail", f"pyspark {spark or 'missing'}, delta-spark {package or 'missing'}", "make install")
    folder = jars or Path(os.environ.get("SPARK_HOME") or _pyspark_folder() or ".") / "jars"
    scala = next(
        (m[1] for jar in folder.glob("scala-library-*.jar") if (m := re.search(r"-(\d+\.\d+)\.", jar.name))), "2.13"
    )
    wanted = f"delta-spark_{'.'.join(spark.split('.')[:2])}_{scala}-{package}.jar"
    there = sorted(jar.name for jar in folder.glob("*delta-spark_*.jar"))
    if not any(jar.endswith(wanted) for jar in there):
        others = f" (there is {', '.join(there)})" if there else ""
        mend = "make install   (no network? first copy ~/.cache/nightrec/jars from a machine that has it)"
        return Check(name, "fail", f"{wanted} is not in {folder}{others}", mend)
    return Check(name, "ok", f"Spark {spark}, Delta {package}, Scala {scala}, jar in {folder}")


def arrow() -> Check:
    """pyarrow and a pandas below 3 are there: without them Spark merely warns and goes slow, or a job fails late."""
    name, mend = "Arrow", "make install"
    try:
        found = f"pyarrow {importlib.import_module('pyarrow').__version__}"
    except ImportError as error:
        return Check(name, "fail", f"pyarrow cannot be imported: {error}", mend)
    # Not imported: that alone takes up to 2 s.
    pandas = _version("pandas") if find_spec("pandas") else ""
    if not pandas or int(pandas.split(".")[0]) >= 3:
        return Check(name, "fail", f"pandas {pandas or 'is missing'}; Spark 4.2 needs one below 3", mend)
    return Check(name, "ok", f"{found}, pandas {pandas}")


def host(name: str | None = None) -> Check:
    """The address Spark will bind: SPARK_LOCAL_IP, else what the host's name resolves to. `name` is for tests."""
    asked = os.environ.get("SPARK_LOCAL_IP") or name or socket.gethostname()
    mend = "export SPARK_LOCAL_IP=127.0.0.1   (one machine), or name this host in /etc/hosts"
    try:
        address = socket.gethostbyname(asked)
    except OSError as error:
        return Check("host", "fail", f"{asked} does not resolve: {error}", mend)
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return Check("host", "fail", f"{asked} resolves to {address}, which is no address of this machine", mend)
    return Check("host", "ok", f"{asked} is {address}")


def folder(name: str, path: str, mend: str, needed_gb: float) -> Check:
    """A folder can be written (or made, where it is missing) and has room."""
    if "://" in path:
        return Check(name, "ok", f"{path} (on another system: not looked at)")
    there = next(part for part in (Path(path), *Path(path).absolute().parents) if part.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=there):
            free = shutil.disk_usage(there).free / GB
    except OSError as error:
        owner = f"{there.owner()}, mode {there.stat().st_mode & 0o777:o}" if there.is_dir() else "it is no folder"
        return Check(name, "fail", f"{path} cannot be written: {there}: {error.strerror} ({owner})", mend)
    if free < needed_gb:
        return Check(
            name, "warn", f"{path} has {free:.1f} GB left, {needed_gb:g} are advised", f"free some room, or {mend}"
        )
    return Check(name, "ok", f"{path}, {free:.0f} GB left")


def scratch(local_dir: str | None) -> list[Check]:
    """Every folder Spark spills to. SPARK_LOCAL_DIRS beats the setting spark.local.dir, and both beat TMPDIR."""
    asked = os.environ.get("SPARK_LOCAL_DIRS")
    source = "SPARK_LOCAL_DIRS" if asked else "spark.local.dir"
    mend = f"set {source} to a folder you may write, with room"
    paths = asked or local_dir or tempfile.gettempdir()
    return [folder("scratch", path.strip(), mend, needed_gb=2) for path in paths.split(",")]


def memory(driver_memory: str) -> Check:
    """Room for the driver's heap and, beside it, for Python workers with the encoder (about 1.5 GB)."""
    size = int(driver_memory[:-1]) * {"k": 1024, "m": 1024**2, "g": GB, "t": 1024 * GB}[driver_memory[-1]]
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    total = int(lines["MemTotal"].split()[0]) * 1024
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()) != "max":
        total = min(total, int(text))
    free = min(total, int(lines["MemAvailable"].split()[0]) * 1024)
    found = f"{free / GB:.1f} of {total / GB:.1f} GB free; the driver may take {driver_memory}"
    mend = f'set driver_memory in [spark] of the TOML to "{max(1, int(total / GB / 2))}g" or less'
    if size > total:
        return Check("memory", "fail", found, mend)
    return Check("memory", "warn" if size + 1.5 * GB > free else "ok", found, mend if size + 1.5 * GB > free else "")


def _pyspark_folder() -> Path | None:
    spec = find_spec("pyspark")
    return Path(spec.origin).parent if spec and spec.origin else None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
