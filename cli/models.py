"""`vertigym model`: whether a model trains right here; model folders of GGUF files and `tinker://` weights."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from vertigym.cli.console import Force, Json, note, print_json, table
from vertigym.core.errors import ConfigError

app = typer.Typer(
    help="Models: whether one trains right here; model folders of GGUF files and tinker:// weights.",
    no_args_is_help=True,
)


@app.command("check")
def model_check(
    model: Annotated[
        str,
        typer.Argument(
            help="A model folder, a run's folder, or org/name[@REVISION] on the hub.", metavar="MODEL"
        ),
    ],
    as_json: Json = False,
) -> None:
    """Compare every way to compute with a model: engine, trainer, adapters, exported. Exit 1: it is refused."""
    from vertigym.policies.model_source import find_model
    from vertigym.trainer.model_check import check_model, verdict_of

    source, checks = find_model(model), []
    for check in check_model(source.folder):
        checks.append(check)
        note(f"{check.name}: {check.verdict}")
    verdict = verdict_of(checks)
    if as_json:
        found = [dataclasses.asdict(check) for check in checks]
        print_json({"model": source.name, "verdict": verdict, "checks": found})
    else:
        table(f"{source.name}: {verdict}", ("check", "", ""), [(c.name, c.verdict, c.detail) for c in checks])
    if verdict == "refused":
        raise typer.Exit(1)


@app.command("import")
def model_import(
    file: Annotated[
        str,
        typer.Argument(
            help="A file, org/name/FILE.gguf[@REVISION] on the hub, or tinker://PATH[@STORE].",
            metavar="FILE.gguf",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.", metavar="DIR")],
    tokenizer: Annotated[
        str,
        typer.Option(
            help="Take the tokenizer of this model, not the file's: a folder or org/name.", metavar="MODEL"
        ),
    ] = "",
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Make a model folder (float32) of a GGUF file, with its tokenizer, chat template and stop tokens; or of
    weights that a client of `vertigym tinker` saved, merged into their base."""
    from vertigym.policies.gguf_import import import_gguf
    from vertigym.policies.tinker_weights import SCHEME, export_weights

    if file.startswith(SCHEME):
        if tokenizer:
            raise ConfigError("--tokenizer: weights of Tinker have the tokenizer of their base; leave it out")
        found = {"folder": str(out), "base": str(export_weights(file, out, force=force))}
    else:
        found = dataclasses.asdict(import_gguf(file, out, tokenizer=tokenizer, force=force))
    if as_json:
        print_json(found)
        return
    table(f"imported {file}", ("", ""), [(key, str(value)) for key, value in found.items()])
    note(f"next: vertigym model check {out}")
