"""Raw lines whose fates are known when they are written: good ones, copies, late ones, robots, and every broken kind.

Import it as `from fated_lines import write` (tests/ is on the path of every test). The same bytes for the same
arguments. No library of the project is used, so that nothing is judged by its own rules.
"""

from __future__ import annotations

import gzip
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

FIRST = date(2026, 3, 2)
# The default settings of `events`, which decide what is late, too late and a robot.
LATE_DAYS, WINDOW_DAYS, ROBOT_RATE = 1, 1826, 1000
_KINDS = ("view", "click", "like", "dislike", "favourite", "comment", "impression")
_YEAR = 365 * 86_400_000

# What a fuzzer does to a good line; each way has one fate. `{` and `}` stand at its ends, and it begins with user_id.
# A way may leave two lines (a line break), both of that fate.
Way = Callable[[random.Random, str], bytes]


def _cut(draw: random.Random, line: str) -> bytes:
    return line[: draw.randrange(1, len(line) - 1)].encode()


def _without_end(draw: random.Random, line: str) -> bytes:
    return line[:-1].encode()


def _rubbish(draw: random.Random, line: str) -> bytes:
    behind = (" rubbish", "}", "]", "]}", ",", "\x00", " {}", "//", ",{}", '"', "\t1", ']}],"x":[{"y":1')
    return (line + draw.choice(behind)).encode()


def _before(draw: random.Random, line: str) -> bytes:
    return (draw.choice(("\ufeff", "x", ",", "[", "{", "}", "\x00", "1", '"', "-", "/**/", "data: ")) + line).encode()


def _two(draw: random.Random, line: str) -> bytes:
    return (line + draw.choice(("", " ", ",")) + line).encode()


def _no_utf8(draw: random.Random, line: str) -> bytes:
    wrong = draw.choice((b"\xff", b"\xc3(", b"\xed\xa0\x80", b"\xf0\x9f\x98", b"\xc0\xaf", b"\xfe\xff"))
    return line.encode().replace(b'"user_id":"', b'"user_id":"' + wrong, 1)


def _half(draw: random.Random, line: str) -> bytes:
    half = draw.choice((r"\ud83d", r"\uDE42", r"\udbff\ud800", r"\ud83dx\ude42"))
    return line.replace('"user_id":"', f'"user_id":"{half}', 1).encode()


def _control(draw: random.Random, line: str) -> bytes:
    return line.replace('"user_id":"', '"user_id":"' + chr(draw.choice((1, 8, 9, 27, 31))), 1).encode()


def _line_break(draw: random.Random, line: str) -> bytes:
    """Both halves are lines then, and neither is whole."""
    at = draw.randrange(2, len(line) - 2)
    return line[:at].encode() + draw.choice((b"\n", b"\r", b"\r\n")) + line[at:].encode()


def _other_json(draw: random.Random, line: str) -> bytes:
    return draw.choice((f"[{line}]", '"text"', "null", "17", "true", "[]", f'"{line[2:9]}"')).encode()


def _other_quotes(draw: random.Random, line: str) -> bytes:
    return line.replace('"', "'").encode()


def _no_quotes(draw: random.Random, line: str) -> bytes:
    return line.replace('"item_id"', "item_id", 1).encode()


def _no_colon(draw: random.Random, line: str) -> bytes:
    return line.replace('"item_id":', '"item_id"' + draw.choice((" ", "=", ",", ";", "::")), 1).encode()


def _comma(draw: random.Random, line: str) -> bytes:
    return draw.choice((line[:-1] + ",}", "{," + line[1:], line.replace(',"item_id"', ',,"item_id"', 1))).encode()


def _wrong_number(draw: random.Random, line: str) -> bytes:
    wrong = ("01", "1.", ".5", "+1", "NaN", "Infinity", "-Infinity", "0x1f", "1e", "--1", "1_0")
    return _with(draw, line, "value", wrong)


