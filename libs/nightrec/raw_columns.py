"""The columns of the raw contract, and what is done about a file whose columns are others.

| change of a raw column | what happens |
|---|---|
| added | accepted: passed over, it stays in the raw files |
| in another order | accepted: columns are known by their names |
| required, dropped or renamed | refused, with the nearest name; of JSON only where all lines lack it |
| optional, dropped or renamed | refused once it was regular, until events.dropped_columns names it |
| optional, null throughout | the same |
| in other letter case, or with other blanks and dashes | refused, with the contract's name |
| number that became a string | accepted: its digits |
| string that became a whole number | accepted: its digits |
| id that became a fraction (1.0), a truth value or a time, by a Parquet file's types | refused |
| an object or a list where text is expected | JSON: quarantined (broken_line); Parquet: refused |
| context that is no map | JSON, CSV, text in Parquet: quarantined (broken_line); by Parquet's types: refused |
| one that a file of typed columns holds in another type that says the same | accepted: an integer, a date, a map |

Quarantined: the line is in rejected_events, the night goes on. Refused: BadInput before anything is written, exit code
3, in a sentence that names file, column and mend. No change leaves a column of nulls behind unsaid.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence

from nightrec.errors import BadInput

# Kinds of columns, and what each may be in a file of typed columns: Spark's names of types. `void` is a column of nulls
# alone. Fractions are no ids: 12 and 12.0 would be two users, and above 2^53 digits are lost.
_WHOLE = r"string|varchar\(.*|char\(.*|binary|tinyint|smallint|int|bigint|decimal\(\d+,0\)|void"
KINDS = {
    "text": _WHOLE,
    "number": rf"{_WHOLE}|float|double|decimal\(.*",
    "time": r"string|varchar\(.*|int|bigint|decimal\(\d+,0\)|date|timestamp|timestamp_ntz|void",
    "list": r"array<.*|string|void",
    "map": r"map<.*|struct<.*|string|void",
}
_SAID = {
    "text": "text or whole numbers", "number": "numbers or text", "time": "times, epoch milliseconds or text",
    "list": "a list or text", "map": "a map or text",
}  # fmt: skip

EVENTS = {
    "user_id": "text", "item_id": "text", "event_type": "text", "event_ts": "time",
    "event_id": "text", "value": "number", "text": "text", "sent_ts": "time", "received_ts": "time", "context": "map",
}  # fmt: skip
EVENTS_REQUIRED = ("user_id", "item_id", "event_type", "event_ts")
ITEMS = {
    "item_id": "text", "title": "text", "description": "text", "categories": "list", "tags": "list",
    "attributes": "map", "available_from": "time", "available_until": "time",
}  # fmt: skip
USERS = {"user_id": "text", "attributes": "map", "blocked_items": "list"}
TYPES = {
    "text": "string", "number": "string", "time": "timestamp", "list": "array<string>", "map": "map<string,string>",
}  # fmt: skip


def check(path: str, found: Mapping[str, str], kinds: Mapping[str, str], required: Collection[str]) -> None:
    """Refuse a file of named columns (`found`: Spark's type of each) that is not what the contract's `kinds` ask for.

    Raises BadInput that names all that is wrong with the file at once.
    """
    problems = [f"{name} is missing{_nearest(name, found)}" for name in required if name not in found]
    lost = {name for name in required if name not in found}
    problems += [
        f"{other} is not a column of the contract, {name} is"
        for name, other in near_misses(found, kinds).items() if name not in lost
    ]  # fmt: skip
    seen: dict[str, str] = {}
    for name in found:
        if seen.setdefault(name.lower(), name) != name:
            problems.append(f"{seen[name.lower()]} and {name} differ in letter case only")
    problems += [
        f"{name} is {type_}, expected are {_SAID[kinds[name]]}"
        for name, type_ in found.items() if name in kinds and not re.fullmatch(KINDS[kinds[name]], type_)
    ]  # fmt: skip
    if problems:
        listed = ", ".join(found)
        raise BadInput(
            f"{path}: column {'; column '.join(problems)}; found are {listed[:300]}. Write the file so, or have it "
            "ignored by a _ in front of its name"
        )


def near_misses(found: Collection[str], expected: Collection[str]) -> dict[str, str]:
    """Contract's columns that are not there, each with one that is there and differs in letter case, blanks and dashes
    only."""
    plain = {_plain(name): name for name in found if name not in expected}
    return {name: plain[_plain(name)] for name in expected if name not in found and _plain(name) in plain}


def missing_in_lines(path: str, lines: Sequence[Collection[str]], kinds: Mapping[str, str], fewest: int) -> None:
    """Refuse a file of JSON lines (`lines`: the names in some of them) that has a column under a name nearly the
    contract's. Raises BadInput where at least `fewest` of the lines have the near miss and none has the column."""
    names = {name for line in lines for name in line}
    for name, other in near_misses(names, kinds).items():
        if sum(other in line for line in lines) >= fewest:
            raise BadInput(
                f"{path}: lines have {other}, which is not a column of the contract; {name} is. Rename it in the file, "
                "or have the file ignored by a _ in front of its name"
            )


def nearest(name: str, found: Collection[str]) -> str:
    """The name among `found` that may be meant by a column of the contract; '' where none is like it."""
    plain = {_plain(other): other for other in found}
    close = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.6)
    return plain[close[0]] if close else ""


def _nearest(name: str, found: Collection[str]) -> str:
    close = nearest(name, [other for other in found if other != name])
    return f" (is it {close}?)" if close else ""


def _plain(name: str) -> str:
    return re.sub(r"[\s_.-]", "", name).lower()
