"""Weights on disk are safetensors: a length, a header in JSON, numbers. What else a file may be is refused unread.

The library itself checks offsets, and takes a header of 100 MB; this looks before it does, at the few bytes that say
what follows, so that a pickle, an archive or a header that promises more than the file holds ends in a sentence.
"""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nightrec.errors import NightrecError

# The header of the default encoder's 104 tensors takes 10 KB.
MOST_HEADER = 2**20
MOST_BYTES = 2**33
_MOST_TENSORS, _MOST_DIMENSIONS = 20_000, 8
_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9_.:/-]{1,200}")
_FOREIGN = {b"\x80": "a pickle", b"PK": "a zip archive, as torch.save writes", b"\x93NUMPY": "a NumPy array"}


@dataclass(frozen=True)
class Tensor:
    """What a header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]


def placed(root: str, named: str) -> Path:
    """A file below `root` by the name that a table has for it. Raises NightrecError where that leads elsewhere."""
    parts = named.split("/")
    folder = Path(root)
    if not all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", part) for part in parts):
        raise NightrecError(f"weights {named!r}: expected MODEL_ID/model.safetensors below {root}; train them again")
    file = folder.joinpath(*parts)
    if not file.resolve().is_relative_to(folder.resolve()):
        raise NightrecError(f"weights {named!r}: a link leads out of {root}; remove it and train the model again")
    return file


def opened(file: Path, most: int = MOST_BYTES) -> bytes:
    """A weights file's bytes, once its header was looked at. NightrecError where it is none."""
    # Before it is opened: a pipe would wait for a writer.
    size = _size(file, most)
    with file.open("rb") as handle:
        head = handle.read(8)
        header = handle.read(_header_length(head, size, str(file)))
        _tensors(header, size - 8 - len(header), str(file))
        return head + header + handle.read()


def tensors_of(file: Path) -> dict[str, Tensor]:
    """What the header of a file promises; the numbers are not read. Raises as `opened` does."""
    size = _size(file, MOST_BYTES)
    with file.open("rb") as handle:
        header = handle.read(_header_length(handle.read(8), size, str(file)))
    return _tensors(header, size - 8 - len(header), str(file))


def tensors(content: bytes, place: str) -> dict[str, Tensor]:
    """The same of bytes; `place` says whose they are."""
    length = _header_length(content[:8], len(content), place)
    return _tensors(content[8 : 8 + length], len(content) - 8 - length, place)


def _size(file: Path, most: int) -> int:
    about = file.stat()
    if not stat.S_ISREG(about.st_mode):
        raise _refused(str(file), "it is no regular file")
    if about.st_size > most:
        raise _refused(str(file), f"{about.st_size:,} bytes, at most {most:,} are read")
    return about.st_size


def _header_length(head: bytes, size: int, place: str) -> int:
    for start, kind in _FOREIGN.items():
        # A pickle's first byte could be a length's; its second is its protocol's number, its third never 0.
        if head.startswith(start) and head[2:3] != b"\0":
            raise _refused(place, f"it is {kind}, which could run code when it is opened")
    length = int.from_bytes(head, "little") if len(head) == 8 else -1
    if not 2 <= length <= size - 8:
        raise _refused(place, f"a header of {length:,} bytes in a file of {size:,}")
    if length > MOST_HEADER:
        raise _refused(place, f"a header of {length:,} bytes, at most {MOST_HEADER:,} are read")
    return length


def _tensors(header: bytes, room: int, place: str) -> dict[str, Tensor]:
    try:
        told = json.loads(header.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _refused(place, f"its header is no JSON ({' '.join(str(error).split())[:80]})") from None
    if not isinstance(told, dict) or len(told) > _MOST_TENSORS:
        raise _refused(place, "its header is no object of tensors")
    told.pop("__metadata__", None)
    found, spans = {}, []
    for name, about in told.items():
        if not _NAME.fullmatch(name):
            raise _refused(place, f"a tensor is called {name[:40]!r}")
        found[name], span = _tensor(about, f"{place}, tensor {name}")
        spans.append(span)
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise _refused(place, f"its tensors overlap or leave a gap at byte {end}")
        end = stop
    if end != room:
        raise _refused(place, f"its tensors take {end:,} bytes, and {room:,} follow the header")
    return found


def _tensor(about: Any, place: str) -> tuple[Tensor, tuple[int, int]]:
    if not isinstance(about, Mapping) or set(about) != {"dtype", "shape", "data_offsets"}:
        raise _refused(place, "expected dtype, shape and data_offsets")
    dtype, shape, span = about["dtype"], about["shape"], about["data_offsets"]
    if dtype not in _BYTES:
        raise _refused(place, f"dtype {str(dtype)[:20]!r}, expected one of {', '.join(_BYTES)}")
    if not _is_whole(shape) or len(shape) > _MOST_DIMENSIONS or not _is_whole(span) or len(span) != 2:
        raise _refused(place, f"shape {str(shape)[:40]} at {str(span)[:40]}")
    if span[1] - span[0] != math.prod(shape) * _BYTES[dtype]:
        raise _refused(place, f"{dtype} of shape {shape} in {span[1] - span[0]} bytes")
    return Tensor(dtype, tuple(shape)), (span[0], span[1])


def _is_whole(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(n) is int and 0 <= n < 2**48 for n in numbers)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name twice")
    return found


def _refused(place: str, why: str) -> NightrecError:
    return NightrecError(f"{place} is not taken for safetensors: {why}; put the right file there, or train again")