def _wrong_escape(draw: random.Random, line: str) -> bytes:
    wrong = draw.choice((r"\x", r"\u12", r"\uzzzz", r"\'", r"\0"))
    return line.replace('"user_id":"', '"user_id":"' + wrong, 1).encode()


def _nested(draw: random.Random, line: str) -> bytes:
    name = draw.choice(_COLUMNS[: _COLUMNS.index("context")])
    return _with(draw, line, name, ('{"$oid":"1"}', "[1]", '["a","b"]', "{}", "[]", "[[1]]", '[{"a":[1]}]'))


def _no_map(draw: random.Random, line: str) -> bytes:
    return _with(draw, line, "context", ('"home"', "[]", "1", "true", '["rank"]', '"{\\"rank\\":1}"'))


def _deep(draw: random.Random, line: str) -> bytes:
    depth = draw.choice((1_200, 5_000))
    return _with(draw, line, "extra", ("[" * depth + "]" * depth,))


def _digits(draw: random.Random, line: str) -> bytes:
    return _with(draw, line, "value", ("9" * 2_000,))


def _no_user(draw: random.Random, line: str) -> bytes:
    return _not_there(draw, line, "user_id", _BLANK)


def _no_item(draw: random.Random, line: str) -> bytes:
    return _not_there(draw, line, "item_id", _BLANK)


def _bad_time(draw: random.Random, line: str) -> bytes:
    wrong = (
        '"yesterday"', '""', "null", "1773136800", "0", "-1", '"2026-02-30T10:00:00Z"', '"2026-03-04T25:00:00Z"',
        '"10:00"', '"2026-3-4"', '"04.03.2026"', '"20260304"', '"0000-01-01"', '"1970-01-01T00:00:00Z"', "1e999",
        "true", "12.5",
        '"2026-03-04T10:00:00+99:00"', '"2026-03-04T10"', "999999999999999", '"2026-W10-3"', str(-(2**63)),
        '"Infinity"', '"now"', '"epoch"', '"today"', '"1989-12-31T23:59:59Z"',
    )  # fmt: skip
    return _not_there(draw, line, "event_ts", wrong)


def _unknown_type(draw: random.Random, line: str) -> bytes:
    wrong = ('"hover"', '""', "null", "1", '"view;"', '"vi ew"', '"VIEWS"', "true", '"view\\u0000"', '"ｖiew"')
    return _not_there(draw, line, "event_type", wrong)


def _bad_value(draw: random.Random, line: str) -> bytes:
    wrong = ('"five"', '"NaN"', '"1e999"', "1e999", '"-Infinity"', '"1,5"', '"0x10"', "true", '"٣"', '"1 2"', '"."')
    if draw.random() < 0.5:
        return _with(draw, line, "value", wrong)
    outside = {"rating": ('" "', '""', "null", "1001", "-1000.5"), "purchase": ("-2", "0", "1e10")}
    kind = draw.choice(sorted(outside))
    return _with(draw, _with(draw, line, "event_type", (f'"{kind}"',)).decode(), "value", outside[kind])


def _future(draw: random.Random, line: str) -> bytes:
    ahead = str(_millis(FIRST) + draw.randrange(_YEAR, 10 * _YEAR))
    return _with(draw, line, "event_ts", (ahead, '"9999-12-31T23:59:59Z"', "99999999999999", '"2031-01-01"'))


def _too_late(draw: random.Random, line: str) -> bytes:
    """More than five years: a clock that fell back, or a page out of an archive."""
    moment = _moment(_millis(FIRST) - draw.randrange(WINDOW_DAYS * 86_400_000 + 1, 30 * _YEAR))
    return _with(draw, line, "event_ts", (f'"{moment}"',))


