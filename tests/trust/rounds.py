"""One round of random kills: a deployment from its raw files through both nights, its runs killed along the way."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import checker
import processes
from deployments import Base
from killer import Kill, Run, kill
from witness import Seen, Witness, look

# As many places at the end of a night are left to its last run: a kill there would come too late now and then.
LAST_STAGES = 12
# Runs that one kill is tried on: on a busy machine a run may end before it is hit.
ATTEMPTS = 3


@dataclass(frozen=True)
class Round:
    """What one round saw: every kill, every snapshot of the published lists, and everything that was not as it must."""

    kills: tuple[Kill, ...]
    seen: tuple[Seen, ...]
    looks: int
    complaints: tuple[str, ...]


def played(base: Base, folder: Path, draw: random.Random, plan: Sequence[Sequence[str]], master: str = "") -> Round:
    """Play one round. `plan` names the targets of each night's kills; `master` a cluster, the config's else."""
    shop, mark = base.copy(0, folder / "shop"), str(folder)
    complaints: list[str] = []
    kills: list[Kill] = []
    published = shop / "warehouse/published_topk"
    if master:
        toml = shop / "nightrec.toml"
        # Executors are started by the cluster's workers, whose environment knows nothing of this round.
        options = {
            "spark.executor.memory": "1g",
            "spark.executor.cores": "1",
            f"spark.executorEnv.{processes.MARK}": mark,
        }
        lines = "".join(f'"{name}" = "{value}"\n' for name, value in options.items())
        toml.write_text(toml.read_text().replace("local[2]", master) + "[spark.options]\n" + lines)
    with (
        Witness(published, folder / "seen.jsonl") as witness,
        tempfile.TemporaryDirectory(dir="/tmp", prefix="kills-") as temporary,
    ):
        for night, targets in enumerate(plan):
            # Places of a run that nobody disturbs, and how many of them are behind; where the next run begins.
            whole, done, since, is_trained = len(base.places[night]), 0, "", False
            for left, wanted in zip(range(len(targets), 0, -1), targets, strict=True):
                target = "worker" if wanted == "rank" and is_trained else wanted
                number = len(kills)
                for attempt in range(ATTEMPTS):
                    run = Run(shop, base.nights[night], mark, folder / f"run-{number}-{attempt}", since, temporary)
                    found = kill(run, number, target, draw, 2 * max(whole - done - LAST_STAGES, 0) // (left + 1))
                    if found.code:
                        done, since = done + behind(run.places()), ""
                    else:
                        # It ended well, hit or not: the night once more; trained, it passes what a second one does.
                        whole, done, since, is_trained = len(base.places[1]), 0, "clean_events", True
                    if found.pid:
                        break
                kills.append(found)
                complaints += found.complaints
            last = Run(shop, base.nights[night], mark, folder / f"last-{night}", temporary=temporary)
            if code := last.end():
                complaints.append(f"the run after the kills ended with {code}: {last.said()[-1000:]}")
            complaints += [f"after its end: {one}" for one in processes.alive(last.mark)]
            complaints += _of_tables(base, shop, night, str(published))
            complaints += [f"left over: {file}" for file in sorted(Path(temporary).rglob("*"))]
        seen, looks = witness.seen(), witness.looks()
    complaints += checker.unlawful(seen, base.lawful)
    return Round(tuple(kills), tuple(seen), looks, tuple(complaints))


def _of_tables(base: Base, shop: Path, night: int, published: str) -> list[str]:
    warehouse, found = str(shop / "warehouse"), look(published)
    wanted = base.lawful[night + 1]
    wrong = [] if found.digest == wanted else [f"published {found}, undisturbed {wanted}"]
    wrong += checker.differing(warehouse, base.facts[night]) + checker.doubled(warehouse)
    return wrong + checker.unbalanced(warehouse) + [f"left over: {file}" for file in checker.temporary(shop)]


def behind(places: Sequence[str]) -> int:
    """How many places of an undisturbed run are behind: those up to the last stage that committed its manifest."""
    return max((n for n, place in enumerate(places, 1) if place == "manifests.after_commit"), default=0)
