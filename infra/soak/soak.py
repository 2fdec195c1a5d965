"""Kill nights at random for as long as one likes, and write down what came of it.

    make soak KILLS=40 SEED=3            20 minutes on 2 cores; 200 kills and SEED=1 by default

A round takes one deployment of the tests from its raw files through two nights and kills twelve runs on the way: the
driver, its JVM, a Python worker or their parent, a training process; the second round and every fifth after it are on a
cluster of separate processes, where executors are hit too. After each night every table has to be that of an
undisturbed run. Then spark-submit is ended at 20 points by SIGTERM and at 20 by SIGKILL. A reader looks all the while.

Every round is written down when it is over, in infra/soak/results/kills-SEED.json: every kill with its time, step and
outcome, and every complaint. After whatever ended a soak, the same command plays the rounds that are left, unless the
code has changed. The exit code is 1 where there is a complaint.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
sys.path[:0] = [str(CHECKOUT / "tests/trust"), str(CHECKOUT / "tests"), str(CHECKOUT / "infra/benchmarks")]

import measure  # noqa: E402
from deployments import Base, built  # noqa: E402
from processes import clear_sockets  # noqa: E402
from rounds import played  # noqa: E402
from spark_commands import standalone_cluster  # noqa: E402
from submitted import POINTS, Submitted, stopped  # noqa: E402

from nightrec.past.manifest import code  # noqa: E402

# Targets of a night's kills, by how often they are drawn; in the second night nothing is trained.
FIRST = {"driver": 3, "jvm": 3, "worker": 2, "daemon": 1, "rank": 3}
SECOND = {"driver": 3, "jvm": 3, "worker": 3, "daemon": 1}
ON_CLUSTER = {"driver": 2, "jvm": 1, "executor": 4}
PER_ROUND = (7, 5)


def plan(draw: random.Random, kills: int, on_cluster: bool) -> list[list[str]]:
    """The targets of up to `kills` kills in a round's two nights."""
    chances = (ON_CLUSTER, ON_CLUSTER) if on_cluster else (FIRST, SECOND)
    first = min(kills, PER_ROUND[0])
    counts = (first, min(kills - first, PER_ROUND[1]))
    drawn = [
        draw.choices(list(each), weights=list(each.values()), k=count)
        for each, count in zip(chances, counts, strict=True)
    ]
    # Training processes first, while there is something to train.
    return [sorted(targets, key=lambda target: target != "rank") for targets in drawn]


