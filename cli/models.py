"""`vertigym model`: whether a model trains right here."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from vertigym.cli.console import Json, note, print_json, table

app = typer.Typer(help="Models: whether one trains right here.", no_args_is_help=True)


@app.command("check")
def model_check(
    folder: Annotated[Path, typer.Argument(help="A Hugging Face model folder.", metavar="FOLDER")],
    as_json: Json = False,
) -> None:
    """Compare every way to compute with a model: engine, trainer, adapters, exported. Exit 1: it is refused."""
    from vertigym.trainer.model_check import check_model, verdict_of

    checks = []
    for check in check_model(folder):
        checks.append(check)
        note(f"{check.name}: {check.verdict}")
    verdict = verdict_of(checks)
    if as_json:
        found = [dataclasses.asdict(check) for check in checks]
        print_json({"model": str(folder), "verdict": verdict, "checks": found})
    else:
        table(f"{folder}: {verdict}", ("check", "", ""), [(c.name, c.verdict, c.detail) for c in checks])
    if verdict == "refused":
        raise typer.Exit(1)
