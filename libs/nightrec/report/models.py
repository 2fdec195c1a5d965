"""Which models made a night's lists, how old they were, and whether the training that was to renew them failed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from nightrec.pipeline import STAGES
from nightrec.store import arrow, partitions
from nightrec.tables import ALS_ITEM_FACTORS, LEDGER, NIGHT_MODELS, RANKER_MODELS

# Nothing else writes under these stages in the name of a training's own date.
_OF_TRAINING = [stage.name for stage in STAGES if stage.rhythm == "training"]
_KINDS = {"ranker": RANKER_MODELS, "item factors": ALS_ITEM_FACTORS}


@dataclass(frozen=True)
class Serving:
    """Of a night: its models by kind (`ranker`, `item factors`), each with its id and the date it was trained as of;
    and of the latest training up to the night the date, and why it failed: no reason where it did not."""

    night: date
    models: dict[str, tuple[str, date]]
    trained: date | None
    failures: tuple[str, ...]

    def lines(self) -> list[str]:
        """In sentences; none where no model has served yet."""
        told = [
            f"{kind} {model}, trained as of {as_of}, {_days((self.night - as_of).days)} before the night"
            for kind, (model, as_of) in self.models.items()
        ]
        lines = [f"Models: {'; '.join(told)}."] if told else []
        if self.failures:
            lines += [f"The training as of {self.trained} failed: {why}." for why in self.failures]
            lines += ["Nights keep the models they have until a training succeeds."]
        return lines

    def as_dict(self) -> dict[str, Any]:
        """For machines."""
        return {
            "models": [
                {"kind": kind, "model_id": model, "as_of_date": as_of.isoformat(), "days": (self.night - as_of).days}
                for kind, (model, as_of) in self.models.items()
            ],
            "last_training": self.trained.isoformat() if self.trained else None,
            "failures": list(self.failures),
        }


def serving(warehouse: str, night: date) -> Serving:
    """The models of a night and the fate of the latest training not after it, from the ledger."""
    pinned: dict[str, str] = next(iter(arrow(warehouse, NIGHT_MODELS, {"run_date": night}).to_pylist()), {})
    found = {}
    for (kind, table), model in zip(_KINDS.items(), map(pinned.get, ("ranker_model", "als_model")), strict=True):
        as_of = {part["model_id"]: part["as_of_date"] for part in partitions(warehouse, table)}.get(model or "")
        if model and as_of:
            found[kind] = model, date.fromisoformat(as_of)
    columns = ["run_date", "stage", "fate", "reason"]
    books = arrow(warehouse, LEDGER, {"stage": _OF_TRAINING}, columns).to_pylist()
    trained = max((line["run_date"] for line in books if line["run_date"] <= night), default=None)
    failures = sorted(
        (_OF_TRAINING.index(line["stage"]), f"{line['stage']}: {line['reason']}")
        for line in books
        if line["run_date"] == trained and line["fate"] == "failed"
    )
    return Serving(night, found, trained, tuple(why for _, why in failures))


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"
