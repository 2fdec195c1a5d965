"""Names, dates, ids and titles that mean harm, 100,000 of them: through paths, SQL, lines of a log, pages, cleaning."""

from __future__ import annotations

import datetime as dt
import io
import os
import random
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import jinja2
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from rich.console import Console

from nightrec.config import Privacy
from nightrec.errors import NightrecError, UsageError
from nightrec.models import newest
from nightrec.night import parser
from nightrec.printable import lines, one_line
from nightrec.privacy import pseudonyms
from nightrec.privacy.person import GONE, Person, replaced
from nightrec.report import evaluation_charts, show
from nightrec.report.night import commands
from nightrec.store import _quoted, predicate
from nightrec.weights import placed

COUNT = 100_000
NASTY = (
    "", " ", ".", "..", "../../etc/passwd", "/etc/passwd", "a/../../b/model.safetensors", "%2e%2e%2f", "..\\..\\x",
    "'", "''", '"', "`", "\\", "\\'", "\\\\'", "' OR '1'='1", "'; DROP TABLE x; --", "\\u0027", "${jndi:ldap://x}",
    "$(reboot)", "`reboot`", "; rm -rf /", "\x00", "a\x00b", "\n", "\r\n2026-01-01 INFO all is well", "\x1b[2J\x1b[31m",
    "\x9b31m", "\u2028", "\u2029", "\u202egnp.exe", "\u2066x", "<script>alert(1)</script>", "<img src=x onerror=a()>",
    "\"><svg/onload=a()>", "{{ 7 * 7 }}", "{% raw %}", "[bold red]x[/]", "[/nothing]", "]]>", "<!--", "a" * 10_000,
    "é", "e\u0301", "世界", "🙂", "\ufeff", "\u200b", "NULL", "None", "NaN", "true", "0", "-1", "1e309", "=1+1",
    "2026-02-30", "9999-99-99", "0000-00-00", "2026-01-01T00:00:00Z", "__HIVE_DEFAULT_PARTITION__", "a=b", "a%20b", "~",
    "con", "\\E.*\\Q", "$1", "(?:", "user_id", "\ud7ff", "\ue000", "\uffff", "\U0010ffff",
)  # fmt: skip
# Characters that end, begin or escape something somewhere.
_ALPHABET = "'\"`\\/.%$&;|<>(){}[]!#=-_ \t\n\r\x00\x07\x08\x1b\x7f\x85\x9b\u2028\u202e\u2066\u200fabcXYZ019éß世🙂\u0301"


@pytest.fixture(scope="module")
def strings() -> list[str]:
    """COUNT different strings, the same in every run."""
    draw = random.Random(20260310)
    found = dict.fromkeys(NASTY)
    while len(found) < COUNT:
        own, more = ("".join(draw.choices(_ALPHABET, k=draw.randrange(1, 12))) for _ in range(2))
        found[((draw.choice(NASTY) if draw.random() < 0.3 else own) + more)[: draw.choice((8, 20, 60))]] = None
    return list(found)


