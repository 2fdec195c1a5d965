"""The TOML door: every problem at once, with its mend; every shipped file opens it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from nightrec.config import Config, load
from nightrec.errors import UsageError
from nightrec.tables import EVENT_TYPES

ROOT = Path(__file__).resolve().parents[2]


def written(folder: Path, text: str) -> Path:
    file = folder / "nightrec.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_an_empty_file_has_every_default_and_paths_beside_it(tmp_path: Path) -> None:
    config = load(written(tmp_path, ""))
    assert config.paths.raw == str(tmp_path.resolve() / "raw")
    assert config.privacy.key_file == str(tmp_path.resolve() / "privacy.key")
    assert config.model_copy(update={"paths": Config().paths, "privacy": Config().privacy}) == Config()


def test_paths(tmp_path: Path) -> None:
    config = load(written(tmp_path, '[paths]\nraw = "../raw"\nwarehouse = "s3://bucket/w"\nmodels = "/models"\n'))
    assert config.paths.raw == str(tmp_path.resolve().parent / "raw")
    assert (config.paths.warehouse, config.paths.models) == ("s3://bucket/w", "/models")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[als]\nrnak = 3\n", "unknown key als.rnak; did you mean rank?"),
        ("[candidate]\n", "unknown key candidate; did you mean candidates?"),
        ("[als]\nregularization = 0.1\n", "did you mean regularisation?"),
        ('[lists]\nk = "ten"\n', "lists.k = 'ten'"),
        ("[audit]\nchurn = [0.9, 0.5]\n", "audit.churn = [0.9, 0.5]: value error, the first, which warns, lies beyond"),
        ("[lists]\nk = 0\n", "lists.k = 0: input should be greater than 0"),
        ("[audit]\nmin_user_share = 1.5\n", "audit.min_user_share = 1.5"),
        ('[spark]\ndriver_memory = "4 GB"\n', "spark.driver_memory"),
        ("[events.weights]\nlook = 1\n", "events.weights.look"),
        ("[ranker]\npast_cuts = 0\n", "ranker.past_cuts"),
        ('[ranker]\ntrees = 0\nblend = "trees"\n', "blend = 'trees' needs trees above 0"),
        ('extends = "other.toml"\n', "other.toml does not exist"),
        ("[[candidates.editorial]]\nitem = 'a'\nuntli = 1\n", "candidates.editorial.0.untli; did you mean until?"),
        ("[candidates]\neditorial = ['a', {slot = 1}]\n", "candidates.editorial.1.item"),
        ("[candidates]\neditorial = [{item = 'a', slot = 0}]\n", "candidates.editorial.0.slot = 0"),
        (
            "[candidates]\neditorial = [{item = 'a', from = 2026-01-02, until = 2026-01-01}]\n",
            "from = 2026-01-02 lies after until = 2026-01-01",
        ),
        ("[als\n", "is not TOML"),
    ],
)
def test_one_problem(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        load(written(tmp_path, text))
    assert message in str(error.value) and str(tmp_path) in str(error.value)


def test_all_problems_are_listed_together(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        load(written(tmp_path, "[als]\nrnak = 3\nrank = -1\n[lists]\nk = 1.5\n[exprot]\n"))
    for part in ("als.rnak", "als.rank = -1", "lists.k = 1.5", "exprot; did you mean export?"):
        assert part in str(error.value)


def test_a_missing_file_and_one_that_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist; `nightrec init"):
        load(tmp_path / "none.toml")
    (tmp_path / "nightrec.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not TOML"):
        load(tmp_path / "nightrec.toml")


def test_weights_left_out_keep_their_default(tmp_path: Path) -> None:
    weights = load(written(tmp_path, "[events.weights]\nview = 0.5\n")).event_weights()
    assert set(weights) == set(EVENT_TYPES)
    assert weights["view"] == 0.5 and weights["purchase"] == 5.0


def test_picks_of_the_day_after_the_night_in_order(tmp_path: Path) -> None:
    text = """
        [candidates]
        editorial = [
            "plain",
            {item = "first", priority = 2, slot = 1},
            {item = "today", from = 2026-03-02, until = 2026-03-02, priority = 1},
            {item = "gone", until = 2026-03-01},
            {item = "coming", from = 2026-03-03},
            {item = "plain", slot = 3},
        ]
    """
    candidates = load(written(tmp_path, text)).candidates
    picks = candidates.picks(dt.date(2026, 3, 1))
    # The twice picked is what it is where it comes first.
    assert [(pick.item, pick.slot) for pick in picks] == [("first", 1), ("today", None), ("plain", None)]
    assert [pick.item for pick in candidates.picks(dt.date(2026, 3, 2))] == ["first", "plain", "coming"]
    assert Config().candidates.picks(dt.date(2026, 3, 1)) == ()


def test_training_cuts_are_a_horizon_apart(tmp_path: Path) -> None:
    config = load(written(tmp_path, "[ranker]\nhorizon_days = 7\npast_cuts = 3\n"))
    cuts = [dt.date(2026, 2, 8), dt.date(2026, 2, 15), dt.date(2026, 2, 22)]
    assert config.training_cuts(dt.date(2026, 3, 1), dt.date(2026, 2, 1)) == cuts
    # A log of four weeks: before the first of them lie six days. Of one too short for any, the last.
    assert config.training_cuts(dt.date(2026, 3, 1), dt.date(2026, 2, 2)) == cuts[1:]
    assert config.training_cuts(dt.date(2026, 3, 1), dt.date(2026, 2, 27)) == cuts[2:]


def test_a_file_that_extends_another_says_what_differs(tmp_path: Path) -> None:
    written(tmp_path, '[paths]\nraw = "log"\n[als]\nrank = 16\nalpha = 2.0\n[events]\nweights = { view = 2.0 }\n')
    (tmp_path / "elsewhere").mkdir()
    other = tmp_path / "elsewhere" / "tuned.toml"
    other.write_text('extends = "../nightrec.toml"\n[als]\nrank = 64\n[lists]\nk = 5\n[events]\nweights = {}\n')
    config = load(other)
    assert (config.als.rank, config.als.alpha, config.lists.k) == (64, 2.0, 5) and config.events.weights == {}
    # Paths are those of the file that names them.
    root = str(tmp_path.resolve())
    assert (config.paths.raw, config.paths.reports) == (f"{root}/log", f"{root}/reports")
    other.write_text('extends = "../nightrec.toml"\n[als]\nrnak = 64\n')
    with pytest.raises(UsageError, match=r"tuned.toml:\n  unknown key als.rnak; did you mean rank"):
        load(other)
    (tmp_path / "third.toml").write_text('extends = "elsewhere/tuned.toml"\n')
    with pytest.raises(UsageError, match="unknown key extends"):
        load(tmp_path / "third.toml")


@pytest.mark.parametrize("file", sorted((ROOT / "infra/config").glob("*.toml")), ids=lambda file: file.name)
def test_every_shipped_file_loads(file: Path) -> None:
    assert isinstance(load(file), Config)


def test_every_section_and_setting_is_explained() -> None:
    for name, field in Config.model_fields.items():
        section = field.annotation
        assert section is not None and section.__doc__, name
