"""How tests start Spark's own commands: from this environment, untouched by the session of the test run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


def environment(**more: str) -> dict[str, str]:
    """The variables of a person who has put .venv/bin on PATH, and `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK", "PYSPARK", "AIRFLOW"))}
    return kept | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "SPARK_LOCAL_IP": "127.0.0.1"} | more


def spark_submit(*words: str | Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run spark-submit in the checkout, to its end."""
    return subprocess.run(
        ["spark-submit", *map(str, words)], cwd=CHECKOUT, env=environment(), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
