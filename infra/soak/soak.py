"""Kill nights at random for as long as one likes, and write down what came of it.

    make soak KILLS=40 SEED=3            20 minutes on 2 cores; 200 kills and SEED=1 by default

A round takes one deployment of the tests from its raw files through two nights and kills twelve runs on the way: the
driver, its JVM, a Python worker or their parent, a training process; the second round and every fifth after it are on a
cluster of separate processes, where executors are hit too. After each night every table has to be that of an
undisturbed run. Then spark-submit is ended at 20 points by SIGTERM and at 20 by SIGKILL. A reader looks all the while.

The result is infra/soak/results/kills-SEED.json: every kill with its time, step and outcome, and every complaint. The
exit code is 1 where there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
sys.path[:0] = [str(CHECKOUT / "tests/trust"), str(CHECKOUT / "tests"), str(CHECKOUT / "infra/benchmarks")]

import measure  # noqa: E402
from deployments import Base, built  # noqa: E402
from rounds import Round, played  # noqa: E402
from spark_commands import standalone_cluster  # noqa: E402
from submitted import POINTS, Submitted, stopped  # noqa: E402

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


def rounds(base: Base, work: Path, kills: int, seed: int) -> list[Round]:
    """Rounds until so many kills were tried; each has a seed of its own, so that one can be played alone."""
    found: list[Round] = []
    while (left := kills - sum(len(one.kills) for one in found)) > 0:
        number = len(found)
        draw, on_cluster = random.Random(f"{seed}/{number}"), number % 5 == 1
        folder = work / f"round-{number}"
        folder.mkdir()
        with contextlib.ExitStack() as running:
            master = running.enter_context(standalone_cluster(folder)).master if on_cluster else ""
            found.append(played(base, folder, draw, plan(draw, left, on_cluster), master))
        tell(number, found[-1])
        if not found[-1].complaints:
            shutil.rmtree(folder)
    return found


def tell(number: int, found: Round) -> None:
    """One line per round, and its complaints."""
    hits = Counter(one.target for one in found.kills if one.pid)
    print(f"round {number}: {dict(hits)}, {found.looks} looks, {len(found.complaints)} complaints", flush=True)
    for complaint in found.complaints:
        print(f"  {complaint}", flush=True)


def stops(base: Base, work: Path, times: int, seed: int) -> list[dict[str, Any]]:
    """End spark-submit at so many points by each signal."""
    shop, found = base.copy(2, work / "stops"), []
    for number in range(times):
        for sent in (signal.SIGTERM, signal.SIGKILL):
            draw, point = random.Random(f"{seed}/{sent.name}/{number}"), POINTS[number % len(POINTS)]
            job = Submitted(shop, base.nights[1], f"stop-{sent.name}-{number}", work / f"stop-{sent.name}-{number}")
            found.append(vars(stopped(job, point, sent, draw)))
            print(f"{sent.name} {number} at {point}: {len(found[-1]['alive'])} alive after 10 s", flush=True)
    return found


def main() -> int:
    """Play, write the result, and say whether there is a complaint."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--kills", type=int, default=200)
    words.add_argument("--stops", type=int, default=20, help="points per signal at which spark-submit is ended")
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--work", type=Path, default=CHECKOUT / "var/soak", help="emptied first")
    words.add_argument("--out", type=Path, default=HERE / "results")
    asked = words.parse_args()
    shutil.rmtree(asked.work, ignore_errors=True)
    began, base = time.time(), built(asked.work / "base")
    found = rounds(base, asked.work, asked.kills, asked.seed)
    ended = stops(base, asked.work, asked.stops, asked.seed)
    result = {
        "seed": asked.seed, "machine": measure.machine(),
        "versions": measure.versions("pyspark", "delta-spark", "deltalake", "torch", "horovod"),
        "minutes": round((time.time() - began) / 60, 1), **summary(found, ended),
        "complaints": [complaint for one in found for complaint in one.complaints]
        + [f"{one['signal']} at {one['point']}: {line}" for one in ended for line in one["alive"]],
        "kills": [one.as_dict() for each in found for one in each.kills],
        "stops": ended,
    }  # fmt: skip
    asked.out.mkdir(parents=True, exist_ok=True)
    file = asked.out / f"kills-{asked.seed}.json"
    # Command lines name the checkout, which is another on every machine.
    told = json.dumps(result, indent=1, default=str).replace(f"{CHECKOUT}/", "")
    file.write_text(told + "\n", encoding="utf-8")
    print(f"{result['kills_landed']} of {result['kills_tried']} kills landed, {result['looks']} looks by a reader, "
          f"{len(result['complaints'])} complaints, {result['minutes']} minutes: {file}")  # fmt: skip
    return int(bool(result["complaints"]))


def summary(found: list[Round], ended: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures people ask for."""
    kills = [one for each in found for one in each.kills]
    return {
        "kills_tried": len(kills), "kills_landed": sum(bool(one.pid) for one in kills),
        "kills_by_target": dict(Counter(one.target for one in kills if one.pid)),
        "nights": 2 * len(found), "looks": sum(each.looks for each in found),
        "unlawful_snapshots": sum(
            line.startswith(("version", "unreadable")) for each in found for line in each.complaints
        ),
        "stops": len(ended), "stops_with_survivors": sum(bool(one["alive"]) for one in ended),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
