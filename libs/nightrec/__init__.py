"""nightrec: a fresh, audited list per user every morning, from raw interaction logs."""

__version__ = "0.1.0"
