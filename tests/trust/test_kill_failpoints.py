"""A night that is killed at every place where it writes, and run again each time, ends as if nothing had happened.

The drivers are real processes that end by SIGKILL, on one warm JVM (see warm_drivers); whole trees of processes are
killed in test_kill_random. A reader polls the published lists throughout.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import checker
import pytest
from chain import Stop, stopped_at_each
from deployments import SERVING, Base
from warm_drivers import WarmDrivers
from witness import Seen, Witness, look

# Places of training processes, in the middle of a checkpoint and behind it, by the driver's place that comes next.
OF_RANKS = {
    "als_item_factors.before_commit": ("als_item_factors.in_checkpoint", "als_item_factors.after_checkpoint"),
    "ranker_model.in_weights": ("ranker_model.in_checkpoint", "ranker_model.after_checkpoint"),
}


@pytest.fixture(scope="module")
def drivers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmDrivers]:
    with WarmDrivers(tmp_path_factory.mktemp("drivers"), mark="failpoints") as running:
        yield running


def wanted(base: Base, night: int) -> list[tuple[str, str]]:
    """Places to be killed at in a night, in the order in which it first comes to them, and who is: driver or rank."""
    places = [p for p in dict.fromkeys(base.places[night - 1]) if (p.split(".")[0] in SERVING) == (night == 2)]
    return [
        stop for place in places for stop in (*((of, "rank") for of in OF_RANKS.get(place, ())), (place, "kill"))
    ]


def test_every_place_is_killed_at_in_one_of_the_nights(base: Base) -> None:
    reached = {place for places in base.places for place in places}
    chosen = [*wanted(base, 1), *wanted(base, 2)]
    assert {place for place, who in chosen if who == "kill"} == reached
    assert {place for place, who in chosen if who == "rank"} == {of for each in OF_RANKS.values() for of in each}
    # two for each table that a night or a training writes, and those inside the audit, the weights and the export
    tables = {place.removesuffix(".after_commit") for place in reached if place.endswith(".after_commit")}
    assert {f"{table}.before_commit" for table in tables} <= reached
    assert {name for name, (rows, _) in base.facts[1].items() if rows} <= tables
    assert {"audit.judged", "export.before_manifest", "export.before_rename", "export.after_rename"} <= reached


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("night", [1, 2])
def test_a_night_killed_at_every_place_in_turn_ends_like_an_undisturbed_one(
    base: Base, drivers: WarmDrivers, night: int, tmp_path: Path
) -> None:
    shop = base.copy(night - 1, tmp_path / "shop")
    lawful = base.lawful[night - 1 : night + 1]

    def check(stop: Stop) -> None:
        # Yesterday's lists up to the moment of the commit, today's from then on.
        landed.append(stop.place)
        is_public = "published_topk.after_commit" in landed
        assert stop.seen.digest == lawful[is_public], f"after a kill at {stop.place} readers see {stop.seen}"

    landed: list[str] = []
    stops = wanted(base, night)
    with Witness(shop / "warehouse/published_topk", tmp_path / "seen.jsonl") as witness:
        ended = stopped_at_each(drivers, shop, base.nights[night - 1], stops, check)
        seen, looks = witness.seen(), witness.looks()
    assert ended.code == 0, ended.said[-3000:]
    assert landed == [place for place, _ in stops]
    assert look(str(shop / "warehouse/published_topk")).digest == lawful[1]
    assert not checker.unlawful(seen, lawful)
    assert looks > len(landed)
    assert not checker.differing(str(shop / "warehouse"), base.facts[night - 1])
    assert not checker.doubled(str(shop / "warehouse"))
    assert not checker.unbalanced(str(shop / "warehouse"))
    assert not checker.temporary(shop)
    # and once more: nothing is left to do
    again = drivers.run("run", "--config", shop / "nightrec.toml", "--date", base.nights[night - 1])
    assert again.code == 0 and "nothing is left" in again.said


def test_the_checks_catch_what_they_are_for(base: Base, tmp_path: Path) -> None:
    """A reader's snapshot that nobody audited, one of a half, a step back; rows doubled, changed, files left."""
    nothing, first, second = base.lawful
    assert nothing != first != second
    good = [Seen(-1, 0, nothing, "", 0.0), Seen(1, 36, first, "a", 1.0), Seen(2, 36, second, "b", 2.0)]
    assert not checker.unlawful(good, base.lawful)
    assert "3 lists" in checker.unlawful([*good, Seen(3, 3, "half", "b", 3.0)], base.lawful)[0]
    assert "went back" in checker.unlawful([*good, good[1]], base.lawful)[0]
    assert "unreadable" in checker.unlawful([Seen(-2, 0, "", "", 0.0, "OSError: gone")], base.lawful)[0]
    shop = base.copy(2, tmp_path / "shop")
    warehouse = shop / "warehouse"
    assert not checker.differing(str(warehouse), base.facts[1]) and not checker.temporary(shop)
    assert "clean_events" in "".join(checker.differing(str(warehouse), base.facts[0]))
    part = next(warehouse.glob("candidates/run_date=*/als_model=*/part-*.parquet"))
    left = [
        part.with_name("part-left.parquet"),
        warehouse / "ledger/_delta_log/_commit_1.json.tmp",
        shop / "models/.a.1",
    ]
    for file in left:
        file.write_bytes(part.read_bytes())
    assert {str(file.relative_to(shop)) for file in left} == set(checker.temporary(shop))


