"""Pseudonyms: known hashes, keys that are refused, lines whose ids are hidden, and cleaning with and without them."""

from __future__ import annotations

import datetime as dt
import gzip
import hashlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nightrec_jobs import clean_events
from pyspark.sql import SparkSession

from nightrec import doctor, raw
from nightrec.config import Config, Events, Privacy
from nightrec.errors import Fenced, UsageError
from nightrec.night import Night
from nightrec.privacy import pseudonyms, rekey
from nightrec.privacy.person import mentions, replaced
from nightrec.privacy.pseudonyms import Pseudonyms
from nightrec.store import Store, arrow
from nightrec.tables import CLEAN_EVENTS, LEDGER, REJECTED_EVENTS

SECRET = "0123456789abcdef" * 4
DAY = dt.date(2026, 3, 10)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "privacy.key"
    file.write_text(SECRET + "\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def ids(key: Path) -> Pseudonyms:
    found = pseudonyms.of(Privacy(pseudonyms=True, key_file=str(key)))
    assert found
    return found


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(pseudonyms.VARIABLE, raising=False)
    pseudonyms._secret.cache_clear()
    yield
    pseudonyms._secret.cache_clear()


def test_a_pseudonym_is_what_any_other_system_computes(ids: Pseudonyms) -> None:
    for user in ("u1", "Ünï-世界", "a" * 1000, "\x1b[31m"):
        expected = hmac.new(SECRET.encode(), user.encode(), hashlib.sha256).hexdigest()[:32]
        assert ids.of(user) == f"p{ids.key_id}-{expected}"
    assert ids.of(ids.of("u1")) == ids.of("u1") != "u1"
    assert ids.is_one(ids.of("u1")) and not ids.is_one("u1")
    assert ids.of("p00000000-" + "0" * 32) != "p00000000-" + "0" * 32, "of another key: an id like any"
    assert ids.of_event("u1") != ids.of("u1").replace("p", "e", 1)


def test_off_by_default_and_one_line_switches_it_on(key: Path, tmp_path: Path) -> None:
    from nightrec.config import load

    toml = tmp_path / "nightrec.toml"
    toml.write_text("")
    assert pseudonyms.of(load(toml).privacy) is None
    assert pseudonyms.named(load(toml).privacy, "u1") == "u1"
    toml.write_text("[privacy]\npseudonyms = true\n")
    assert load(toml).privacy.key_file == str(key)
    assert pseudonyms.named(load(toml).privacy, "u1").startswith("p")


def test_keys_that_are_refused_say_how_to_mend_them(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Privacy(pseudonyms=True, key_file=str(key))
    for mode in (0o640, 0o604, 0o644, 0o660):
        key.chmod(mode)
        with pytest.raises(UsageError, match=f"mode {mode:04o}.*chmod 600"):
            pseudonyms.of(asked)
    key.chmod(0o600)
    key.write_text("short")
    with pytest.raises(UsageError, match=r"has 5 characters, 32 are needed.*token_hex"):
        pseudonyms.of(asked)
    key.unlink()
    with pytest.raises(UsageError, match=r"privacy.key: No such file.*NIGHTREC_PRIVACY_KEY is not set.*token_hex"):
        pseudonyms.of(asked)
    monkeypatch.setenv(pseudonyms.VARIABLE, SECRET)
    found = pseudonyms.of(asked)
    assert found and found.of("u1").endswith(hmac.new(SECRET.encode(), b"u1", "sha256").hexdigest()[:32])
    monkeypatch.setenv(pseudonyms.VARIABLE, SECRET[::-1])
    pseudonyms._secret.cache_clear()
    with pytest.raises(UsageError, match="every worker needs the same") as told:
        found.of("u2")
    assert SECRET not in str(told.value) and SECRET[::-1] not in str(told.value)


def test_doctor_says_what_is_wrong_with_the_key(key: Path) -> None:
    asked = Privacy(pseudonyms=True, key_file=str(key))
    assert doctor.privacy(Privacy()).state == "ok"
    assert doctor.privacy(asked).found.startswith("pseudonyms under the key ")
    key.chmod(0o644)
    assert (doctor.privacy(asked).state, doctor.privacy(asked).mend) == ("fail", f"chmod 600 {key}")
    key.chmod(0o600)
    key.write_text("short")
    assert doctor.privacy(asked).mend.startswith("make one with (umask 077 && python3 -c ")
    key.unlink()
    assert doctor.privacy(asked).mend.startswith("make one with (umask 077 && python3 -c ")


def test_an_id_counts_as_a_word_only() -> None:
    assert mentions("by user123, yes", ["user123"])
    assert not mentions("user1234 xuser123 user123é", ["user123"])
    assert not mentions("5 stars", ["5"])
    assert replaced("a.b@c.d; a.b@c.de", ["a.b@c.d"], "-") == "-; a.b@c.de"


USERS = ("canary-7f", "canäry 世", 'quo"te\\E', "12345678901234567890", "a.b+c@d.ef", "$1\\1(x")


@pytest.mark.parametrize("user", USERS)
def test_a_rejected_line_keeps_everything_but_the_id(ids: Pseudonyms, user: str) -> None:
    fields: dict[str, Any] = {
        "user_id": user, "item_id": "i", "event_type": "?", "value": 5, "text": f"I am {user}.",
        "event_id": f"{user}-1", "context": {"account": user, user: "x", "more": [{"deep": user}]}, "unknown": user,
    }  # fmt: skip
    pseudonym = ids.of(user)
    for line in (json.dumps(fields), json.dumps(fields, ensure_ascii=False)):
        hidden = ids.line(line)
        found = json.loads(hidden)
        assert found == {
            **fields, "user_id": pseudonym, "text": f"I am {pseudonym}.", "event_id": ids.of_event(f"{user}-1"),
            "context": {"account": pseudonym, pseudonym: "x", "more": [{"deep": pseudonym}]}, "unknown": pseudonym,
        }  # fmt: skip
        assert user not in hidden and json.dumps(user)[1:-1] not in hidden
        assert ids.line(hidden) == hidden


@pytest.mark.parametrize(
    "line",
    ['{"user_id": "canary', "canary-7f", '["canary-7f"]', '{"userId": "canary-7f"}', '{"user_id": {"id": "canary-7f"}}',
     '{"user_id": "", "uid": "canary-7f"}', '{"user_id": null}', "[" * 100_000, '{"user_id": "\\ud800canary"}',
     '{"user_id": "canary-7f", "item_id": "canary-7f"}'],
)  # fmt: skip
def test_a_line_without_a_readable_id_keeps_length_and_fingerprint_only(ids: Pseudonyms, line: str) -> None:
    assert ids.line(line) == f"(not kept: {len(line.encode())} bytes, fingerprint {ids.fingerprint(line)})"


@pytest.mark.parametrize(
    ("user", "event_id"),
    [("canary123", "evcanary123x9"), ("12345", "12345-1767225600"), ("canary-7f", "e1"), ("canary-7f", 12345678901),
     ("canary-7f", 1.50), (77, "77")],
)  # fmt: skip
def test_a_rejected_line_has_the_event_id_of_clean_events(ids: Pseudonyms, user: Any, event_id: Any) -> None:
    line = event(user_id=user, event_id=event_id, value="?")
    found = json.loads(ids.line(line))
    assert found == {**json.loads(line), "user_id": ids.of(str(user)), "event_id": ids.of_event(str(event_id))}
    assert ids.line(ids.line(line)) == ids.line(line)
    # Lists went out under the pseudonym, and what is logged about them comes back so.
    assert json.loads(ids.line(event(user_id=ids.of(str(user)), event_id=event_id, value="?"))) == found


def test_event_ids_that_hold_nothing_stay_and_nested_ones_are_not_kept(ids: Pseudonyms) -> None:
    for event_id in (None, "", " ", True):
        line = event(user_id="canary-7f", event_id=event_id)
        assert json.loads(ids.line(line)) == {**json.loads(line), "user_id": ids.of("canary-7f")}
    for user in ("canary-7f", ids.of("canary-7f")):
        assert ids.line(event(user_id=user, event_id={"of": "xcanary-7f"})).startswith("(not kept:")


def test_names_that_stand_there_twice_keep_no_id(ids: Pseudonyms) -> None:
    """Cleaning takes the last; the first is a user's id too."""
    own, other = ids.of("canary-7f"), ids.of("canary-8g")
    said = '"text": "canary-7f and canary-8g", "event_id": "a", "event_id": "b"}'
    both = f'{{"user_id": "canary-7f", "user_id": "canary-8g", {said}'
    hidden = {"user_id": other, "text": f"{own} and {other}", "event_id": ids.of_event("b")}
    assert json.loads(ids.line(both)) == hidden
    assert json.loads(ids.line(both.replace('"canary-8g", ', f'"{other}", '))) == {
        **hidden, "text": f"{own} and canary-8g"
    }  # fmt: skip
    short = ids.line(f'{{"user_id": 5, "user_id": "{other}", "item_id": "i"}}')
    assert json.loads(short) == {"user_id": other, "item_id": "i"} and '"user_id": 5' not in short
    assert ids.line(f'{{"user_id": null, "user_id": "{other}"}}').startswith("(not kept:")


def test_a_short_id_leaves_numbers_alone(ids: Pseudonyms) -> None:
    line = '{"user_id": 4, "item_id": "4", "event_type": "x", "value": 4, "text": "4 of 4 stars", "user_id_2": "44"}'
    assert json.loads(ids.line(line)) == {**json.loads(line), "user_id": ids.of("4")}


def event(**fields: Any) -> str:
    return json.dumps({"user_id": "u", "item_id": "i", "event_type": "view", "event_ts": f"{DAY}T10:00:00Z"} | fields)


ONE: dict[str, Any] = {
    "user_id": "canary-one", "event_id": "canary-one/1", "text": "canary-one says",
    "context": {"who": "canary-one", "d": "x"},
}  # fmt: skip
LINES = [
    event(**ONE),
    event(**ONE, sent_ts=f"{DAY}T11:00:00Z"),  # a second delivery
    event(user_id="canary-two", item_id="j"),
    event(user_id=12345678, item_id="j"),
    event(user_id="canary-bad", value="?", note="canary-bad"),
    *(event(user_id="canary-robot", item_id=f"i{n}") for n in range(4)),
    '{"user_id": "canary-broken',
    event(user_id=" ", uid="canary-blank"),
    event(user_id="canary-no-item", item_id=None),
    "canary-plain",
]


def write(root: str, day: dt.date, lines: list[str]) -> None:
    folder = Path(root) / "events" / f"ingest_date={day}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "part-0.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))


