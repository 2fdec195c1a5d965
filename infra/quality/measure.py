"""Judge the lists on a log and keep what was found for the README: `make quality NAME=my_shop RAW=folder`.

    python infra/quality/measure.py my_shop --raw my_shop/raw --work var/quality [--repeats] [--config TOML]

Every setting has its default, or the one of the TOML file given; only whether repeats are allowed is part of the task.
Runs `nightrec evaluate`, which prints its progress, and writes infra/quality/NAME.json: the README's tables are made
from these files.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nightrec.settings import literal

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Command line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("name", help="of the log and the task, as the README should call it")
    arguments.add_argument("--raw", required=True, type=Path, metavar="FOLDER", help="raw root of the log")
    arguments.add_argument("--work", required=True, type=Path, metavar="FOLDER", help="where tables and models go")
    arguments.add_argument("--config", type=Path, metavar="TOML", help="settings that differ from the defaults")
    arguments.add_argument("--repeats", action="store_true", help="items a user has acted on may come back")
    arguments.add_argument("--cuts", type=int, default=3)
    arguments.add_argument("--days", type=int, default=14)
    options = arguments.parse_args()
    config = deployment(options.work / options.name, options.raw, options.config, repeats=options.repeats)
    started = time.monotonic()
    judged = subprocess.run(
        [Path(sys.executable).with_name("nightrec"), "evaluate", "--config", config, "--json",
         "--cuts", str(options.cuts), "--days", str(options.days)],
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    kept = {
        "name": options.name,
        "date": datetime.now(tz=UTC).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "minutes": round((time.monotonic() - started) / 60, 1),
        "repeats_allowed": options.repeats,
        **trimmed(json.loads(judged.stdout)),
    }
    (HERE / f"{options.name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def deployment(folder: Path, raw: Path, config: Path | None, *, repeats: bool) -> Path:
    """A nightrec.toml for the log in `folder`: the settings of `config`, its paths and the task set."""
    settings: dict[str, dict[str, Any]] = tomllib.loads(config.read_text(encoding="utf-8")) if config else {}
    settings.setdefault("spark", {}).update(master=f"local[{os.cpu_count()}]", partitions=2)
    settings["paths"] = {"raw": str(raw.resolve())}
    settings.setdefault("candidates", {})["repeats_allowed"] = repeats
    lines = [
        line
        for section, values in settings.items()
        for line in (f"[{section}]", *(f"{key} = {literal(value)}" for key, value in values.items()))
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nightrec.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "nightrec.toml"


def trimmed(found: dict[str, Any]) -> dict[str, Any]:
    """What the README needs: everything pooled over the cuts, and each cut's NDCG."""
    names = ("judged", "slices", "reached", "calibrated", "rated")
    pooled = {name: [row for row in found[name] if row["cut"] is None] for name in names}
    by_cut = [
        {"cut": row["cut"], "method": row["method"], "ndcg": row["figures"]["ndcg"], "gain": row["gain"]}
        for row in found["judged"]
        if row["cut"]
    ]
    return {**{name: found[name] for name in ("ours", "k", "days", "cuts", "costs")}, **pooled, "by_cut": by_cut}


if __name__ == "__main__":
    main()
