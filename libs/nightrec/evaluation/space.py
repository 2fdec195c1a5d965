"""Which settings are searched, and between which bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from optuna.trial import Trial

from nightrec.config import Config, overlaid
from nightrec.errors import UsageError

Number = int | float


@dataclass(frozen=True)
class Key:
    """A setting that is searched, `section.key`, between two bounds, both included; whole numbers where both are.

    `log`: twice as much is as far from one value as from any other.
    """

    name: str
    low: Number
    high: Number
    log: bool = False

    def drawn(self, trial: Trial) -> Number:
        """What the sampler asks for in a trial."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(self.name, self.low, self.high, log=self.log)
        return trial.suggest_float(self.name, self.low, self.high, log=self.log)

    def grid(self) -> list[Number]:
        """The bounds and the middle."""
        middle = (self.low * self.high) ** 0.5 if self.log else (self.low + self.high) / 2
        return [self.low, round(middle) if isinstance(self.low, int) else middle, self.high]

    def of(self, config: Config) -> Number:
        """Its value in a config."""
        section, key = self.name.split(".")
        value: Number = getattr(getattr(config, section), key)
        return value


SPACE = (
    Key("als.rank", 16, 128, log=True),
    Key("als.alpha", 1.0, 100.0, log=True),
    Key("als.unobserved", 0.05, 2.0, log=True),
    Key("als.regularisation", 0.005, 1.0, log=True),
    Key("candidates.als", 20, 120),
    Key("candidates.cooccurrence", 20, 120),
    Key("candidates.linear", 20, 120),
    Key("candidates.neighbour_users", 20, 120),
    Key("candidates.transitions", 20, 120),
    Key("candidates.trending", 20, 120),
    Key("candidates.linear_penalty", 20.0, 2000.0, log=True),
    Key("profiles.recent_items", 10, 100, log=True),
    Key("ranker.past_cuts", 2, 4),
    Key("ranker.negatives_share", 0.1, 1.0, log=True),
    Key("ranker.learning_rate", 3e-4, 1e-2, log=True),
    Key("ranker.dropout", 0.0, 0.5),
    Key("ranker.trees", 100, 800, log=True),
    Key("ranker.tree_depth", 3, 8),
    Key("ranker.tree_learning_rate", 0.02, 0.2, log=True),
    Key("ranker.tree_leaf_weight", 2.0, 200.0, log=True),
    Key("ranker.tree_features", 0.2, 1.0),
)


def searched(config: Config, names: Sequence[str]) -> list[Key]:
    """The keys of SPACE with these names, all of them for none; bounds reach to the deployment's own value.

    What is 0 is switched off, and stays so. Raises UsageError where a name is unknown or switched off.
    """
    on = [key for key in SPACE if key.of(config)]
    if unknown := sorted(set(names) - {key.name for key in on}):
        raise UsageError(f"not searched: {', '.join(unknown)}; there are {', '.join(key.name for key in on)}")
    return [
        replace(key, low=min(key.low, key.of(config)), high=max(key.high, key.of(config)))
        for key in on
        if not names or key.name in names
    ]


def with_settings(config: Config, values: Mapping[str, Number]) -> Config:
    """The config with other values of `section.key`, validated."""
    differing: dict[str, dict[str, Number]] = {}
    for name, value in values.items():
        section, key = name.split(".")
        differing.setdefault(section, {})[key] = value
    return Config.model_validate(overlaid(config.model_dump(by_alias=True), differing))
