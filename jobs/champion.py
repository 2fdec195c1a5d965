"""champion: which models serve the night; newer ones must not be worse. Grain: run_date.

In most nights nothing was trained since, and nothing is judged. A night that has its row keeps it.

    spark-submit jobs/champion.py --config nightrec.toml --date 2026-03-10
"""

from __future__ import annotations

from datetime import date

from nightrec import gate, models
from nightrec.errors import UsageError
from nightrec.failpoint import reach
from nightrec.features import FEATURES
from nightrec.models import Pair
from nightrec.night import Night, main
from nightrec.tables import CHAMPIONS


def run(night: Night) -> None:
    """Decide who serves, and say so where anything was decided."""
    warehouse = night.store.warehouse
    rows = models.champions(warehouse, night.date)
    if rows and rows[-1]["run_date"] == night.date and models.champion(warehouse, night.date):
        row = rows[-1]
        night.book("unchanged", 1, row["verdict"])
    else:
        before = [row for row in rows if row["run_date"] < night.date]
        row = decided(night, before) | {"barred": before[-1]["barred"] if before else []}
        reach("champion.decided")
        night.store.put(CHAMPIONS, [{"run_date": night.date, **row}], {"run_date": night.date})
        night.book("written", 1, CHAMPIONS.name)
        night.book(row["verdict"], 1)
    if row["verdict"] != "kept" or row["challenger_als_model"]:
        night.tell(row["reason"])


def decided(night: Night, rows: list[gate.Row]) -> gate.Row:
    """The night's row, by the rows of the nights before it and what has been trained."""
    als, rankers = (models.trained(night.store.warehouse, kind, night.date) for kind in ("als", "ranker"))
    newest = next(reversed(als), ""), next(reversed(rankers), "")
    if not all(newest):
        missing = "ranker" if newest[0] else "item factors"
        raise UsageError(f"no {missing} trained as of {night.date} or before; run `nightrec train` as of it first")
    champion = (rows[-1]["als_model"], rows[-1]["ranker_model"]) if rows else None
    if champion is None:
        return gate.unjudged(newest, "they are the first")
    if champion[0] not in als or champion[1] not in rankers:
        return gate.unjudged(newest, f"{' and '.join(champion)}, which served before, are not there any more")
    if not night.config.gate.is_on:
        return gate.unjudged(newest, "gate.is_on = false")
    pair = gate.challenger(rows, champion, als, rankers)
    if pair is None:
        return gate.kept(rows, champion)
    if night.names_models:
        return gate.named(champion)
    return challenged(night, champion, pair, max(als[pair[0]], rankers[pair[1]]))


def challenged(night: Night, champion: Pair, pair: Pair, since: date) -> gate.Row:
    """The row of a night with a challenger, trained as of `since`."""
    # Here: what judges is compiled, and most nights have no challenger.
    from nightrec.evaluation import duel

    if list(models.ranker_row(night.store.warehouse, champion[1])["features"]) != list(FEATURES):
        return gate.unjudged(pair, f"the ranker {champion[1]} was trained on other features than this version computes")
    settings, waited = night.config.gate, (night.date - since).days
    may_wait = waited < settings.max_wait_days
    if may_wait:
        # No Spark job in the night of the training itself.
        users = duel.came_back(night, since).select("user_id").distinct().count() if waited else 0
        if users < settings.min_users:
            return gate.waiting(champion, pair, users, settings, waited)
    try:
        found = duel.fought(night, champion, pair, since) if waited else None
    except duel.Unfit as error:
        if error.whose == duel.CHALLENGER:
            return gate.cannot(champion, pair, str(error))
        return gate.unjudged(pair, f"those that served before can make no lists ({error})")
    users = found.difference.users if found else 0
    if may_wait and users < settings.min_users:
        return gate.waiting(champion, pair, users, settings, waited)
    return gate.judged(champion, pair, found, settings)


if __name__ == "__main__":
    main(run)
