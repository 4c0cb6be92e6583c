"""What users and programs hold on to, as text: exports, commands with their options, config keys, metric names.

`tests/surface.txt` is the frozen copy. A change to it is made on purpose, by

    python -m tests.surface

and is listed in CHANGELOG.md.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, get_args

import typer
from pydantic import BaseModel

from vertigym import cli

FROZEN = Path(__file__).with_suffix(".txt")
ROOT = Path(__file__).parents[1]
CONFIGS = (
    "vertigym.trainer.config:RunConfig",
    "vertigym.evals.suite:Suite",
    "vertigym.envs.decision.config:DecisionConfig",
    "vertigym.envs.agent.config:AgentConfig",
    "vertigym.envs.rows:RowsConfig",
    "vertigym.envs.program.env:ProgramConfig",
    "vertigym.envs.code.env:FolderConfig",
    "vertigym.envs.logged.kinds:ClassifyConfig",
    "vertigym.envs.logged.kinds:ExtractConfig",
    "vertigym.envs.logged.kinds:RewriteConfig",
    "vertigym.envs.logged.kinds:CiteConfig",
    "vertigym.envs.logged.kinds:OutcomeConfig",
    "vertigym.traces.config:ImportConfig",
)


def surface() -> str:
    """The whole of it, one thing a line."""
    sections = {"exports": exports(), "commands": commands(), "config": configs(), "metrics": metrics()}
    return "".join(f"[{name}]\n" + "".join(f"{line}\n" for line in lines) for name, lines in sections.items())


def exports() -> list[str]:
    """Names that a room offers: those in the `__all__` of a package."""
    found = []
    for file in [ROOT / "__init__.py", *sorted(ROOT.glob("[!.]*/__init__.py"))]:
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                room = ".".join(("vertigym", *file.parent.relative_to(ROOT).parts))
                found += [f"{room}.{name}" for name in ast.literal_eval(node.value)]
    return found


def commands() -> list[str]:
    """Every command with its arguments and options."""
    return [" ".join([words, *map(written, command.params)]) for words, command in all_commands()]


def all_commands() -> Iterator[tuple[str, Any]]:
    """Every command with its words, `vertigym env show`."""

    def walk(command: Any, words: str) -> Iterator[tuple[str, Any]]:
        for name, sub in getattr(command, "commands", {}).items():
            yield from walk(sub, f"{words} {name}")
        if not hasattr(command, "commands"):
            yield words, command

    return walk(typer.main.get_command(cli.app), "vertigym")


def written(parameter: Any) -> str:
    """An option with its other names, or an argument in capitals."""
    return "/".join(parameter.opts) if parameter.opts[0][0] == "-" else str(parameter.name).upper()


def configs() -> list[str]:
    """Every key that a TOML file may hold, with its section."""

    def walk(model: type[BaseModel], path: str) -> Iterator[str]:
        for name, field in model.model_fields.items():
            section = next((m for m in sections(field.annotation)), None)
            yield f"{path}{field.alias or name}"
            if section:
                yield from walk(section, f"{path}{field.alias or name}.")

    return [key for name, model in config_models().items() for key in walk(model, f"{name}: ")]


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The tables that a key may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from sections(argument)


def config_models() -> dict[str, type[BaseModel]]:
    """What reads a TOML file, by name."""
    return {config.partition(":")[2]: resolve_name(config) for config in CONFIGS}


def metrics() -> list[str]:
    """The names in `metrics.jsonl`: what docs/training.md lists in its table."""
    text = (ROOT / "docs" / "training.md").read_text()
    table = text.partition("## What the metrics mean")[2].partition("\n## ")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


if __name__ == "__main__":
    FROZEN.write_text(surface())
