"""What the commands share: options, and how they answer people and machines."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, RenderableType

ConfigOption = Annotated[Path, typer.Option("--config", metavar="TOML", help="the deployment's nightrec.toml")]
JsonOption = Annotated[bool, typer.Option("--json", help="print the answer for machines")]


def answer(machine: object, people: RenderableType, json: bool) -> None:
    """Print an answer to standard output: as JSON where a machine asked."""
    if json:
        print(dumps(machine, ensure_ascii=False, indent=2, default=str))
    else:
        Console(highlight=False).print(people, markup=False)
