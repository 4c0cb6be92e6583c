"""Tasks from the files of contests: APPS and TACO, LiveCodeBench, and LeetCode's `class Solution`.

One reader a row's shape, chosen by its keys. Whole programs read stdin; functions (`fn_name`, `testtype:
functional`) are called with JSON values, and what they return is compared as JSON writes it, which has no
tuples.
"""

import ast
import base64
import io
import json
import pickle  # nothing but text is read from it: see _Text
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vertigym.core.types import Split, Task
from vertigym.envs.code.formats import rows_of, split_check, split_of, task_of

ASK_PROGRAM = (
    "Write a Python program that reads from stdin and prints to stdout. Answer with one code block.\n\n"
)
ASK_METHOD = "Complete this Python code. Answer with all of it in one Python code block.\n\n"
# What solutions on these sites may use without importing it.
PRELUDE = (
    "import bisect, collections, functools, heapq, itertools, math, operator, random, re, string, sys\n"
    "from bisect import *\nfrom collections import *\nfrom functools import *\nfrom heapq import *\n"
    "from itertools import *\nfrom math import *\nfrom typing import *\n"
)
_MOST_BYTES = 1 << 28  # of a compressed column, unpacked


def stdin_programs(path: Path, split: Callable[[str], Split] = split_of) -> list[Task]:
    """Tasks of APPS, TACO or LiveCodeBench (JSONL): `question` or `question_content`, and either `input_output`
    (with `inputs`, `outputs` and for functions `fn_name`, as an object or as JSON text) or `public_test_cases`
    and `private_test_cases` (JSON text, the latter also compressed).

    Raises:
        DataError: missing, or a row lacks a key.
    """
    return [task_of(_contest_task, row, path, number, split) for number, row in enumerate(rows_of(path), 1)]


def leetcode(path: Path, split: Callable[[str], Split] = split_of) -> list[Task]:
    """Tasks of LeetCode's form (JSONL): `starter_code` with a `class Solution`, `entry_point`
    (`Solution().method`), `test` with a `check(candidate)`, `prompt` with what is imported before, `completion`
    with a solution.

    Raises:
        DataError: missing, or a row lacks a key.
    """
    return [task_of(_leetcode_task, row, path, number, split) for number, row in enumerate(rows_of(path), 1)]


def _contest_task(row: dict[str, Any], split: Callable[[str], Split]) -> Task:
    question = row.get("question") or row["question_content"]
    name = str(row.get("id") or row.get("problem_id") or row["question_id"])
    starter = row.get("starter_code") or ""
    tests, public = (
        _live_tests(row, starter) if "public_test_cases" in row else (_apps_tests(row, starter), None)
    )
    solutions = _parsed(row.get("solutions") or [])
    called = tests["kind"] == "cases"
    ask = ASK_METHOD if called else ASK_PROGRAM
    return Task(
        id=name,
        prompt=ask + question + (f"\n\n```python\n{starter}\n```" if starter else ""),
        answer=f"```python\n{solutions[0]}\n```" if solutions else None,
        info={
            "entry": tests["entry"].partition(".")[0] if called else "",
            "before": PRELUDE if called else "",
            "tests": tests,
            **({"public": public} if public else {}),
        },
        split=split(name),
        cluster=name,
    )


def _apps_tests(row: dict[str, Any], starter: str) -> dict[str, Any]:
    given = _parsed(row["input_output"])
    pairs = list(zip(given["inputs"], given["outputs"], strict=True))
    if function := given.get("fn_name"):
        # A result is written as a list of one where all are.
        wrapped = all(isinstance(out, list) and len(out) == 1 for _, out in pairs)
        return _calls(function, starter, [(args, out[0] if wrapped else out) for args, out in pairs])
    return _runs([(_text(stdin), _text(stdout)) for stdin, stdout in pairs])


def _live_tests(row: dict[str, Any], starter: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """(all tests, the public ones)."""
    public, private = _parsed(row["public_test_cases"]), _unpacked(row.get("private_test_cases") or "[]")
    function = _parsed(row.get("metadata") or "{}").get("func_name")

    def made(listed: list[dict[str, Any]]) -> dict[str, Any]:
        if all(one["testtype"] == "functional" for one in listed):
            lines = [[json.loads(line) for line in one["input"].splitlines() if line.strip()] for one in listed]
            wanted = [json.loads(one["output"]) for one in listed]
            return _calls(function, starter, list(zip(lines, wanted, strict=True)))
        return _runs([(one["input"], one["output"]) for one in listed])

    return made([*public, *private]), made(public) if public else None


def _calls(function: str, starter: str, pairs: list[tuple[list[Any], Any]]) -> dict[str, Any]:
    entry = f"Solution.{function}" if "class Solution" in starter else function
    cases = [{"args": _tagged(args), "expected": _tagged(expected)} for args, expected in pairs]
    return {"kind": "cases", "entry": entry, "cases": cases, "as_json": True}


def _runs(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    runs = [{"stdin": stdin, "stdout": stdout} for stdin, stdout in pairs]
    return {"kind": "programs", "runs": runs, "numbers": True}


def _tagged(value: Any) -> Any:
    """JSON as tagged JSON, which writes objects as pairs."""
    if isinstance(value, dict):
        return {"dict": [[key, _tagged(item)] for key, item in value.items()]}
    return [_tagged(item) for item in value] if isinstance(value, list) else value


def _leetcode_task(row: dict[str, Any], split: Callable[[str], Split]) -> Task:
    name, before = str(row.get("task_id") or row["question_id"]), row.get("prompt") or PRELUDE
    method = row["entry_point"].replace("()", "")
    setup, tests = split_check(row["test"])
    return Task(
        id=name,
        prompt=f"{ASK_METHOD}{row.get('problem_description', '')}\n\n```python\n{row['starter_code']}\n```",
        answer=f"```python\n{row['completion']}\n```" if row.get("completion") else None,
        info={
            "entry": method.partition(".")[0],
            "before": f"{before}\n",
            "tests": {
                "kind": "asserts",
                "setup": f"{before}\n{setup}",
                "tests": tests,
                "exports": {"candidate": method},
            },
        },
        split=split(name),
        cluster=name,
    )


class _Text(pickle.Unpickler):
    """Reads texts and lists of them, and refuses every class: nothing in a data file runs here."""

    def find_class(self, module: str, name: str) -> Any:
        """Refuse.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"a compressed column that wants {module}.{name}")


def _unpacked(column: Any) -> Any:
    """JSON text, or the same compressed the way LiveCodeBench does: base64 of zlib of a pickled text."""
    if not isinstance(column, str) or column.lstrip().startswith(("[", "{")):
        return _parsed(column)
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(base64.b64decode(column), _MOST_BYTES)
        text = _Text(io.BytesIO(data)).load()
    except Exception as error:  # a broken or hostile pickle raises what it likes
        raise ValueError(f"a compressed column that is no text: {error}") from None
    if unpacker.unconsumed_tail:
        raise ValueError(f"a compressed column of more than {_MOST_BYTES >> 20} MiB")
    return _parsed(text)


def _parsed(column: Any) -> Any:
    """A column that is JSON text or already what the text says; lists of solutions are also written as
    Python's."""
    if not isinstance(column, str):
        return column
    try:
        return json.loads(column)
    except ValueError:
        pass
    try:
        return ast.literal_eval(column)
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError("a column that is neither JSON nor a list as Python writes it") from None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "\n".join(map(str, value))
