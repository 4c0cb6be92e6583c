"""`vertigym studio`, and the page of one run that `vertigym report --serve` opens in it."""

from pathlib import Path
from typing import Annotated

import typer

from vertigym.cli.console import note


def studio(
    runs: Annotated[
        Path, typer.Argument(help="A folder of runs, a project, or one run.", metavar="[RUNS]")
    ] = Path("runs"),
    host: Annotated[str, typer.Option(help="127.0.0.1, localhost or ::1: this machine only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: a free one.", min=0, max=65535)] = 8000,
) -> None:
    """Serve a local page: runs live and side by side, evals compared, environments played, rules drawn."""
    serve_studio(runs, host=host, port=port)


def serve_studio(runs: Path, *, run: str = "", host: str = "127.0.0.1", port: int) -> None:
    """Serve until Ctrl-C; `run` is the one to open.

    Raises:
        MissingDependencyError: starlette or uvicorn is not installed. InputError: as `studio.server.serve`.
    """
    from vertigym.core.errors import MissingDependencyError

    try:
        from vertigym.studio.server import serve
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "starlette", "serve", "the studio") from None
    serve(runs, run=run, host=host, port=port, on_ready=lambda url: note(f"{url} (Ctrl-C ends it)"))
