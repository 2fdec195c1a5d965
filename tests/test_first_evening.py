"""A newcomer's first evening: the README's nightrec commands, run one after another as they stand there."""

from __future__ import annotations

import csv
import gzip
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from spark_commands import BIN, CHECKOUT, environment
from synthetic import Shop, user_id, write_raw

README = (CHECKOUT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """The README's lines that start nightrec, in their order but for the deployment that has to exist first."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith(".venv/bin/nightrec ")]
    order = ("doctor", "init", "run", "show", "report")
    return sorted(lines, key=lambda line: order.index(line.split()[1]))


def events_file(folder: Path) -> tuple[Path, Shop]:
    """events.csv with column names of its own, from the planted shop's log."""
    shop = write_raw(folder / "log", users=30, items=40, days=50)
    lines = [
        line
        for file in sorted((folder / "log/events").glob("*/*.gz"))
        for line in gzip.decompress(file.read_bytes()).decode().splitlines()
    ]
    rows = [json.loads(line) for line in lines if line.endswith("}")]  # but for the broken one
    target = folder / "events.csv"
    with target.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["customer", "product", "action", "when"])
        writer.writerows([r["user_id"], r["item_id"], r["event_type"], r["event_ts"]] for r in rows)
    return target, shop


@pytest.mark.timeout(1200)
def test_the_commands_of_the_readme_do_what_they_say(tmp_path: Path) -> None:
    file, shop = events_file(tmp_path)
    toml = tmp_path / "shop/nightrec.toml"
    said: dict[str, str] = {}
    for line in commands():
        given = [
            {"events.csv": str(file), "var/shop": str(tmp_path / "shop"), "196": user_id(4)}.get(word, word)
            for word in shlex.split(line)[1:]
        ]
        given = [str(toml) if word.endswith("nightrec.toml") else word for word in given]
        given = [shop.last.isoformat() if re.fullmatch(r"\d{4}-\d\d-\d\d", word) else word for word in given]
        ended = subprocess.run(
            [BIN / "nightrec", *given], cwd=tmp_path, env=environment(is_compiled=True), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=1100, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, f"{line}\n{ended.stdout[-3000:]}{ended.stderr[-3000:]}"
        assert "Traceback" not in ended.stderr
        said[given[0]] = ended.stdout
    assert set(said) == {"doctor", "init", "run", "show", "report"}
    # Every guess follows from how the file was made.
    assert all(name in said["init"] for name in ("customer", "product", "action", "when"))
    assert "Published: " in said["run"] and "Try next:" in said["run"]
    # Even users like even items: each of the user's own list is named with its reason.
    assert user_id(4) in said["show"] and "because of" in said["show"]
    assert "published_topk" in said["report"] and "clean_events" in said["report"]
