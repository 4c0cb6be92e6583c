r"""Agreement of the math verifier with Math-Verify's own test suite.

    pip download --no-binary :all: --no-deps math-verify==0.9.0 && tar xf math_verify-0.9.0.tar.gz
    python benchmarks/math_verdicts.py math_verify-0.9.0/tests

Reads the (reference, reply, verdict) rows of its parametrized tests where they lie; nothing of them is kept
here. Rows whose verdict is not what a careful reader of English numbers gives are named in `NOT_RIGHT` with the
reason; any other disagreement is printed. Without the folder it says so and ends with 0.
"""

import argparse
import ast
import math
from collections.abc import Iterator
from pathlib import Path

from vertigym.rewards.answers import boxed, last_line
from vertigym.rewards.math import equivalent

# part of the reference, part of the reply, why
NOT_RIGHT: list[tuple[str, str, str]] = [
    ("1000.99", "1000,99", "a decimal comma: asked for with decimal_mark"),
    ("1,22", "1.22", "a decimal comma"),
    ("2.74", "2,74", "a decimal comma"),
    ("0,111", "0.111", "a decimal comma"),
    (r"\frac{1}{3}\\", "0.33", "two places of 1/3"),
    (r"\frac{8}{3}", "2.6667", "four places of 8/3"),
    ("f(x)", "f(y)", "another variable: their option strict=False"),
    (r"x \in [-2,7]", r"\\le x", "its backslashes are doubled"),
    (r"\\boxed{35 cm}", "35 cm,4", "its backslashes are doubled"),
    (r"\\boxed{W(n)", "W(x)", "its backslashes are doubled, and it is cut off"),
    (r"\frac{1}{\mathrm{e}}", r"1 + \frac", "1 - 1/e is not 1 + 1/e"),
    ("rac{7}{4}", "rac{7}{4}", "a form feed, which ends a line, where the f of frac should be"),
    ("10455", "10,455", "the box holds another number"),
    (r"28 \%$. Final Answer", "", "the reference ends in a remark"),
    (r"\boxed{14{,}916}", "", "the reply ends in a remark"),
    ("10/9", r"\frac{1}{2} \$", "the reply says that 1/2 is 10/9"),
]
# Rows whose verdict is right and ours is not.
OURS: list[tuple[str, str, str]] = [
    ("(3, 3), (1, 1)", "for part (a)", "words between two boxes: only the last one counts"),
    ("papers and", "1,2", "the box of the reference is read, not the words between two of them"),
]


def rows(folder: Path) -> Iterator[tuple[str, str, bool]]:
    """(reference, reply, verdict) of every test that compares two texts."""
    for file in sorted(folder.glob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                yield from _parameters(node)


def _parameters(test: ast.FunctionDef) -> Iterator[tuple[str, str, bool]]:
    for decorator in test.decorator_list:
        if not isinstance(decorator, ast.Call) or len(decorator.args) < 2:
            continue
        names = [name.strip() for name in ast.literal_eval(decorator.args[0]).split(",")]
        if not {"gold", "pred"} < set(names):
            continue
        known = {"math": math, "__builtins__": {}}
        for row in eval(compile(ast.Expression(decorator.args[1]), "rows", "eval"), known):
            given = dict(zip(names, row, strict=True))
            yield given["gold"], given["pred"], bool(given.get("expected", given.get("result")))


def main() -> None:
    """Print the disagreements and a count."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder", type=Path)
    folder = arguments.parse_args().folder
    if not folder.is_dir():
        print(f"{folder}: not there; the first lines of this file say where it comes from")
        return
    agreed, counted = 0, 0
    for gold, reply, expected in rows(folder):
        compared = equivalent(boxed(gold) or gold, boxed(reply) or last_line(reply) or "", 20.0, False)
        same = (compared.verdict == "right") == expected
        theirs, ours = (
            next((why for g, r, why in listed if g in gold and r in reply and not same), None)
            for listed in (NOT_RIGHT, OURS)
        )
        agreed, counted = agreed + same, counted + (theirs is None)
        if not same:
            reason = theirs or f"OURS IS WRONG: {ours}"
            print(f"{reason} (not {expected}, {compared.verdict}): {gold[-60:]!r} {reply[-60:]!r}")
    print(f"{agreed} of {counted} rows agree where their verdict is right")


if __name__ == "__main__":
    main()
