"""The blocks of the documents, run as they stand: `python -m tests.doc_blocks [--write] [PAGE…]`.

A fence says by its language what is done with it:

    console         commands after `$ `; what they print is compared with what is shown
    sh              commands, which have to end with exit code 0
    python          run as it stands
    toml            read as what it is part of: a run's config, a suite, an `env.toml`, an import
    … title="NAME"  a file of an example, which has a test of its own
    anything else   only shown

A comment before it, which readers do not see, says what else is so:

    <!-- not run: REASON -->             it is only shown
    <!-- not run from 2 on: REASON -->   its commands from the second on are only shown
    <!-- needs: FILE -->                 it is run where that is there: data of others, in `shared`
    <!-- first: TEXT -->                 run before it: commands, or Python before Python
    <!-- file: NAME -->                  it is written to that file instead

The blocks of a page run in their order, in one empty folder where the project's own are linked. In what is
shown `…` stands for anything; line breaks, spaces, times and sizes of memory may differ. `--write` puts what
was printed in the place of what was shown, where it has no `…`.
"""

import argparse
import difflib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

from markdown_it import MarkdownIt
from pydantic import BaseModel

from vertigym.core.config import parse
from vertigym.trainer.recipe import load_stages

from .surface import ROOT, config_models

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
FILE = "a file"
LANGUAGES = {"console", "sh", "python", "toml", "json", "yaml", "text", FILE}
LINKED = ("benchmarks", "docs", "examples", "tests")
LIMIT_S = 180  # a command
NOTE = re.compile(r"<!-- (not run|needs|first|file)(?: from (\d+) on)?:\s(.+?)-->", re.DOTALL)
MEASURED = re.compile(
    r"(?<![\w.])\d[\d.,:]*(?=\s?(?:s|ms|seconds?|min|minutes?|MB|MiB|GB)\b)|\b\d+:\d\d:\d\d\b"
)
# What a part of a file is completed with before it is read.
COMPLETED: dict[str, dict[str, object]] = {
    "RunConfig": {"name": "run", "env": "an/Env-v0", "model": "tiny", "algorithm": "grpo", "steps": 1},
    "Suite": {"name": "suite", "env": [{"id": "vertigym/Returns-v0"}]},
    "RowsConfig": {"id": "an/Env-v0", "kind": "rows", "files": {"train": "train.jsonl"}},
    "ImportConfig": {},
}


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a block. `shown`: what it is said to print, None where nothing is; `lines`: where that
    stands in the block."""

    text: str
    shown: str | None = None
    lines: range = range(0)


@dataclass(frozen=True, slots=True)
class Block:
    """A fence, or an indented block (language `indented`). `line`: of its first line of text, from 0."""

    page: Path
    line: int
    language: str
    text: str
    comment: str

    def __str__(self) -> str:
        return (
            f"{self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page.name}:{self.line}"
        )

    def note(self, name: str) -> tuple[str, int]:
        """What the comment says under that name, or "", and from which command on."""
        found = next((match for match in NOTE.finditer(self.comment) if match[1] == name), None)
        return (found[3].strip(), int(found[2] or 1)) if found else ("", 1)

    def commands(self) -> list[Command]:
        """All of them, whether they are run or not."""
        lines, found, at = self.text.splitlines(), [], 0
        while at < len(lines):
            start, at = at, at + 1
            while lines[at - 1].endswith("\\") and at < len(lines):
                at += 1
            text = "\n".join(lines[start:at])
            if self.language == "console":
                first = at
                while at < len(lines) and not lines[at].startswith("$ "):
                    at += 1
                shown = "\n".join(lines[first:at]) if at > first else None
                found.append(Command(text.removeprefix("$ "), shown, range(self.line + first, self.line + at)))
            elif text.strip() and not text.startswith("#"):
                found.append(Command(text))
        return found

    def to_run(self) -> list[Command]:
        """The commands that are run as they stand; a Python block is one."""
        not_run, begin = self.note("not run")
        if self.language == "python":
            return [] if not_run else [Command(f"{self.note('first')[0]}\n{self.text}")]
        if self.language not in ("console", "sh"):
            return []
        return self.commands()[: begin - 1 if not_run else None]


def blocks(page: Path) -> Iterator[Block]:
    """Those of a page, in order."""
    comment = ""
    for token in MarkdownIt().parse(page.read_text()):
        match token.type, token.map:
            case "html_block", _:
                comment += token.content
            case ("fence" | "code_block") as kind, [first, _]:
                language = (token.info or "text").strip() if kind == "fence" else "indented"
                language = FILE if " title=" in language else language
                yield Block(page, first + (kind == "fence"), language, token.content, comment)
                comment = ""
            case _:
                comment = ""


def agrees(shown: str, printed: str) -> bool:
    """Whether that was printed, but for what may differ."""

    def words(text: str) -> str:
        return " ".join(MEASURED.sub("0", text).split())

    parts = (re.escape(part.strip()) for part in words(shown).split("…"))
    return re.fullmatch(" ?.*? ?".join(parts), words(printed), re.DOTALL) is not None


def read_part(text: str, source: str) -> None:
    """
    Raises:
        InputError: it is no part of any file that we read, or a wrong one.
    """
    table, models = tomllib.loads(text), config_models()
    if "project" in table:  # of somebody's pyproject.toml
        return
    if "stage" in table:
        with TemporaryDirectory() as folder:
            recipe = Path(folder, "recipe.toml")
            recipe.write_text(text)
            load_stages(recipe)
    elif "kind" in table:
        fitting = (model for model in models.values() if table["kind"] in kinds(model))
        parse(next(fitting), table, source=source)
    else:
        name = next((name for name in COMPLETED if table.keys() <= keys(models[name])), "RunConfig")
        parse(models[name], COMPLETED[name] | table, source=source)


def kinds(model: type[BaseModel]) -> tuple[object, ...]:
    """The kinds of environment whose `env.toml` it reads."""
    return get_args(model.model_fields["kind"].annotation) if "kind" in model.model_fields else ()


def keys(model: type[BaseModel]) -> set[str]:
    """The keys of a table, as they are written."""
    return {field.alias or name for name, field in model.model_fields.items()}


def run_page(page: Path, *, write: bool = False) -> tuple[int, list[str]]:
    """Run the blocks of a page; how many commands, and what is wrong."""
    done = 0
    faults: list[str] = []
    printed: list[tuple[range, list[str]]] = []
    with TemporaryDirectory() as folder:
        place = Path(folder)
        for name in LINKED:
            (place / name).symlink_to(ROOT / name)
        (place / "shared").symlink_to(ROOT.parent / "shared")
        for block in blocks(page):
            if file := block.note("file")[0]:
                (place / file).parent.mkdir(parents=True, exist_ok=True)
                (place / file).write_text(block.text)
                continue
            commands = block.to_run() if (place / block.note("needs")[0]).exists() else []
            if commands and block.language != "python" and (first := block.note("first")[0]):
                commands.insert(0, Command(first))
            for command in commands:
                print(f"{block}: {command.text.partition(chr(10))[0]}", flush=True)
                shell = [sys.executable, "-c"] if block.language == "python" else ["bash", "-c"]
                code, output = execute([*shell, command.text], place)
                fault = wrong(command, code, output)
                faults += [f"{block}: {command.text}\n{fault}"] if fault else []
                if fault and command.shown is not None and "…" not in command.shown:
                    printed.append((command.lines, output.rstrip().splitlines()))
            done += len(commands)
    if write:
        lines = page.read_text().splitlines()
        for where, found in reversed(printed):
            lines[where.start : where.stop] = found
        page.write_text("\n".join(lines) + "\n")
    return done, faults


def execute(command: list[str], folder: Path) -> tuple[int, str]:
    """Exit code, and what it printed on both streams."""
    env = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "112", "TERM": "dumb", "NO_COLOR": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=folder, env=env, timeout=LIMIT_S, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 124, f"not done after {LIMIT_S} s: it is no command of seconds"
    return done.returncode, re.sub(r" +$", "", done.stdout.replace(str(folder), ""), flags=re.MULTILINE)


def wrong(command: Command, code: int, output: str) -> str:
    """What differs from what the page says, or ""."""
    if command.shown is None:
        return f"exit code {code}: {output[-2000:]}" if code else ""
    if agrees(command.shown, output):
        return ""
    return "\n".join(
        difflib.unified_diff(command.shown.splitlines(), output.splitlines(), "page", "printed", n=0)
    )


def main() -> None:
    """Run the pages named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="*", type=Path)
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    faults: list[str] = []
    done = 0
    for page in [file.resolve() for file in asked.pages] or PAGES:
        ran, found = run_page(page, write=asked.write)
        done, faults = done + ran, faults + found
    print("\n\n".join(faults))
    print(f"{done} commands and Python blocks ran, {len(faults)} differ")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
