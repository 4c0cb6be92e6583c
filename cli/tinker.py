"""`vertigym tinker`: the low-level verbs for the Tinker client."""

from pathlib import Path
from typing import Annotated

import typer

from vertigym.cli.console import note


def tinker(
    base: Annotated[
        list[str] | None,
        typer.Option(help="What clients call a model, and its folder; may repeat.", metavar="NAME=FOLDER"),
    ] = None,
    store: Annotated[Path, typer.Option(help="Keeps sessions and saved weights here.", metavar="DIR")] = Path(
        "runs/tinker"
    ),
    host: Annotated[str, typer.Option(help="Others than this machine need VERTIGYM_TINKER_KEY.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: a free one.", min=0, max=65535)] = 8010,
) -> None:
    """Train and sample for programs of the Tinker client: set TINKER_BASE_URL to the address shown."""
    from vertigym.remote.serve_tinker import serve_tinker

    def ready(url: str) -> None:
        note(f"TINKER_BASE_URL={url}, keeping what is saved in {store} (Ctrl-C ends it)")

    serve_tinker(base or [], store, host=host, port=port, on_ready=ready)
