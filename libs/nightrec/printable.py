"""What somebody else wrote (ids, titles, names of files) as it may be printed: one line, no orders to a terminal."""

from __future__ import annotations

import re

# Controls (with those of 8 bits, and ESC), line and paragraph separators, marks that turn the direction of text around,
# halves of surrogate pairs.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def one_line(text: str) -> str:
    """The text with such characters written as escapes: a line of a log stays one, and is what it seems."""
    return _UNSAFE.sub(lambda found: _escaped(found[0]), text)


def lines(text: str) -> str:
    """The same of our own sentences, which may be several lines."""
    return "\n".join(map(one_line, text.split("\n")))


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
