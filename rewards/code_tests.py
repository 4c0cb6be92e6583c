"""The kinds of tests that judge a program: what a task's data says, read and checked.

- `cases`: calls of a function and what each must return;
- `asserts`: test code, each source passing when it raises nothing;
- `programs`: what goes in on stdin and what must come out on stdout;
- `pytest`: a project's own tests, of one function of a package;
- `image`: a repository's tests, in a container image of its own (read and listed only);
- `exit-status`: a command that exits with 0 when all is well.
"""

import ast
import warnings
from collections.abc import Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from vertigym.core.config import Config
from vertigym.core.errors import DataError
from vertigym.core.files import dumps
from vertigym.sandboxes import tagged_json
from vertigym.sandboxes.contract import CallArguments

PROTOCOLS = {
    "cases": "outputs compared outside",
    "asserts": "tests in a second sandbox",
    "programs": "outputs compared outside",
    "pytest": "tests in a second sandbox",
    "image": "tests in the project's image",
    "exit-status": "exit status (forgeable)",
}


class Case(Config):
    """One call: arguments and the expected result, as tagged JSON (`sandboxes.tagged_json`).

    `calls`: `entry` is a class, `args` are its constructor's, and these are calls of methods of the object,
    each `[name, args]` or `[name, args, kwargs]`; `expected` is the list of their results. `after`: the
    positional arguments as the call must leave them. `raises`: the name of the exception that must end it, with
    `message` if that is given.

    Raises:
        ValueError: neither `expected`, `after` nor `raises`.
    """

    args: list[Any] = Field(default_factory=list)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    calls: list[list[Any]] = Field(default_factory=list)
    expected: Any = None
    after: list[Any] | None = None
    raises: str = ""
    message: str | None = None

    @model_validator(mode="after")
    def _expects(self) -> Self:
        if not {"expected", "after", "raises"} & self.model_fields_set:
            raise ValueError("a case needs expected, after or raises")
        if any(len(one) not in (2, 3) or not isinstance(one[0], str) for one in self.calls):
            raise ValueError("calls are [name, args] or [name, args, kwargs]")
        return self


class Cases(Config):
    """Calls of `entry` and what they must return, to within `rel` and `abs` for floats. `as_json`: the expected
    values were written as JSON, which has no tuples, and only texts for keys; what comes back is compared as it
    would be written.
    """

    kind: Literal["cases"] = "cases"
    entry: str
    cases: list[Case] = Field(min_length=1)
    rel: float = Field(1e-6, ge=0)
    abs: float = Field(1e-9, ge=0)
    as_json: bool = False


class Asserts(Config):
    """Test sources, each passing when it raises nothing; `setup` runs first. `exports`: name in the tests ->
    function of the program, `class NAME` (a class under test), `exception NAME` (a class that its program
    raises) or `changes NAME` (a function whose changes to its arguments the tests see); `modules`: packages of
    the program's files the tests may import from."""

    kind: Literal["asserts"] = "asserts"
    setup: str = ""
    tests: list[str] = Field(min_length=1)
    exports: dict[str, str] = Field(default_factory=dict)
    modules: list[str] = Field(default_factory=list)


class InOut(Config):
    """What goes in on stdin and what must come out on stdout."""

    stdin: str = ""
    stdout: str


class Programs(Config):
    """Runs of the whole program. `numbers`: words that are numbers are compared by value (`1.50` is `1.5`).
    `checker`: where more than one answer is right, a program whose `check(stdin, printed, stdout)` returns
    whether what was printed is; it runs in a sandbox of its own."""

    kind: Literal["programs"] = "programs"
    runs: list[InOut] = Field(min_length=1)
    numbers: bool = False
    checker: str = ""


class PytestTests(Config):
    """A project's own tests (`path::name`, `path::Class::name`) of one function of its package, which the
    policy writes. `package` and `hidden`: path -> source of the package, which the program sees, and of the
    tests, which it does not; a path is also the module's name. `module`, `name`: which function (`total`,
    `Basket.total`)."""

    kind: Literal["pytest"] = "pytest"
    module: str
    name: str
    tests: list[str] = Field(min_length=1)
    package: dict[str, str]
    hidden: dict[str, str]


class ImageTests(Config):
    """A project's own tests in a container image of its own: `fail_to_pass` must pass after the change, and
    `pass_to_pass` still. Read and listed only: no sandbox here runs another image."""

    kind: Literal["image"] = "image"
    image: str
    repository: str
    commit: str
    test_patch: str
    fail_to_pass: list[str] = Field(min_length=1)
    pass_to_pass: list[str] = Field(default_factory=list)


class ExitStatus(Config):
    """A command that exits with 0 when all is well. Forgeable by what it tests, and said so in the Score."""

    kind: Literal["exit-status"] = "exit-status"
    argv: list[str] = Field(min_length=1)
    files: dict[str, str] = Field(default_factory=dict)


Tests = Cases | Asserts | Programs | PytestTests | ImageTests | ExitStatus
_TESTS: TypeAdapter[Tests] = TypeAdapter(Annotated[Tests, Field(discriminator="kind")])


def parse_tests(table: object, source: str = "tests") -> Tests:
    """Tests from a task's data.

    Raises:
        DataError: not one of the kinds, or a key is wrong.
    """
    try:
        return _TESTS.validate_python(table)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        raise DataError(f"{source}: {where or 'tests'}: {fault['msg']}") from None


def unasserted(tests: Asserts) -> tuple[int, ...]:
    """Numbers (from 0) of the tests in which nothing is asserted: they pass whatever the program gives."""
    return _unasserted(tests.setup, tuple(tests.tests))


@lru_cache(maxsize=1024)
def _unasserted(setup: str, tests: tuple[str, ...]) -> tuple[int, ...]:
    try:
        functions = [node for node in ast.walk(_parsed(setup)) if isinstance(node, ast.FunctionDef)]
        helpers = set[str]()
        while more := {f.name for f in functions if any(_asserts(f, helpers))} - helpers:
            helpers |= more
        return tuple(i for i, test in enumerate(tests) if not any(_asserts(_parsed(test), helpers)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()  # a test that cannot be read does not pass either


def _parsed(source: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def _asserts(tree: ast.AST, helpers: set[str]) -> Iterator[bool]:
    """For each place in `tree` whether it can fail a test: an assertion, a raise, a helper's call with
    one, a call of something named `assert…`, `raises`, `fail`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield called in helpers or called.lower().startswith(("assert", "raises", "fail"))
        else:
            yield isinstance(node, ast.Assert | ast.Raise)


def data(tagged: Any) -> Any:
    """Tagged JSON, already parsed, as a value."""
    try:
        return tagged_json.loads(dumps(tagged))
    except ValueError as error:
        raise DataError(f"a test case is not tagged JSON: {error}") from None


def data_each(tagged: Mapping[str, Any] = MappingProxyType({})) -> dict[str, Any]:
    """Values of tagged JSON, already parsed, as values."""
    return {key: data(value) for key, value in tagged.items()}


def arguments_of(case: Case) -> CallArguments:
    """What a case calls its function, or its class and the object's methods, with."""
    calls = [(name, data(args), data_each(*kwargs)) for name, args, *kwargs in case.calls]
    return CallArguments(tuple(data(case.args)), data_each(case.kwargs), calls, case.after is not None)
