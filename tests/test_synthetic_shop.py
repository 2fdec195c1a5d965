"""The synthetic shop itself: what other tests rest on."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from synthetic import deployment, taste, write_raw

from nightrec import config as configuration


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_the_same_arguments_write_the_same_bytes(tmp_path: Path) -> None:
    assert write_raw(tmp_path / "a") == write_raw(tmp_path / "b")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    write_raw(tmp_path / "c", seed=8)
    assert files(tmp_path / "a") != files(tmp_path / "c")


def test_the_books_and_the_planted_tastes(tmp_path: Path) -> None:
    toml, shop = deployment(tmp_path)
    parts = sorted((tmp_path / "raw/events").rglob("*.gz"))
    lines = [line for part in parts for line in gzip.decompress(part.read_bytes()).splitlines()]
    assert len(lines) == shop.accepted + shop.duplicates + shop.rejected
    events = [json.loads(line) for line in lines if line != b"{broken"]
    own = sum(taste(e["user_id"]) == taste(e["item_id"]) for e in events) / len(events)
    assert 0.85 < own < 0.95
    assert configuration.load(toml).paths.raw == str(tmp_path / "raw")
