"""The command line: one module a group of commands, put together here.

Results go to stdout, as a table or with `--json` as one JSON value; progress and notes go to stderr. Heavy
imports happen inside the commands, so `--help` stays quick. `endings` has the exit codes.
"""

import os
import platform
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from vertigym import __version__
from vertigym.cli import (
    decisions,
    endings,
    envs,
    evals,
    interop,
    models,
    sandboxes,
    start,
    studio,
    tinker,
    traces,
    training,
)
from vertigym.core.errors import ConfigError
from vertigym.core.launched import launched, local_rank

app = typer.Typer(
    name="vertigym",
    help="Turn the rules, tests and traces of a business domain into RL environments, train a small model on "
    "them, and let evals decide which checkpoint ships.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    start.start,
    training.train,
    evals.eval_,
    evals.compare,
    interop.gate,
    training.rebase,
    training.report,
    studio.studio,
    traces.serve,
    tinker.tinker,
):
    app.command(command.__name__.rstrip("_"))(command)
envs.app.command("export")(interop.env_export)
envs.app.command("serve")(interop.env_serve)
envs.app.command("mcp")(interop.env_mcp)
for group, name in (
    (envs.app, "env"),
    (decisions.app, "rules"),
    (models.app, "model"),
    (sandboxes.app, "sandbox"),
    (traces.app, "traces"),
):
    app.add_typer(group, name=name)


def main() -> None:
    """Run the command line (`endings` says how it ends)."""
    # Before torch is imported: threads that spin while they wait stop each other where a core is shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    sys.exit(endings.run(app))


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    with_version: Annotated[
        bool, typer.Option("--version", help="Print this version and those it stands on.")
    ] = False,
) -> None:
    if with_version:
        print(f"vertigym {__version__}, Python {platform.python_version()}", *_versions(), sep=", ")
        raise typer.Exit
    if context.invoked_subcommand not in (None, "train"):
        _only_by_itself(str(context.invoked_subcommand))


def _versions() -> Iterator[str]:
    for package in ("torch", "transformers", "vllm"):
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:
            yield f"{package} not installed"


def _only_by_itself(command: str) -> None:
    """
    Raises:
        ConfigError: a launcher started this process among others, and they would all do the same.
    """
    if launched() == 1:
        return
    if local_rank():
        time.sleep(10)  # whoever ends first ends the others, so the one that speaks is to be first
    raise ConfigError(
        f"`vertigym {command}` runs in one process, and torchrun started {launched()} (WORLD_SIZE in the "
        "environment): start it without torchrun, which is for `vertigym train`"
    )
