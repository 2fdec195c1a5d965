"""A disk that is full ends the night with a sentence; yesterday's lists stay, and the next run ends it as ever."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import checker
import pytest
from deployments import Base
from warm_drivers import Ended, WarmDrivers
from witness import look

# Ten places of the second night, by Spark's writers and by deltalake's.
POINTS = (
    "clean_events.before_commit", "ledger.before_commit", "manifests.before_commit", "item_profiles.before_commit",
    "user_embeddings.before_commit", "candidates.before_commit", "ranked_topk.before_commit",
    "audit_results.before_commit", "published_topk.before_commit", "export.before_rename",
)  # fmt: skip


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmDrivers]:
    with WarmDrivers(tmp_path_factory.mktemp("drivers"), mark="disk") as running:
        yield running


def stopped_well(ended: Ended, words: str) -> list[str]:
    """What is wrong with how a night ended whose storage failed."""
    last = [line for line in ended.said.splitlines() if line.strip()]
    sentence = " ".join(ended.said.split())
    found = [] if ended.code == 1 else [f"it ended with {ended.code}"]
    found += [] if words in sentence and "then run this night again" in sentence else [f"it said {last[-6:]}"]
    return found + (["it showed a traceback"] if "Traceback" in ended.said else [])


@pytest.mark.timeout(900)
def test_ten_times_no_room_and_then_enough(base: Base, drivers: WarmDrivers, tmp_path: Path) -> None:
    shop = base.copy(1, tmp_path / "shop")
    words = ("run", "--config", shop / "nightrec.toml", "--date", base.nights[1])
    for point in sorted(POINTS, key=base.places[1].index):
        ended = drivers.run(*words, NIGHTREC_FAILPOINT=f"{point}:full")
        wrong = stopped_well(ended, "No space left on device")
        assert not wrong, f"{point}: {wrong} {ended.said[-1500:]}"
        # The export comes after publishing: there today's lists are served.
        served = base.lawful[2 if point.startswith("export") else 1]
        assert look(str(shop / "warehouse/published_topk")).digest == served, point
    whole(base, drivers, shop)


def whole(base: Base, drivers: WarmDrivers, shop: Path) -> None:
    """The next run ends the night as if nothing had been."""
    ended = drivers.run("run", "--config", shop / "nightrec.toml", "--date", base.nights[1])
    assert ended.code == 0, ended.said[-3000:]
    assert look(str(shop / "warehouse/published_topk")).digest == base.lawful[2]
    assert not checker.differing(str(shop / "warehouse"), base.facts[1])
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
