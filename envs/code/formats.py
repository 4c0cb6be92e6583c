"""Tasks from the files people have: HumanEval and MBPP, also as EvalPlus writes them (`contests` has the
others).

Every task carries its tests in `info["tests"]` (`rewards.code_tests`), and the name its function must have in
`info["entry"]` (empty for whole programs). `info["before"]` is put before the policy's code: what the prompt
already gives.
"""

import ast
import gzip
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vertigym.core.errors import DataError
from vertigym.core.files import read_json, read_jsonl
from vertigym.core.seeds import derive
from vertigym.core.types import Split, Task

ASK_FUNCTION = "Complete this Python function. Answer with the whole function in one Python code block.\n\n"


def split_of(task_id: str) -> Split:
    """80% train, 10% eval, 10% test, by the id alone."""
    drawn = derive("code split", task_id) % 10
    return "train" if drawn < 8 else "eval" if drawn == 8 else "test"


def humaneval(path: Path, split: Callable[[str], Split] = split_of) -> list[Task]:
    """Tasks of a HumanEval file (`.jsonl` or `.jsonl.gz`).

    Raises:
        DataError: missing, or a row lacks a key.
    """
    return [task_of(_humaneval_task, row, path, number, split) for number, row in enumerate(rows_of(path), 1)]


def mbpp(path: Path, split: Callable[[str], Split] = split_of) -> list[Task]:
    """Tasks of an MBPP file: a JSON list (the sanitized form) or JSONL.

    Raises:
        DataError: missing, or a row lacks a key.
    """
    rows = read_json(path) if path.suffix == ".json" else rows_of(path)
    return [task_of(_mbpp_task, row, path, number, split) for number, row in enumerate(rows, 1)]


def _humaneval_task(row: dict[str, Any], split: Callable[[str], Split]) -> Task:
    entry, prompt = row["entry_point"], row["prompt"]
    before = prompt[: prompt.rindex(f"def {entry}")]
    setup, tests = split_check(row["test"])
    return Task(
        id=row["task_id"],
        prompt=f"{ASK_FUNCTION}```python\n{prompt}```",
        answer=f"```python\n{prompt}{row['canonical_solution']}```",
        info={
            "entry": entry,
            "before": before,
            "signature": prompt,
            "tests": {
                "kind": "asserts",
                "setup": before + setup,
                "tests": tests,
                "exports": {
                    name: export(entry, _parse(prompt), [row["test"]]) for name in ("candidate", entry)
                },
            },
        },
        split=split(row["task_id"]),
        cluster=row["task_id"],
    )


def _mbpp_task(row: dict[str, Any], split: Callable[[str], Split]) -> Task:
    tests, program = [row["test"]] if row.get("test") else row["test_list"], _parse(row["code"])
    defined = [node.name for node in program.body if isinstance(node, _DEFINITIONS)]
    # The tests were written to run below the program, and may use what it imports.
    imports = [ast.unparse(node) for node in program.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    setup = "\n".join([*imports, *row.get("test_imports", [row.get("test_setup_code", "")])])
    used = {n.id for test in [setup, *tests] for n in ast.walk(_parse(test)) if isinstance(n, ast.Name)}
    exports = {name: export(name, program, [setup, *tests]) for name in defined if name in used}
    entry = next(iter(exports), defined[-1] if defined else "")
    name = f"mbpp/{row['task_id']}"
    return Task(
        id=name,
        prompt=f"{row.get('prompt') or row['text']}\n\n"
        f"Your code must pass this test:\n{row['test_list'][0]}\n\n"
        "Answer with one Python code block.",
        answer=f"```python\n{row['code']}\n```",
        info={
            "entry": entry,
            "before": "",
            "tests": {
                "kind": "asserts",
                "setup": setup,
                "tests": tests,
                "exports": exports,
            },
        },
        split=split(name),
        cluster=name,
    )


_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def export(name: str, program: ast.Module, tests: list[str]) -> str:
    """How tests reach what a program defines (`rewards.code_tests.Asserts`): a class under test, an exception,
    a function that a test calls for what it does to its arguments, or a function."""
    for node in program.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            raised = any(ast.unparse(base).endswith(("Error", "Exception")) for base in node.bases)
            return f"exception {name}" if raised else f"class {name}"
    statements = (node.value for test in tests for node in ast.walk(_parse(test)) if isinstance(node, ast.Expr))
    called = (one.func for one in statements if isinstance(one, ast.Call))
    return f"changes {name}" if any(isinstance(one, ast.Name) and one.id == name for one in called) else name


def split_check(source: str) -> tuple[str, list[str]]:
    """A `check(candidate)` of plain asserts as separate tests; another one as a single test."""
    tree = _parse(source)
    check = next(n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "check")
    if not all(isinstance(statement, ast.Assert) for statement in check.body):
        return source, ["check(candidate)"]
    tree.body.remove(check)
    return ast.unparse(tree), [ast.unparse(statement) for statement in check.body]


def _parse(source: str) -> ast.Module:
    """The syntax tree; old escapes in other people's strings are theirs to fix."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def rows_of(path: Path) -> list[Any]:
    """The rows of JSONL, also compressed.

    Raises:
        DataError: missing, or no JSONL.
    """
    if path.suffix != ".gz":
        return read_jsonl(path)
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not gzip JSONL: {error}") from None


def task_of(
    make: Callable[[dict[str, Any], Callable[[str], Split]], Task],
    row: Any,
    path: Path,
    number: int,
    split: Callable[[str], Split],
) -> Task:
    """The task of a row.

    Raises:
        DataError: it lacks a key, with its place.
    """
    try:
        return make(row, split)
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        raise DataError(
            f"{path}:{number}: not a task of this format: {type(error).__name__}: {error}"
        ) from None