def chunks(values: list[str], size: int) -> Iterator[list[str]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def test_no_name_of_weights_leads_out_of_their_folder(strings: list[str], tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()
    allowed = 0
    for name in strings:
        for named in (name, f"{name}/model.safetensors"):
            try:
                file = placed(str(root), named)
            except NightrecError as error:
                assert len(str(error).splitlines()) == 1
                continue
            allowed += 1
            assert file.resolve().is_relative_to(root) and ".." not in file.parts
    assert 0 < allowed < COUNT


def test_no_argument_but_a_date_is_a_date(strings: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = parser("about")
    passed = []
    # 20,000: argparse writes its help for each that it refuses.
    for text in strings[:20_000]:
        if text == "--":  # argparse takes it for the end of the options
            continue
        try:
            passed.append(arguments.parse_args(["--config", "c", f"--date={text}"]).date)
        except SystemExit as end:
            assert end.code == 2
    capsys.readouterr()
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d", str(day)) for day in passed)


def test_no_string_ends_its_literal_in_sparks_sql(strings: list[str], spark: SparkSession) -> None:
    for some in chunks(strings, 20_000):
        literals = predicate({"x": some}).removeprefix("x IN (").removesuffix(")")
        row = spark.sql(f"SELECT array({literals})").first()
        assert row and row[0] == some
    # Spark fills ${...} in before it parses.
    row = spark.sql(f"SELECT '${{env:PATH}}', {predicate({'x': '${env:PATH}'}).removeprefix('x IN ')}").first()
    assert row and (row[0], row[1]) == (os.environ["PATH"], "${env:PATH}")


def test_no_string_ends_its_literal_in_deltalakes_sql(strings: list[str], tmp_path: Path) -> None:
    """The rows that a predicate names are deleted, and no others."""
    table = str(tmp_path / "table")
    write_deltalake(table, pa.table({"x": [*strings, "stays"]}))
    for some in chunks(strings, 10_000):  # its parser calls itself: 50,000 ended the process
        DeltaTable(table).delete(predicate({"x": some}, quoted=_quoted))
    assert DeltaTable(table).to_pyarrow_table().to_pylist() == [{"x": "stays"}]


def test_no_string_is_two_lines_or_an_order_to_a_terminal(strings: list[str]) -> None:
    for text in strings:
        line = one_line(text)
        assert len(line.splitlines()) <= 1 and one_line(line) == line
        assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", line)
        assert lines(text).count("\n") == text.count("\n")
    assert one_line("Ünï 世界 🙂 e\u0301 – [x]") == "Ünï 世界 🙂 e\u0301 – [x]"


def test_what_people_are_shown_has_the_lines_that_we_made(strings: list[str], tmp_path: Path) -> None:
    """Ids, titles and reasons on a user's page: no escape, no line of their own, no markup taken for ours."""
    draw = random.Random(1)
    some = [text for text in draw.sample(strings, 600) if len(text) < 100] + [text for text in NASTY if len(text) < 100]
    when = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    events = tuple(show.Event(when, "view", text, text, 1.0) for text in some)
    items = tuple(show.Item(n, text, text, 0.5, "als", text, None) for n, text in enumerate(some, 1))
    out = io.StringIO()
    console = Console(file=out, width=400, highlight=False, force_terminal=False)
    page = show.Shown("\n2026 INFO\x1b[2J", when.date(), 1, events, "user", items, None, tuple(some), tuple(some))
    console.print(show.render(page), markup=False)
    told = out.getvalue()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", told)
    heads = [line for line in told.split("\n") if line.startswith(("2026 INFO", "2026-01-01 INFO"))]
    assert heads == []
    # A command that can be pasted names the user and nothing else.
    from nightrec.config import Config

    for text in some:
        words = shlex.split(commands(Path("c.toml"), Config(), text, when.date())[0])
        assert words[2] == text and words[-1] == "c.toml"


def test_no_string_is_markup_of_a_page(strings: list[str]) -> None:
    page = jinja2.Environment(autoescape=True).from_string(evaluation_charts._PAGE)
    told = page.render(about="about", charts=[(text, "") for text in strings], told=strings)
    tags = set(re.findall(r"</?([a-zA-Z!][^\s>]*)", told))
    assert tags == {"!doctype", "html", "meta", "title", "style", "h1", "p", "h2"}
    drawn = evaluation_charts._bars([(text[:50], 1.0, 0.5, 1.5) for text in NASTY if text.isprintable()])
    assert "<script>" not in drawn and "<img" not in drawn and "onload=a()>" not in drawn.replace("&gt;", "")


@pytest.fixture
def ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pseudonyms.Pseudonyms:
    monkeypatch.delenv(pseudonyms.VARIABLE, raising=False)
    key = tmp_path / "key"
    key.write_text("k" * 32)
    key.chmod(0o600)
    found = pseudonyms.of(Privacy(pseudonyms=True, key_file=str(key)))
    assert found
    return found


def test_every_id_gets_its_pseudonym_in_spark_too(
    strings: list[str], spark: SparkSession, ids: pseudonyms.Pseudonyms
) -> None:
    """Hashes of columns and of single ids agree, and texts lose the id and nothing else."""
    texts = [f"x {text} y" for text in strings]
    frame = spark.createDataFrame(pa.table({"user_id": strings, "event_id": strings, "text": texts}))
    hidden = ids.in_events(frame.withColumn("context", F.create_map(F.lit("k"), "text"))).toArrow()
    assert hidden["user_id"].to_pylist() == [ids.of(text) for text in strings]
    assert hidden["event_id"].to_pylist() == [ids.of_event(text) for text in strings]
    named = hidden["user_id"].to_pylist()
    assert hidden["text"].to_pylist() == [
        replaced(text, [user], name) for text, user, name in zip(texts, strings, named, strict=True)
    ]
    assert [dict(one)["k"] for one in hidden["context"].to_pylist()] == hidden["text"].to_pylist()


def test_every_id_can_be_found_and_taken_out_of_rows(strings: list[str]) -> None:
    """A person's rows are theirs alone, whatever the id."""
    kinds = ["user" if n % 2 else "item" for n in range(len(strings))]
    rows = pa.table({"list_kind": kinds, "list_key": strings, "reason": strings})
    for at in random.Random(3).sample(range(len(strings)), 100):
        own = Person((strings[at],)).own(rows)
        assert own.sum() == (kinds[at] == "user") and own[at] == (kinds[at] == "user")
        left = Person((strings[at],)).without(rows.slice(at, 1))
        assert left.num_rows == (kinds[at] == "item")
        if left.num_rows:
            assert left["list_key"].to_pylist() == [strings[at]]
            assert GONE in left["reason"][0].as_py() or left["reason"][0].as_py() == strings[at]


def test_a_model_that_nobody_trained_is_none(strings: list[str], tmp_path: Path) -> None:
    """Names of models go into filters of the log, never into paths."""
    before = set(tmp_path.iterdir())
    from nightrec.models import ranker_row

    for name in strings[:300]:
        with pytest.raises(UsageError, match="no ranker"):
            ranker_row(str(tmp_path / "warehouse"), name)
    assert newest(str(tmp_path / "warehouse"), "als", dt.date(2026, 1, 1)) is None
    assert set(tmp_path.iterdir()) == before
