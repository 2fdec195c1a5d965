"""Whether models that were trained anew may serve: the rule, and the sentences that say what came of it.

Factors and ranker are judged together, as a night uses them together. A challenger is judged once: refused, it is for
good. Nothing here reads or writes a table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from nightrec.config import Gate
from nightrec.models import Pair

if TYPE_CHECKING:
    # It compiles itself, and most nights judge nobody.
    from nightrec.metrics.bootstrap import Interval

Row = dict[str, Any]


@dataclass(frozen=True)
class Duel:
    """Mean NDCG at `k` of both pairs' lists for the same users, and of challenger less champion."""

    k: int
    champion: Interval
    challenger: Interval
    difference: Interval


def challenger(
    rows: Sequence[Row], champion: Pair, als: Mapping[str, date], rankers: Mapping[str, date]
) -> Pair | None:  # fmt: skip
    """The newest models of each kind (each oldest first, with its date), if they are others than the champion's and
    were neither refused nor barred in an earlier row."""
    barred = {model for row in rows for model in row["barred"] or ()}
    newest = [next((model for model in reversed([*models]) if model not in barred), None) for models in (als, rankers)]
    pair = newest[0] or champion[0], newest[1] or champion[1]
    refused = {
        (row["challenger_als_model"], row["challenger_ranker_model"]) for row in rows if row["verdict"] == "refused"
    }
    return None if pair == champion or pair in refused else pair


def kept(rows: Sequence[Row], champion: Pair) -> Row:
    """A night without a challenger; where the last was refused, and nothing was judged since, it says that and why."""
    last = next((row for row in reversed(rows) if row["verdict"] not in ("kept", "waiting")), None)
    if last is None or last["verdict"] != "refused" or (last["als_model"], last["ranker_model"]) != champion:
        return _row(champion, "kept", f"{_named(champion)} go on serving: nothing newer may challenge them.")
    pair = last["challenger_als_model"], last["challenger_ranker_model"]
    return _row(champion, "kept", f"As of {last['run_date']}: {last['reason']}", pair)


def unjudged(serving: Pair, why: str) -> Row:
    """Models that serve without a judgement."""
    return _row(serving, "unjudged", f"{_named(serving)} serve unjudged: {why}.")


def named(champion: Pair) -> Row:
    """A night for which somebody named models: nothing is judged in it."""
    return _row(champion, "kept", f"{_named(champion)} stay champion: models were named for this night.")


def waiting(champion: Pair, pair: Pair, users: int, settings: Gate, waited: int) -> Row:
    """Too few users have come back to judge the challenger by."""
    return _row(
        champion, "waiting",
        f"{_named(champion)} go on serving: {users} users came back in the {waited} days since the challenger "
        f"{_both(pair)} was trained, of the {settings.min_users} by whom it may be judged; after "
        f"{settings.max_wait_days} days as many as there are will do.",
        pair,
    ) | {"user_count": users}  # fmt: skip


def cannot(champion: Pair, pair: Pair, why: str) -> Row:
    """A challenger that cannot make lists at all."""
    return _row(champion, "refused", f"The challenger {_both(pair)} is refused, and {_named(champion)} go on serving: "
                f"{why}.", pair)  # fmt: skip


def judged(champion: Pair, pair: Pair, duel: Duel | None, settings: Gate) -> Row:
    """The verdict: refused where the challenger's mean NDCG is lower by more than the margin; without anybody to judge
    it by, nothing speaks against it."""
    if duel is None:
        nobody = f"nobody with a list came back within {settings.max_wait_days} days, so nothing speaks against them"
        return _row(pair, "promoted", f"{_named(pair)} serve from now on: {nobody}.", pair)
    found, least = duel.difference, -settings.margin * duel.champion.mean
    is_worse = found.mean < least
    figures = (
        f"for {found.users:,} users who came back its lists have NDCG@{duel.k} {duel.challenger.mean:.4f}, those of "
        f"{_both(champion)} {duel.champion.mean:.4f}: {found.mean:+.4f}, in 95 of 100 resamples {found.low:+.4f} to "
        f"{found.high:+.4f}, where {least:+.4f} is allowed"
    )
    words = "refused, and the champion goes on serving" if is_worse else "champion from now on"
    row = _row(
        champion if is_worse else pair, "refused" if is_worse else "promoted",
        f"The challenger {_both(pair)} is {words}: {figures}.", pair,
    )  # fmt: skip
    return row | {
        "champion_ndcg": duel.champion.mean, "challenger_ndcg": duel.challenger.mean, "difference": found.mean,
        "low": found.low, "high": found.high, "user_count": found.users,
    }  # fmt: skip


def _row(serving: Pair, verdict: str, reason: str, pair: Pair | None = None) -> Row:
    """A row of tables.CHAMPIONS, run_date apart."""
    return {
        "als_model": serving[0], "ranker_model": serving[1], "verdict": verdict, "reason": reason,
        "challenger_als_model": pair[0] if pair else None, "challenger_ranker_model": pair[1] if pair else None,
        "barred": [],
    }  # fmt: skip


def _both(pair: Pair) -> str:
    return " with ".join(pair)


def _named(pair: Pair) -> str:
    return f"Item factors {pair[0]} and ranker {pair[1]}"
