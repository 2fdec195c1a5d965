"""The TOML file of a deployment, written from the fields of `config.py`, so that the two never drift."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from datetime import date
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from nightrec.config import Config

WIDTH = 118

Decided = Mapping[tuple[str, str], tuple[Any, str]]


def toml(about: str, decided: Decided | None = None) -> str:
    """Every section and field with its meaning. Defaults stand commented out; what was decided stands in force.

    `decided` maps (section, field) to the value and the sentence that says why. `about` heads the file.
    """
    chosen = dict(decided or {})
    lines = _comment(about)
    for section, field in Config.model_fields.items():
        model = field.annotation
        assert isinstance(model, type) and issubclass(model, BaseModel)
        lines += ["", *_comment((model.__doc__ or section).split("\n")[0]), f"[{section}]"]
        for name, value in model.model_fields.items():
            lines += _entry(name, value, chosen.pop((section, name), None))
    assert not chosen, f"no such config fields: {sorted(chosen)}"
    return "\n".join(lines) + "\n"


def _entry(name: str, field: FieldInfo, decided: tuple[Any, str] | None) -> list[str]:
    """One field: its meaning, then the default behind a `#` or the decided value with its reason."""
    lines = _comment(_capital(field.description)) if field.description else []
    if decided is not None:
        value, why = decided
        return [*lines, *_comment(f"Decided by nightrec init: {why}"), f"{name} = {literal(value)}"]
    default = field.get_default(call_default_factory=True)
    if default is None:
        kinds = get_args(field.annotation)
        example = "" if str in kinds else False if bool in kinds else 14
        return [*lines, f"#{name} = {literal(example)}  # not set by default"]
    return [*lines, f"#{name} = {literal(default)}"]


def literal(value: Any) -> str:
    """A value as TOML; JSON strings are TOML strings."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return (
            "{ " + ", ".join(f"{json.dumps(str(key))} = {literal(item)}" for key, item in value.items()) + " }"
            if value
            else "{}"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(literal(item) for item in value) + "]"
    return repr(value)


def _comment(text: str) -> list[str]:
    return [f"# {line}" if line else "#" for part in text.splitlines() for line in textwrap.wrap(part, WIDTH) or [""]]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
