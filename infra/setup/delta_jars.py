"""Delta's jars, by their coordinate, into pyspark's jar folder: plain spark-submit then needs no option and no network.

    .venv/bin/python infra/setup/delta_jars.py CACHE

They are resolved once per user through Spark's own Ivy (20 s) into CACHE/COORDINATE/. Of everything Ivy fetches only
Delta's and Unity Catalog's jars are kept: the others (Hadoop, Parquet, Jackson ...) lie in pyspark already, in the
versions it was built with.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pyspark

COORDINATE = f"io.delta:delta-spark_{'.'.join(pyspark.__version__.split('.')[:2])}_2.13:{version('delta-spark')}"
KEPT = ("io.delta_*.jar", "io.unitycatalog_*.jar")
# 60 MB that pyspark has already.
EXCLUDED = "org.apache.hadoop:hadoop-client-api,org.apache.hadoop:hadoop-client-runtime"


def resolved(cache: Path) -> Path:
    """The folder of the coordinate's jars, fetched where it is missing. It appears whole or not at all."""
    home = cache / COORDINATE.replace(":", "_")
    if home.is_dir():
        return home
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".ivy-") as work:
        print(f"» {COORDINATE} into {home}")
        # spark-submit resolves the jars before it starts the program, which does nothing.
        answer = subprocess.run(
            [
                Path(pyspark.__file__).parent / "bin/spark-submit",
                "--packages",
                COORDINATE,
                "--exclude-packages",
                EXCLUDED,
                "--conf",
                f"spark.jars.ivy={work}",
                "--master",
                "local[1]",
                _empty_program(Path(work)),
            ],
            env={k: v for k, v in os.environ.items() if k not in ("SPARK_HOME", "SPARK_CONF_DIR")}
            | {"PYSPARK_PYTHON": sys.executable},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        kept = [jar for pattern in KEPT for jar in Path(work).glob(f"jars/{pattern}")]
        if answer.returncode or not kept:
            sys.exit(f"{answer.stderr[-3000:]}\nset-up: {COORDINATE} could not be resolved (the cause is above)")
        chosen = Path(work) / "kept"
        chosen.mkdir()
        for jar in kept:
            jar.rename(chosen / jar.name)
        if not home.exists():
            chosen.rename(home)
    return home


def _empty_program(folder: Path) -> Path:
    program = folder / "nothing.py"
    program.write_text("")
    return program


def main() -> None:
    """Link the jars into pyspark; jars of another version go."""
    target = Path(pyspark.__file__).parent / "jars"
    wanted = {jar.name: jar for jar in resolved(Path(sys.argv[1])).iterdir()}
    for pattern in KEPT:
        for stale in target.glob(pattern):
            if stale.name not in wanted:
                stale.unlink()
    for name, jar in wanted.items():
        if not (target / name).exists():
            shutil.copy2(jar, target / name)


if __name__ == "__main__":
    main()
