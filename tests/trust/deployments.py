"""The shop of all kill tests: two nights, the first of which trains, and what they publish undisturbed."""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import checker
from synthetic import deployment
from warm_drivers import WarmDrivers
from witness import NOTHING, look

# Tables and stages that are tried in the second night, where yesterday's lists are served; all others in the first.
SERVING = (
    "night_models", "shortfalls", "ranked_topk", "audit", "audit_results", "published_topk", "export", "outcomes",
)  # fmt: skip

Facts = dict[str, tuple[int, str]]


@dataclass(frozen=True)
class Base:
    """Three states of one deployment (raw files only, after the first night, after the second) and what is known.

    `lawful` are the hashes of published lists that a reader may see, in order; `facts` the rows of all tables after
    each night, `places` where each night wrote, in order.
    """

    folder: Path
    nights: tuple[str, str]
    lawful: tuple[str, str, str]
    facts: tuple[Facts, Facts]
    places: tuple[tuple[str, ...], tuple[str, ...]]

    def copy(self, nights: int, to: Path) -> Path:
        """A copy of the deployment after so many nights; its files keep their times: manifests know them by these."""
        shutil.copytree(self.folder / f"after-{nights}", to)
        return to


def built(folder: Path) -> Base:
    """The base in `folder`, built by whichever process comes first; the others wait for it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "base.json").exists():
            _build(folder)
    told = json.loads((folder / "base.json").read_text())
    facts = tuple({name: (rows, digest) for name, (rows, digest) in each.items()} for each in told["facts"])
    return Base(folder, tuple(told["nights"]), tuple(told["lawful"]), facts, tuple(map(tuple, told["places"])))


def small(folder: Path) -> tuple[Path, dt.date]:
    """A deployment whose nights are as short as they can be while every stage has something to do."""
    toml, shop = deployment(folder, users=12, items=20, days=10)
    toml.write_text(toml.read_text().replace("horizon_days = 7", "horizon_days = 3"))
    return toml, shop.last


def _build(folder: Path) -> None:
    shop = folder / "shop"
    shutil.rmtree(shop, ignore_errors=True)
    toml, last = small(shop)
    nights = (str(last - dt.timedelta(days=1)), str(last))
    lawful, facts, places = [NOTHING], [], []
    shutil.copytree(shop, folder / "after-0")
    with WarmDrivers(folder / "drivers") as drivers:
        for n, night in enumerate(nights, 1):
            log = folder / f"places-{n}"
            ended = drivers.run("run", "--config", toml, "--date", night, NIGHTREC_FAILPOINT_LOG=str(log), timeout=600)
            assert ended.code == 0, ended.said[-3000:]
            shutil.copytree(shop, folder / f"after-{n}")
            lawful.append(look(str(shop / "warehouse/published_topk")).digest)
            facts.append(checker.rows(str(shop / "warehouse")))
            places.append([line.split()[1] for line in log.read_text().splitlines()])
    told = {"nights": nights, "lawful": lawful, "facts": facts, "places": places}
    (folder / "base.json").write_text(json.dumps(told))


@contextmanager
def drivers_in(folder: Path) -> Iterator[WarmDrivers]:
    """Warm drivers whose logs lie in a folder."""
    with WarmDrivers(folder) as drivers:
        yield drivers
