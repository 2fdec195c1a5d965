"""What can go wrong, by whom it can be mended. Every message names the place, what was expected and what was found."""

from __future__ import annotations

from collections.abc import Iterator


class NightrecError(Exception):
    """A failure with a sentence for the person who runs the night; `exit_code` is what the process ends with."""

    exit_code = 1


class UsageError(NightrecError):
    """Wrong arguments or configuration: nothing was read or written."""

    exit_code = 2


class BadInput(NightrecError):
    """Raw input that no rule can quarantine row by row (a missing folder, an unreadable file): the night stops."""

    exit_code = 3


class AuditRefused(NightrecError):
    """An audit check of severity stop failed: what was published before stays published."""

    exit_code = 4


class TrainingFailed(NightrecError):
    """Training processes died, hung or failed. What they had learned is kept; run the same stage again to go on."""


class ContractError(NightrecError):
    """A frame does not keep a table's contract; the message lists every mismatch."""


class Fenced(NightrecError):
    """Another attempt holds the warehouse or has committed since this one began: this one must not write."""


class StorageFailed(NightrecError):
    """A disk is full, read-only or broken. What was published before stays; the night can be run again."""


# As the kernel says it, whoever passes it on: Python, Rust or a JVM, the last from within a task's trace.
_OF_STORAGE = {
    "No space left on device": "make room",
    "Disk quota exceeded": "make room",
    "File too large": "raise the limit on the size of files",
    "Read-only file system": "make it writable",
    "Input/output error": "have the disk looked at",
}


def storage_failed(error: BaseException) -> StorageFailed | None:
    """A failure as what the storage said of it, in one sentence; None where it is none of the storage's."""
    for told in causes(error):
        for words, mend in _OF_STORAGE.items():
            line = next((line for line in str(told).splitlines() if words in line), None)
            if line:
                place = f" ({told.filename})" if isinstance(told, OSError) and told.filename else ""
                return StorageFailed(
                    f"the storage failed{place}: {line.strip()[:200]}; what was published before is still served: "
                    f"{mend}, then run this night again"
                )
    return None


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from, each once: one raised from itself is its own cause, for ever."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and not any(cause is one for one in seen):
        yield cause
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
