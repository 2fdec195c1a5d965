"""The commands of privacy: forget, rekey."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Annotated

import typer

from nightrec import config as configuration
from nightrec.errors import UsageError
from nightrec.options import DATE, ConfigOption, JsonOption, answer


def forget(
    user: Annotated[str, typer.Argument(metavar="USER", help="the id as the log has it; - reads it from stdin")],
    config: ConfigOption,
    date: Annotated[datetime, typer.Option("--date", help="date of the certificate", **DATE)],
    json: JsonOption = False,
) -> None:
    """Erase a user from raw files, tables with all their versions, exports and checkpoints, and certify it.

    One cannot go back behind it to earlier nights in tables that held the user. An argument stands in the shell's
    history and in the list of processes: - reads the id from standard input.

    Example: `echo 196 | nightrec forget - --config var/demo/nightrec.toml --date 1998-03-26`
    """
    from nightrec.privacy import forget as erasure
    from nightrec.privacy.person import LEAST

    name = sys.stdin.readline().rstrip("\r\n") if user == "-" else user
    if not name.strip():
        raise UsageError("no user id was given")
    counts = erasure.forget(configuration.load(config), config.resolve().parent, name, date.date())
    lines = [f"{count:>9,}  {place}" for place, count in counts.items() if count or place == erasure.DONE]
    short = f"\nThe id is shorter than {LEAST} characters: free text was not searched for it." * (len(name) < LEAST)
    told = "Forgotten. Removed or mended, in rows, lines or folders:\n" + "\n".join(lines) + short
    answer(counts, f"{told}\nSystems that applied earlier exports still have the user's list: delete it there.", json)


def rekey(config: ConfigOption) -> None:
    """After another key, or pseudonyms switched on or off: have the history cleaned anew from the raw files.

    Until it ran, nights under another key are refused.

    Example: `nightrec rekey --config var/demo/nightrec.toml`
    """
    from nightrec.privacy import rekey as renewal

    typer.echo(renewal.rekey(configuration.load(config)))