def fates(warehouse: str) -> list[tuple[str, str, int]]:
    rows = arrow(warehouse, LEDGER, {"stage": "clean_events"}).to_pylist()
    told = [(r["fate"], r["reason"], r["row_count"]) for r in rows]
    return sorted(row for row in told if row[0] not in ("written", "input", "key"))


def test_cleaning_hides_ids_and_decides_as_without(
    spark: SparkSession, config: Config, store: Store, key: Path, ids: Pseudonyms, tmp_path: Path
) -> None:
    config = config.model_copy(update={"events": Events(robot_events_per_hour=3)})
    write(config.paths.raw, DAY, LINES)
    users = Path(config.paths.raw) / f"users/ingest_date={DAY}"
    users.mkdir(parents=True)
    (users / "u.jsonl").write_text('{"user_id": "canary-one", "attributes": {"mail": "canary-one@x.org", "c": "d"}}\n')
    open_ = f"{tmp_path}/open"
    plain = Store(spark, open_, run_id="plain")
    Night(spark, config, DAY, store=plain).run("clean_events", clean_events.run)
    plain.close()

    hidden = config.model_copy(update={"privacy": Privacy(pseudonyms=True, key_file=str(key))})
    Night(spark, hidden, DAY, store=store).run("clean_events", clean_events.run)
    assert fates(config.paths.warehouse) == fates(open_)
    columns = ["user_id", "item_id", "event_type", "event_ts"]
    plainly = arrow(open_, CLEAN_EVENTS, columns=columns).to_pylist()
    before = [{**row, "user_id": ids.of(row["user_id"])} for row in plainly]
    after = arrow(config.paths.warehouse, CLEAN_EVENTS, columns=columns).to_pylist()
    assert sorted(map(str, after)) == sorted(map(str, before)) and len(after) == 3
    one = arrow(config.paths.warehouse, CLEAN_EVENTS, {"user_id": ids.of("canary-one")}).to_pylist()[0]
    assert one["text"] == f"{ids.of('canary-one')} says"
    assert dict(one["context"]) == {"who": ids.of("canary-one"), "d": "x"}
    guessed = hashlib.sha256(b"id canary-one/1").hexdigest()[:32]
    assert guessed in arrow(open_, CLEAN_EVENTS)["event_key"].to_pylist()
    assert one["event_key"] == hashlib.sha256(f"id {ids.of_event('canary-one/1')}".encode()).hexdigest()[:32]

    kept = arrow(config.paths.warehouse, REJECTED_EVENTS).to_pylist()
    told = {row["reason"]: row["raw"] for row in kept}
    assert set(told) == {"bad_value", "robot", "broken_line", "missing_user_id", "missing_item_id"}
    assert json.loads(told["bad_value"])["user_id"] == ids.of("canary-bad") == json.loads(told["bad_value"])["note"]
    assert told["broken_line"].startswith("(not kept:") and told["missing_user_id"].startswith("(not kept:")
    assert "canary" not in str(kept)
    for table in (CLEAN_EVENTS, REJECTED_EVENTS, LEDGER):
        assert "canary" not in str(arrow(config.paths.warehouse, table).to_pylist())
        assert "canary" in str(arrow(open_, table).to_pylist()) or table is LEDGER

    snapshot = raw.users(spark, config.paths.raw, DAY, ids)
    assert snapshot
    row = snapshot.rows.first()
    assert row
    assert (row["user_id"], row["attributes"]) == (
        ids.of("canary-one"), {"mail": f"{ids.of('canary-one')}@x.org", "c": "d"}
    )  # fmt: skip
    plan = raw.events(spark, config.paths.raw, [DAY], ids)._jdf.queryExecution().toString()
    assert SECRET not in plan and "canary" not in plan

    # Another key, or none: refused before anything is read.
    for privacy in (Privacy(), Privacy(pseudonyms=True, key_file=str(tmp_path / "other.key"))):
        (tmp_path / "other.key").write_text(SECRET[::-1])
        (tmp_path / "other.key").chmod(0o600)
        other = config.model_copy(update={"privacy": privacy})
        with pytest.raises(UsageError, match=rf"1 ingest dates, {DAY} first, were cleaned under the key {ids.key_id}"):
            Night(spark, other, DAY, store=store).run("clean_events", clean_events.run)

    # Re-keyed, the next night cleans everything under the new key, and nothing of the old one is left.
    old, before = ids.key_id, fates(config.paths.warehouse)
    new = config.model_copy(update={"privacy": Privacy(pseudonyms=True, key_file=str(tmp_path / "other.key"))})
    with pytest.raises(Fenced):
        rekey.rekey(new)
    store.close()
    part = Path(config.paths.raw) / f"events/ingest_date={DAY}/part-0.jsonl.gz"
    part.rename(tmp_path / "aside")
    with pytest.raises(UsageError, match=rf"raw files of 1 cleaned dates are gone, {DAY} first"):
        rekey.rekey(new)
    (tmp_path / "aside").rename(part)
    assert "the next night cleans every date anew" in rekey.rekey(new)
    assert old.encode() not in b"".join(f.read_bytes() for f in Path(config.paths.warehouse).rglob("*") if f.is_file())
    assert arrow(config.paths.warehouse, CLEAN_EVENTS).num_rows == 0
    with Night(spark, new, DAY) as night:
        night.run("clean_events", clean_events.run)
    renewed = pseudonyms.of(new.privacy)
    assert renewed and renewed.key_id != old and fates(config.paths.warehouse) == before
    found = arrow(config.paths.warehouse, CLEAN_EVENTS)["user_id"].to_pylist()
    assert sorted(found) == sorted(map(renewed.of, ("canary-one", "canary-two", "12345678")))
    assert "every date is cleaned under this key" in rekey.rekey(new)


def test_what_was_rejected_can_be_cleaned_again_under_its_pseudonym(ids: Pseudonyms, spark: SparkSession) -> None:
    """A repaired line of rejected_events gives the user and the event key of the line as it came."""
    line = event(user_id="canary-one", event_id="canary-one/1", value="?")
    frame = spark.createDataFrame([(ids.line(line),)], "line string").selectExpr(
        "from_json(line, 'user_id string, event_id string, text string, context map<string,string>') AS e"
    )
    found = ids.in_events(frame.select("e.*")).first()
    assert found and (found["user_id"], found["event_id"]) == (ids.of("canary-one"), ids.of_event("canary-one/1"))
