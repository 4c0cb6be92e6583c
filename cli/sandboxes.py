"""`vertigym sandbox`: what this machine can isolate."""

import dataclasses

import typer

from vertigym.cli.console import Json, print_json, table

app = typer.Typer(help="Sandboxes: what this machine can isolate.", no_args_is_help=True)


@app.command("doctor")
def sandbox_doctor(as_json: Json = False) -> None:
    """Say which levels of isolation this machine has, and why not the others. Exit 1 where there is none."""
    from vertigym.sandboxes.levels import levels

    found = levels()
    if as_json:
        print_json([dataclasses.asdict(level) for level in found])
    else:
        rows = [
            (
                str(level.name),
                "yes" if level.available else "no",
                level.gives,
                level.missing or level.note,
                level.fix,
            )
            for level in found
        ]
        table(None, ("level", "here", "gives", "missing", "what to do"), rows)
    if not any(level.available for level in found if str(level.name) != "unsafe-subprocess"):
        raise typer.Exit(1)