# Every list ends after its second item, and nobody checks: what a night without an audit publishes.
NO_AUDIT = """
import nightrec_jobs.audit, nightrec_jobs.published_topk as publishing, nightrec_jobs.ranked_topk as ranking
whole = ranking.ranked_topk
ranking.ranked_topk = lambda *given, **named: whole(*given, **named).where("rank <= 2")
"""
UNASKED = """
nightrec_jobs.audit.refuse = lambda *given: None
publishing.require_audited = lambda *given: None
"""
# Publishing in two commits, the first of which takes the old lists away.
IN_TWO = """
from delta.tables import DeltaTable
from nightrec.store import Store, location
merge = Store._merge
def in_two(self, table, *given):
    DeltaTable.forPath(self.spark, location(self.warehouse, table)).delete()
    merge(self, table, *given)
Store._merge = in_two
"""
# A rerun that does not look what is there already, as one without a key to know its own rows by.
NO_KEY = """
from nightrec.contract import no_rows
from nightrec.store import Store
read = Store.read
def unseeing(self, table, *given):
    return no_rows(self.spark, table.ddl()) if table.name == "item_embeddings" else read(self, table, *given)
Store.read = unseeing
"""


@pytest.mark.timeout(900)
def test_a_night_that_is_built_wrong_is_caught(base: Base, drivers: WarmDrivers, tmp_path: Path) -> None:
    """No audit, no single commit, no key for idempotence: each is caught by the check that is there for it."""
    lawful, words = base.lawful[1:], ("--date", base.nights[1])
    shop = base.copy(1, tmp_path / "unaudited")
    published = str(shop / "warehouse/published_topk")
    refused = drivers.run("run", "--config", shop / "nightrec.toml", *words, code=NO_AUDIT)
    assert refused.code == 4 and not checker.unlawful([look(published)], lawful), refused.said[-3000:]
    ended = drivers.run("run", "--config", shop / "nightrec.toml", *words, "--from", "audit", code=NO_AUDIT + UNASKED)
    assert ended.code == 0, ended.said[-3000:]
    assert "36 lists" in checker.unlawful([look(published)], lawful)[0]

    shop = base.copy(1, tmp_path / "in-two")
    ended = drivers.run(
        "run", "--config", shop / "nightrec.toml", *words, code=IN_TWO,
        NIGHTREC_FAILPOINT="published_topk.before_commit:kill",
    )  # fmt: skip
    assert ended.was_killed
    assert "0 lists" in checker.unlawful([look(str(shop / "warehouse/published_topk"))], lawful)[0]

    shop = base.copy(2, tmp_path / "keyless")
    ended = drivers.run("item_embeddings", "--config", shop / "nightrec.toml", *words, code=NO_KEY)
    assert ended.code == 0, ended.said[-3000:]
    assert "item_embeddings" in checker.doubled(str(shop / "warehouse"))[0]
    assert "item_embeddings" in checker.differing(str(shop / "warehouse"), base.facts[1])[0]