WAYS: dict[str, tuple[Way, ...]] = {
    "broken_line": (
        _cut, _without_end, _rubbish, _before, _two, _no_utf8, _half, _control, _line_break, _other_json, _other_quotes,
        _no_quotes, _no_colon, _comma, _wrong_number, _wrong_escape, _nested, _no_map, _deep, _digits,
    ),
    "missing_user_id": (_no_user,),
    "missing_item_id": (_no_item,),
    "bad_time": (_bad_time,),
    "unknown_event_type": (_unknown_type,),
    "bad_value": (_bad_value,),
    "future": (_future,),
    "too_late": (_too_late,),
}  # fmt: skip
_BLANK = ('""', '" "', "null", r'"\u00a0\t"', r'"\u2003"', r'"\n"', r'"\u3000"')
_EVERY = [(reason, way) for reason, ways in WAYS.items() for way in ways]


@dataclass
class Log:
    """What was written, by ingest date: how many lines of each fate and reason, and what must be in clean_events."""

    dates: list[date]
    fates: Counter[tuple[date, str, str]] = field(default_factory=Counter)
    late: Counter[tuple[date, str, date]] = field(default_factory=Counter)  # ingest date, user, date of event
    ids: set[str] = field(default_factory=set)  # of every event that is kept

    @property
    def lines(self) -> int:
        """All lines."""
        return sum(self.fates.values())


