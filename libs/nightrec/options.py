"""What the commands share: options, and how they tell of stages and answer people and machines."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, RenderableType

from nightrec.printable import one_line

if TYPE_CHECKING:
    from nightrec.night import Books

# How every command takes a date.
DATE: dict[str, Any] = {"formats": ["%Y-%m-%d"], "metavar": "YYYY-MM-DD"}

ConfigOption = Annotated[Path, typer.Option("--config", metavar="TOML", help="the deployment's nightrec.toml")]
JsonOption = Annotated[bool, typer.Option("--json", help="print the answer for machines")]


def tell(console: Console, books: Books) -> None:
    """Print a stage's line as it ends, what its parts took, and what it decided of settings left to the log."""
    from nightrec.report.night import parts_line, stage_line

    for line in (stage_line(books), parts_line(books), *books.said):
        if line:
            # No markup: [bold] in an id is part of it.
            console.print(one_line(line), soft_wrap=True, markup=False)


def answer(machine: object, people: RenderableType, json: bool) -> None:
    """Print an answer to standard output: as JSON where a machine asked."""
    if json:
        print(dumps(machine, ensure_ascii=False, indent=2, default=str))
    else:
        Console(highlight=False).print(people, markup=False)
