"""`vertigym start`: from one file of a team to a project that trains."""

from pathlib import Path
from typing import Annotated

import typer

from vertigym.cli.console import Json, note, print_json, table


def start(
    file: Annotated[
        Path,
        typer.Argument(
            help="Rules (JDM, DMN, a table in csv or xlsx); questions and answers (columns of these names in "
            "jsonl, csv, parquet, or hf://owner/name); a log of calls; or a folder of pytest tests.",
            metavar="FILE",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The project's new folder.", metavar="DIR")],
    id: Annotated[  # noqa: A002
        str,
        typer.Option("--id", help="The environment's id. Default: by FILE.", metavar="NS/Name-v0"),
    ] = "",
    model: Annotated[
        str, typer.Option("-m", "--model", help="What to train: a model folder, org/name, or tiny.")
    ] = "tiny",
    column: Annotated[
        list[str] | None,
        typer.Option(
            help="Where a table has other names: question=problem, answer=solution (again for each).",
            metavar="OURS=THEIRS",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of what is sampled and split.")] = 0,
    as_json: Json = False,
) -> None:
    """Make a project of a file or of tests: environment, suites, recipe, README; say what was decided and why.

    Exit 1: `env check` finds a fault in the environment.
    """
    from vertigym.projects.project import start as make
    from vertigym.projects.questions import pairs

    found = make(file, out, id=id, model=model, seed=seed, columns=pairs(column or ()))
    sound = found.check.passed()
    if as_json:
        choices = [{"what": one.what, "chosen": one.chosen, "why": one.why} for one in found.choices]
        about = {"id": found.id, "folder": str(found.folder), "choices": choices, "notes": list(found.notes)}
        print_json(about | {"check": found.check.to_json(), "next": [command for command, _ in found.next]})
    else:
        table(
            f"{found.id} -> {found.folder}",
            ("", "", ""),
            [(one.what, one.chosen, one.why) for one in found.choices],
        )
        verdict = "passed" if sound else "failed"
        print(f"\nenv check: {verdict}, {len(found.check.results)} tests\n\nnext:")
        for command, what in found.next:
            print(f"  {command}\n      {what}")
        for line in found.notes:
            note(line)
    if not sound:
        raise typer.Exit(1)