def write(root: Path, lines: int, *, dates: int = 3, broken: float = 0.05, seed: int = 1, free: float = 0.0) -> Log:
    """About `lines` lines under `root`/events, in two files a date, plain and compressed.

    Of the lines `broken` are broken, a 30th are copies of lines of this date or an earlier one, a 50th are late; a
    robot's 1,001 events come on the last date where there are 20,000 lines or more. A share `free` of the broken is
    mutated by chance alone, and counted under the fate `any`.
    """
    draw = random.Random(seed)
    log = Log([FIRST + timedelta(days=n) for n in range(dates)])
    kept: list[str] = []
    for day in log.dates:
        out = [_line(draw, log, day, kept, broken, free) for _ in range(lines // dates)]
        if lines >= 20_000 and day == log.dates[-1]:
            out += [_robot(log, day, n) for n in range(ROBOT_RATE + 1)]
            draw.shuffle(out)
        out.append(b"")  # a blank line is no line
        folder = root / "events" / f"ingest_date={day}"
        folder.mkdir(parents=True)
        (folder / "part-0.jsonl").write_bytes(b"\n".join(out[::2]) + b"\n")
        (folder / "part-1.jsonl.gz").write_bytes(gzip.compress(b"\n".join(out[1::2]), 1, mtime=0))
    return log


def _line(draw: random.Random, log: Log, day: date, kept: list[str], broken: float, free: float) -> bytes:
    """One line, or two of one fate; its fate is noted."""
    number = log.lines
    chance = draw.random()
    if chance < broken:
        good = event(draw, day, number)[1]
        if draw.random() < free:
            mutated = _mutated(draw, good.replace('"event_id":"e', '"event_id":"m', 1))
            log.fates[day, "any", ""] += len([line for line in mutated.split(b"\n") if line.strip()])
            return mutated
        reason, way = draw.choice(_EVERY)
        text = way(draw, good)
        parts = len(text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n"))
        log.fates[day, "rejected", reason] += parts
        return text
    if chance < broken + 1 / 30 and kept:
        log.fates[day, "duplicate", ""] += 1
        return draw.choice(kept).encode()
    late = timedelta(days=draw.randrange(LATE_DAYS + 1, 400)) if chance > 1 - 1 / 50 else timedelta()
    name, line = event(draw, day - late, number)
    if late:
        log.late[day, f"u{number % 997}", day - late] += 1
    log.fates[day, "late" if late else "accepted", ""] += 1
    log.ids.add(name)
    if draw.random() < 0.1:
        kept.append(line)
    return line.encode()


def event(draw: random.Random, day: date, number: int) -> tuple[str, str]:
    """Id and text of a good line: an event of `day`, with any of the optional columns."""
    millis = _millis(day) + draw.randrange(86_400_000)
    moment = draw.choice((f'"{_moment(millis)}"', str(millis)))
    kind = draw.choice(_KINDS)
    name = f"e{number}"
    parts = [
        f'"user_id":"u{number % 997}"', f'"item_id":"i{draw.randrange(500)}"', f'"event_type":"{kind}"',
        f'"event_ts":{moment}', f'"event_id":"{name}"',
    ]  # fmt: skip
    if kind == "comment":
        parts.append(f'"text":"{draw.choice(_TEXTS)}"')
    if draw.random() < 0.3:
        parts.append(f'"value":{draw.choice(("1", "2.5", chr(34) + "3" + chr(34), "-4", "1e3", "null"))}')
    if draw.random() < 0.5:
        sent = millis + draw.randrange(60_000)
        parts += [f'"sent_ts":{sent}', f'"received_ts":"{_moment(sent + draw.randrange(600_000))}"']
    if draw.random() < 0.5:
        parts.append(f'"context":{draw.choice(_CONTEXTS)}')
    if draw.random() < 0.1:
        parts.append('"new_column":[{"a":1}]')
    return name, "{" + ",".join(parts) + "}"


_TEXTS = (
    "good", r"a \"quoted\" text", "[sic] {all} of it", r"line\nbreak", "字 🙂", r"\ud83d\ude42", "", r"\\ud83d", "]}",
)  # fmt: skip
_CONTEXTS = ('{"rank":3,"surface":"home"}', "{}", "null", '{"a":{"b":[1]},"c":null}', '{"list_id":"x"}')


def _robot(log: Log, day: date, number: int) -> bytes:
    log.fates[day, "rejected", "robot"] += 1
    moment = _moment(_millis(day) + 3_600_000 + number * 1_000)
    return f'{{"user_id":"robot","item_id":"r{number}","event_type":"view","event_ts":"{moment}"}}'.encode()


def _mutated(draw: random.Random, line: str) -> bytes:
    """One to eight bytes changed, taken out, put in or doubled, by chance."""
    text = bytearray(line.encode())
    for _ in range(draw.randrange(1, 9)):
        at = draw.randrange(len(text))
        what = draw.randrange(4)
        # Not a carriage return, which would make two lines.
        byte = draw.choice((draw.randrange(256), *b'{}[]",:\\0u')) or 1
        if byte == 13:
            byte = 7
        if what == 0:
            text[at] = byte
        elif what == 1:
            del text[at]
        elif what == 2:
            text.insert(at, byte)
        else:
            text[at:at] = text[max(0, at - draw.randrange(1, 30)) : at]
    return bytes(text)


def _with(draw: random.Random, line: str, name: str, values: tuple[str, ...]) -> bytes:
    """The line with one of the values for a column, in place of what it had."""
    return f'{_without(line, name).decode()[:-1]},"{name}":{draw.choice(values)}}}'.encode()


def _not_there(draw: random.Random, line: str, name: str, values: tuple[str, ...]) -> bytes:
    """The line without a column, with it under another name, or with one of the values for it."""
    return draw.choice((_without(line, name), _renamed(draw, line, name), _with(draw, line, name, values)))


def _without(line: str, name: str) -> bytes:
    """The line without a column: its parts are found by the names of all columns, which no value contains."""
    start = line.find(f'"{name}":')
    if start < 0:
        return line.encode()
    ends = [at for other in _COLUMNS if (at := line.find(f',"{other}":', start)) > start]
    end = min(ends, default=len(line) - 1)
    head = line[:start].rstrip(",")
    tail = line[end:]
    return (head + (tail if head != "{" else tail.lstrip(","))).encode()


_COLUMNS = (
    "user_id", "item_id", "event_type", "event_ts", "event_id", "text", "value", "sent_ts", "received_ts",
    "context", "new_column", "extra",
)  # fmt: skip


def _renamed(draw: random.Random, line: str, name: str) -> bytes:
    others = (name.upper(), name.replace("_", ""), name + "_", name[:-1], name.title(), f" {name}", f"{name}\\u0000")
    other = draw.choice(others)
    return line.replace(f'"{name}"', f'"{other}"', 1).encode()


def _millis(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


def _moment(millis: int) -> str:
    return (datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=millis)).isoformat(timespec="milliseconds")
