"""What can go wrong, by whom it can be mended. Every message names the place, what was expected and what was found."""


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
