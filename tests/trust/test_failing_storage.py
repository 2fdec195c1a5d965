"""Storage that fails ends the night with a sentence; yesterday's lists stay, and the next run ends it as ever.

A full disk at ten places and the lost reply to a commit at every table are a test's own errors at fail-points; then a
file system that is really full, and a limit on the size of files.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import checker
import pytest
from chain import Stop, stopped_at_each
from deployments import SERVING, Base
from warm_drivers import Ended, WarmDrivers
from witness import look

# Ten places of the two nights, by Spark's writers and by deltalake's.
FULL = {
    "clean_events.before_commit", "ledger.before_commit", "manifests.before_commit", "als_item_factors.before_commit",
    "ranker_model.in_weights", "candidates.before_commit", "ranked_topk.before_commit",
    "audit_results.before_commit", "published_topk.before_commit", "export.before_rename",
}  # fmt: skip


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmDrivers]:
    with WarmDrivers(tmp_path_factory.mktemp("drivers"), mark="disk") as running:
        yield running


def stopped_well(ended: Ended, words: str) -> list[str]:
    """What is wrong with how a night ended whose storage failed: with which code, with which words, with a traceback.

    Without `words` it is a failure of which nightrec knows nothing: its trace goes to a file.
    """
    told = " ".join(ended.said.split())
    found = [] if ended.code == 1 else [f"it ended with {ended.code}"]
    if words and not (words in told and "then run this night again" in told):
        found.append(f"it said {told[-1500:]}")
    return found + (["it showed a traceback"] if "Traceback" in ended.said else [])


def failures(base: Base, night: int) -> list[tuple[str, str]]:
    """Where the storage fails in a night, and how; each table in the night that comes to it first."""
    chosen = []
    for place in dict.fromkeys(base.places[night - 1]):
        is_due = (place.split(".")[0] in SERVING) == (night == 2)
        if is_due and (place in FULL or place.endswith(".after_commit")):
            chosen.append((place, "full" if place in FULL else "error"))
    return chosen


def test_ten_full_disks_and_a_lost_reply_at_every_table(base: Base) -> None:
    chosen = [*failures(base, 1), *failures(base, 2)]
    assert {place for place, action in chosen if action == "full"} == FULL
    tables = {name for name, (rows, _) in base.facts[1].items() if rows} | checker.BOOKS
    assert {place.split(".")[0] for place, action in chosen if action == "error"} >= tables


@pytest.mark.timeout(900)
@pytest.mark.parametrize("night", [pytest.param(1, marks=pytest.mark.soak), 2])
def test_a_night_whose_storage_fails_again_and_again_ends_like_an_undisturbed_one(
    base: Base, drivers: WarmDrivers, night: int, tmp_path: Path
) -> None:
    shop = base.copy(night - 1, tmp_path / "shop")
    landed: list[str] = []

    def check(stop: Stop) -> None:
        landed.append(stop.place)
        is_public = "published_topk.after_commit" in landed
        assert stop.seen.digest == base.lawful[night - (not is_public)], f"{stop.place}: readers see {stop.seen}"
        words = "No space left on device" if stop.action == "full" else ""
        assert not stopped_well(stop.ended, words), f"{stop.place}: {stopped_well(stop.ended, words)}"

    ended = stopped_at_each(drivers, shop, base.nights[night - 1], failures(base, night), check)
    assert ended.code == 0, ended.said[-3000:]
    assert landed == [place for place, _ in failures(base, night)]
    whole(base, drivers, shop, night)


def whole(base: Base, drivers: WarmDrivers, shop: Path, night: int = 2) -> None:
    """The next run ends the night as if nothing had been."""
    ended = drivers.run("run", "--config", shop / "nightrec.toml", "--date", base.nights[night - 1])
    assert ended.code == 0, ended.said[-3000:]
    assert look(str(shop / "warehouse/published_topk")).digest == base.lawful[night]
    assert not checker.differing(str(shop / "warehouse"), base.facts[night - 1])
    assert not checker.doubled(str(shop / "warehouse")) and not checker.unbalanced(str(shop / "warehouse"))
    assert not checker.temporary(shop)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own; where nobody may mount one, the test is skipped."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(folder)]
    made = subprocess.run(words, capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def sized(disk: Path, room: int) -> None:
    """Leave so many bytes free."""
    used = shutil.disk_usage(disk).used
    subprocess.run(["mount", "-o", f"remount,size={used + room}", str(disk)], check=True)


@pytest.mark.timeout(900)
def test_a_file_system_that_is_really_full(base: Base, drivers: WarmDrivers, disk: Path) -> None:
    """As much room is left each time as lets the night come a little further."""
    shop = base.copy(1, disk / "shop")
    before = look(str(shop / "warehouse/published_topk"))
    for room in (4 << 10, 60 << 10, 180 << 10):
        sized(disk, room)
        ended = drivers.run("run", "--config", shop / "nightrec.toml", "--date", base.nights[1])
        assert not stopped_well(ended, "No space left on device"), f"{room}: {ended.code} {ended.said[-3000:]}"
        assert look(str(shop / "warehouse/published_topk")).digest == before.digest
    sized(disk, 64 << 20)
    whole(base, drivers, shop)


@pytest.mark.timeout(900)
def test_files_that_may_not_grow(base: Base, drivers: WarmDrivers, tmp_path: Path) -> None:
    """A limit on the size of the files of the driver, in which deltalake writes: the kernel refuses in mid-file."""
    shop = base.copy(1, tmp_path / "shop")
    code = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))"
    ended = drivers.run("run", "--config", shop / "nightrec.toml", "--date", base.nights[1], code=code)
    assert not stopped_well(ended, "File too large"), ended.said[-3000:]
    assert look(str(shop / "warehouse/published_topk")).digest == base.lawful[1]
    whole(base, drivers, shop)