class Result:
    """The result file: rounds and stops by name, each written down when it is over, and what they sum up to.

    A soak goes on from it where the code is the same, on whichever machine.
    """

    def __init__(self, file: Path, told: dict[str, Any]) -> None:
        self.file, self._told, self._lock = file, told, threading.Lock()
        before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        self._parts: dict[str, dict[str, Any]] = before["parts"] if before.get("code") == told["code"] else {}

    def part(self, name: str, play: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A part that is written down, else what is played now, with its minutes."""
        if name not in self._parts:
            began = time.monotonic()
            found = play() | {"minutes": round((time.monotonic() - began) / 60, 1)}
            with self._lock:
                # Command lines name the checkout, which is another on every machine.
                self._parts[name] = json.loads(json.dumps(found, default=str).replace(f"{CHECKOUT}/", ""))
                self._write()
        return self._parts[name]

    def summary(self) -> dict[str, Any]:
        """The figures people ask for."""
        rounds, stops = self._of("round"), self._of("stop")
        kills = [one for each in rounds for one in each["kills"]]
        complaints = [complaint for each in rounds for complaint in each["complaints"]]
        return {
            "minutes": round(sum(one["minutes"] for one in rounds + stops)),
            "kills_tried": len(kills), "kills_landed": sum(bool(one["pid"]) for one in kills),
            "kills_by_target": dict(Counter(one["target"] for one in kills if one["pid"])),
            "nights": 2 * len(rounds), "looks": sum(each["looks"] for each in rounds),
            "unlawful_snapshots": sum(line.startswith(("version", "unreadable")) for line in complaints),
            "stops": len(stops), "stops_with_survivors": sum(bool(one["alive"]) for one in stops),
            "complaints": complaints
            + [f"{one['signal']} at {one['point']}: {line}" for one in stops for line in one["alive"]],
        }  # fmt: skip

    def _of(self, kind: str) -> list[dict[str, Any]]:
        return [self._parts[name] for name in self._names() if name.startswith(kind)]

    def _names(self) -> list[str]:
        return sorted(self._parts, key=lambda name: (name.split()[0], int(name.split()[1]), name))

    def _write(self) -> None:
        whole = self.file.with_suffix(".part")
        parts = {name: self._parts[name] for name in self._names()}
        text = json.dumps(self._told | self.summary() | {"parts": parts}, indent=1)
        whole.write_text(text + "\n", encoding="utf-8")
        whole.rename(self.file)


def rounds(base: Base, work: Path, kills: int, seed: int, result: Result, pool: Executor) -> None:
    """As many rounds as try so many kills; each has a seed of its own, so that one can be played alone."""

    def play(number: int) -> None:
        left = kills - number * sum(PER_ROUND)
        found = result.part(f"round {number}", partial(one_round, base, work, number, left, seed))
        hits, complaints = Counter(one["target"] for one in found["kills"] if one["pid"]), found["complaints"]
        said = [f"round {number}: {dict(hits)}, {found['looks']} looks, {len(complaints)} complaints", *complaints]
        print("\n  ".join(said), flush=True)

    list(pool.map(play, range(math.ceil(kills / sum(PER_ROUND)))))


def one_round(base: Base, work: Path, number: int, left: int, seed: int) -> dict[str, Any]:
    """Play one round; its folder stays where there is a complaint."""
    draw, on_cluster, folder = random.Random(f"{seed}/{number}"), number % 5 == 1, work / f"round-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with contextlib.ExitStack() as running:
        master = running.enter_context(standalone_cluster(folder)).master if on_cluster else ""
        found = played(base, folder, draw, plan(draw, left, on_cluster), master)
    if not found.complaints:
        shutil.rmtree(folder)
    return {"kills": [one.as_dict() for one in found.kills], "looks": found.looks, "complaints": found.complaints}


def stops(base: Base, work: Path, times: int, seed: int, result: Result, pool: Executor) -> None:
    """End spark-submit at so many points by each signal."""

    def play(number: int, sent: signal.Signals) -> None:
        name = f"stop {number} {sent.name}"
        found = result.part(name, partial(one_stop, base, work / name.replace(" ", "-"), number, sent, seed))
        print(f"{sent.name} {number} at {found['point']}: {len(found['alive'])} alive after 10 s", flush=True)

    list(pool.map(play, *zip(*product(range(times), (signal.SIGTERM, signal.SIGKILL)), strict=True)))


def one_stop(base: Base, folder: Path, number: int, sent: signal.Signals, seed: int) -> dict[str, Any]:
    """End one job at the next of the points; its folder stays where something lives on."""
    shutil.rmtree(folder, ignore_errors=True)
    draw, point = random.Random(f"{seed}/{sent.name}/{number}"), POINTS[number % len(POINTS)]
    job = Submitted(base.copy(2, folder), base.nights[1], str(folder), folder / "log")
    found = stopped(job, point, sent, draw)
    if not found.alive:
        shutil.rmtree(folder)
    return vars(found)


def main() -> int:
    """Play, write the result, and say whether there is a complaint."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--kills", type=int, default=200)
    words.add_argument("--stops", type=int, default=20, help="points per signal at which spark-submit is ended")
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--at-once", type=int, default=2, help="rounds side by side: a night often waits")
    words.add_argument("--work", type=Path, default=CHECKOUT / "var/soak")
    words.add_argument("--out", type=Path, default=HERE / "results")
    asked = words.parse_args()
    work = asked.work / f"seed-{asked.seed}-{code()}"
    asked.out.mkdir(parents=True, exist_ok=True)
    packages = ("pyspark", "delta-spark", "deltalake", "torch", "horovod")
    told = {"seed": asked.seed, "code": code(), "machine": measure.machine(), "versions": measure.versions(*packages)}
    result = Result(asked.out / f"kills-{asked.seed}.json", told | {"at_once": asked.at_once})
    base = built(work / "base")
    with ThreadPoolExecutor(asked.at_once) as pool:
        rounds(base, work, asked.kills, asked.seed, result, pool)
        stops(base, work, asked.stops, asked.seed, result, pool)
    clear_sockets()
    found = result.summary()
    print(f"{found['kills_landed']} of {found['kills_tried']} kills landed, {found['looks']} looks by a reader, "
          f"{len(found['complaints'])} complaints, {found['minutes']} minutes: {result.file}")  # fmt: skip
    return int(bool(found["complaints"]))


if __name__ == "__main__":
    sys.exit(main())
