"""How commands take what they all take, and show what they found: tables or one JSON value on stdout, notes on
stderr.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value instead of a table.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what exists.")]
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
    """Something of `rich`, on stdout. Square brackets are text: models, customers and files write them, too."""
    from rich.console import Console

    Console(markup=False, emoji=False).print(renderable)


@contextmanager
def counting(what: str) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr. It appears with the first call of `advance(done, total, text)`, so an error
    before it stands alone."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    text = TextColumn("{task.description}", markup=False)
    console = Console(stderr=True)
    columns = (text, BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    row = bar.add_task(what, total=None)

    def advance(done: int, total: int, text: str = what) -> None:
        bar.start()
        bar.update(row, completed=done, total=total, description=text)

    try:
        yield advance
    finally:
        if bar.live.is_started:
            bar.stop()


def table(title: str | None, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A plain table on stdout; without names of columns it has no head."""
    from rich.table import Table

    drawn = Table(title=title, title_justify="left", show_header=any(columns), box=None, pad_edge=False)
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    show(drawn)
