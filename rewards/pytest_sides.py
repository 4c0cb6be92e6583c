"""The two programs that a verdict by pytest takes: the package with the policy's function, and the tests.

Both are the text of `sandboxes.memory_tests` and a call of it. The tests' side has the package as it is but for
the one function, which it asks of the other side; the program's side never sees a test.
"""

from pathlib import Path

from vertigym.rewards.code_tests import PytestTests
from vertigym.rewards.removed_body import answered, dotted, marked
from vertigym.sandboxes import memory_tests

REMOTE = "__remote__"
NOTHING = "def assert_passed(test): raise AssertionError('there is no function to test')\n"
INSIDE = Path(memory_tests.__file__).read_text(encoding="utf-8")


def modules(files: dict[str, str]) -> dict[str, tuple[str, str]]:
    """By dotted name, as `memory_tests` takes them."""
    return {dotted(path): (path, source) for path, source in files.items()}


def exported(name: str) -> str:
    """What the tests reach: a function, or the class of a method."""
    owner, dot, _ = name.partition(".")
    return f"class {owner}" if dot else name


def two_sides(program: str, tests: PytestTests) -> tuple[str, str]:
    """(beside the policy's function, beside the tests). A program that is no Python, or lacks the function,
    fails to load, and no test runs."""
    package = modules(tests.package)
    path, source = package[tests.module]
    try:
        made = answered(source, tests.name, program)
    except NameError as error:
        return f"raise NameError({str(error)!r})", NOTHING
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return program, NOTHING
    ours = package | {tests.module: (path, made)}
    theirs = package | modules(tests.hidden) | {tests.module: (path, marked(source, tests.name))}
    name = tests.name.partition(".")[0]
    return (
        f"{INSIDE}\n{name} = load({ours!r}, {tests.module!r})\n",
        f"{INSIDE}\nassert_passed = judge({theirs!r}, {tests.tests!r}, {REMOTE})\n",
    )
