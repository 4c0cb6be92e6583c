"""How commands take what they all take, and show what they found: tables or one JSON value on stdout, notes on
stderr.
"""

import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of a table.")]
EnvId = Annotated[
    str, typer.Argument(help="An environment's id (namespace/Name-v0) or its folder.", metavar="ID")
]


def print_json(value: Any) -> None:
    """To stdout; what JSON does not know as text."""
    print(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def note(text: str) -> None:
    """A line on stderr."""
    print(f"vertigym: {text}", file=sys.stderr)


def show(renderable: Any) -> None:
    """Something of `rich`, on stdout."""
    from rich.console import Console

    Console().print(renderable)


def table(title: str | None, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A plain table on stdout; without names of columns it has no head."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=title, title_justify="left", show_header=any(columns), box=None, pad_edge=False)
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))  # Text: square brackets are not markup
    show(drawn)
