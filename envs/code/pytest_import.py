"""From a project's own tests to code tasks: a function of the package loses its body, its tests stay hidden.

    import_tests(Path("tests"), "acme/Shop-v0", Path("environments/shop"), package=Path("src"))

A test judges a function if it passes with the original body and fails without one, both as a verdict is made:
in a sandbox, with only data between the function and the tests (`rewards.pytest_sides`). The one idea: nothing
is guessed from names or imports. The tests run once to see which functions each one enters; what is then tried
is what a policy's answer will go through. Each function that gave no task is named, with the reason.
"""

import ast
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tomli_w

from vertigym.core.errors import ConfigError, DataError, MissingDependencyError
from vertigym.core.files import write_jsonl, write_text
from vertigym.core.manifest import claim_folder, sealed_folder
from vertigym.core.seeds import derive
from vertigym.core.types import SPLITS, Split
from vertigym.envs.code.pytest_files import FORMAT, TASKS, TestedProject, read_project
from vertigym.envs.code.pytest_prompt import prompt_of
from vertigym.envs.decision.config import FOLDER
from vertigym.envs.registry import is_env_id
from vertigym.rewards.code import Verifier
from vertigym.rewards.code_tests import PytestTests
from vertigym.rewards.code_verdict import Checked
from vertigym.rewards.pytest_sides import INSIDE, modules
from vertigym.rewards.removed_body import dotted, hollow, original, places, repeated
from vertigym.sandboxes import Job, JobLimits, JobOutcome, call, shared_pool

_MOST_CPU_S = 10.0  # of one verdict
_LEAST_CPU_S, _ROOM = 2.0, 4.0  # of an environment's limit: at least, and times what the slowest original takes
_SURVEY = JobLimits(cpu_s=120, wall_s=300, result_bytes=64 << 20)
_MOST_TESTS = 10  # of one function: those that enter the fewest others
_NAMED = 6  # of each reason, and of the reasons of tests
_TOGETHER = 16  # functions that are tried side by side
_HELD_OUT = 0.2  # for evals, and again for the release

NO_PYTHON = "its file is no Python that can be read here"
TWICE = "its name stands in the module more than once"
NO_TEST = "no test enters it"
NO_BODY = "it has no body to write"
BROKEN = "the tests that enter it do not pass in the sandbox"
WITHOUT = "its tests pass without its body"
NOT_DATA = "with its own body its tests fail where only data crosses between the two"
UNSTABLE = "its tests do not agree from run to run"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A function that gave no task: one of the reasons above, and what was seen."""

    function: str
    reason: str
    seen: str = ""


@dataclass(frozen=True, slots=True)
class PytestImport:
    """What an import made. `unused`: test or file -> why it judges nothing."""

    id: str
    folder: Path
    counts: Mapping[Split, int]
    tests: int
    used: int
    refused: tuple[Refusal, ...]
    unused: Mapping[str, str]

    @property
    def reasons(self) -> Mapping[str, int]:
        """How many functions were refused, by reason."""
        return dict(Counter(one.reason for one in self.refused).most_common())


@dataclass(slots=True)
class _Function:
    """One function on its way to a task."""

    module: str
    name: str
    source: str
    tests: list[str] = field(default_factory=list)
    cpu_s: float = 0.0  # of a verdict on the original

    @property
    def id(self) -> str:
        return f"{self.module}.{self.name}"


def import_tests(
    tests: Path,
    id: str,  # noqa: A002
    out: Path,
    *,
    package: Path,
    force: bool = False,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> PytestImport:
    """Make an environment of the functions that a project's tests judge.

    Raises:
        DataError: a path is wrong, nothing can be imported, no function gives a task. ConfigError: a wrong id.
        OutputError: as `claim_folder`. MissingDependencyError: pytest. SandboxError: no sandbox.
    """
    if not is_env_id(id):
        raise ConfigError(f"environment id {id!r}: the form is namespace/Name-v0")
    claim_folder(out, FOLDER, force=force)
    if find_spec("pytest") is None:
        raise MissingDependencyError("pytest", "pytest", "tasks from tests")
    project = read_project(tests, package)
    faults, entered, broken = _survey(project)
    functions, refused = _functions(project, faults, entered)
    verifier = Verifier(limits=JobLimits(cpu_s=_MOST_CPU_S, wall_s=4 * _MOST_CPU_S), cache=0)
    kept: list[_Function] = []
    for start in range(0, len(functions), _TOGETHER):
        part = functions[start : start + _TOGETHER]
        refused += _tried(verifier, project, part)
        kept += [one for one in part if one.tests]
        on_done(min(start + _TOGETHER, len(functions)), len(functions))
    if len(kept) < len(SPLITS):
        raise DataError(_nothing(tests, package, kept, refused, faults, broken))
    splits = _splits([one.id for one in kept])
    used = {test for one in kept for test in one.tests}
    with sealed_folder(out, FOLDER, force=force) as folder:
        write_text(folder / "env.toml", _config(id, package, max(one.cpu_s for one in kept)))
        project.write(folder)
        write_jsonl(folder / TASKS, [_row(one, splits[one.id]) for one in kept])
    counts: dict[Split, int] = {split: sum(s == split for s in splits.values()) for split in SPLITS}
    idle = "the functions it enters are judged by others, or not at all"
    unused = {test: fault or idle for test, fault in faults.items() if test not in used}
    return PytestImport(
        id, out, counts, len(faults), len(used), tuple(refused), {**project.left_out, **broken, **unused}
    )


def import_lines(report: PytestImport) -> Iterator[str]:
    """What an import made, and what it could not use and why, for people."""
    counts = ", ".join(f"{count} {split}" for split, count in report.counts.items())
    yield f"{report.id} -> {report.folder}"
    yield f"tasks:     {counts}, a function each; {report.used} of {report.tests} tests judge them"
    yield f"refused:   {len(report.refused)} functions"
    for reason, count in report.reasons.items():
        ones = [one for one in report.refused if one.reason == reason]
        named = ", ".join(one.function for one in ones[:_NAMED])
        yield f"  {count}  {reason}: {named}{' …' * (count > _NAMED)}"
        if seen := next((one for one in ones if one.seen), None):
            yield f"     for example {seen.function}: {seen.seen.splitlines()[0]}"
    whys = Counter(report.unused.values()).most_common()
    if whys:
        yield f"unused:    {len(report.unused)} tests and files"
    for why, count in whys[:_NAMED]:
        yield f"  {count}  {next(test for test, one in report.unused.items() if one == why)}: {why}"


def _survey(project: TestedProject) -> tuple[dict[str, str], dict[str, list[str]], dict[str, str]]:
    """(test -> why it is of no use, test -> the functions it enters, file -> why it cannot be read)."""
    all_modules = {**modules(project.package), **modules(project.hidden)}
    jobs = [
        Job(INSIDE, call="survey", inputs=[call(all_modules, [path])], profile="pytest", limits=_SURVEY)
        for path in project.paths
    ]
    faults: dict[str, str] = {}
    entered: dict[str, list[str]] = {}
    broken: dict[str, str] = {}
    for path, outcome in zip(project.paths, shared_pool().run_many(jobs), strict=True):
        found = _value(outcome)
        if isinstance(found, str):
            broken[path] = found
            continue
        faults |= found["faults"]
        entered |= found["entered"]
        broken |= found["broken"]
    return faults, entered, broken


def _value(outcome: JobOutcome) -> dict[str, Any] | str:
    """What a survey gave, or why it gave nothing."""
    reply = outcome.result[0] if outcome.result else outcome.failure
    if reply is None:
        return f"it did not end ({outcome.status})"
    return f"{reply.error}: {reply.message}" if reply.error else dict(reply.value)


def _functions(
    project: TestedProject, faults: Mapping[str, str], entered: Mapping[str, Sequence[str]]
) -> tuple[list[_Function], list[Refusal]]:
    """The functions that tests enter, each with those that pass; and the others, refused."""
    by_place: dict[str, list[str]] = {}
    for test in sorted(entered, key=lambda one: (len(entered[one]), one)):
        for place in entered[test]:
            by_place.setdefault(place, []).append(test)
    functions, refused = list[_Function](), list[Refusal]()
    for path, source in project.package.items():
        try:
            found, twice = places(source), repeated(source)
        except (SyntaxError, ValueError, RecursionError) as error:
            refused.append(Refusal(dotted(path), NO_PYTHON, str(error)))
            continue
        refused += [Refusal(f"{dotted(path)}.{name}", TWICE) for name in sorted(twice)]
        for name, at in found.items():
            one = _Function(dotted(path), name, source)
            reached = by_place.get(f"{path}:{name}", [])
            one.tests = [test for test in reached if not faults[test]][:_MOST_TESTS]
            if _is_empty(at.node):
                refused.append(Refusal(one.id, NO_BODY))
            elif one.tests:
                functions.append(one)
            else:
                seen = f"{reached[0]}: {faults[reached[0]]}" if reached else ""
                refused.append(Refusal(one.id, BROKEN if reached else NO_TEST, seen))
    return functions, refused


def _is_empty(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Nothing but a docstring, `pass`, `...` or `raise NotImplementedError`."""
    return all(
        isinstance(one, ast.Pass)
        or (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
        or (isinstance(one, ast.Raise) and one.exc is not None and "NotImplemented" in ast.unparse(one.exc))
        for one in node.body
    )


def _tried(verifier: Verifier, project: TestedProject, functions: Sequence[_Function]) -> list[Refusal]:
    """Leave each function the tests that judge it; why, for those that have none."""
    whole = [(original(one.source, one.name), _tests(project, one)) for one in functions]
    empty = [(_emptied(one), tests) for one, (_, tests) in zip(functions, whole, strict=True)]
    checked = verifier.check_many([*whole, *empty])
    refused = list[Refusal]()
    for one, right, wrong in zip(functions, checked, checked[len(functions) :], strict=False):
        passed = [
            (test, not fails)
            for test, ok, fails in zip(one.tests, right.passed, wrong.passed, strict=True)
            if ok
        ]
        one.tests = [test for test, judges in passed if judges]
        if not one.tests:
            seen = "" if passed else next(note for note in right.notes if note)
            refused.append(Refusal(one.id, WITHOUT if passed else NOT_DATA, seen))
    left = [one for one in functions if one.tests]
    again: list[Checked] = verifier.check_many(
        [(original(one.source, one.name), _tests(project, one)) for one in left]
    )
    for one, right in zip(left, again, strict=True):
        one.cpu_s = right.cpu_s
        if not right.all_pass:
            one.tests = []
            refused.append(Refusal(one.id, UNSTABLE, next(filter(None, right.notes), str(right.status))))
    return refused


def _tests(project: TestedProject, one: _Function) -> PytestTests:
    return PytestTests(
        module=one.module, name=one.name, tests=one.tests, package=project.package, hidden=project.hidden
    )


def _emptied(one: _Function) -> str:
    place = places(one.source)[one.name]
    node = type(place.node)(**{**vars(place.node), "body": [ast.Pass()]})
    return ast.unparse(ast.fix_missing_locations(node))


def _row(one: _Function, split: Split) -> dict[str, Any]:
    return {
        "id": one.id,
        "prompt": prompt_of(one.source, one.module, one.name),
        "answer": f"```python\n{original(one.source, one.name)}```",
        "split": split,
        "cluster": one.id,
        "info": {
            "entry": one.name.rpartition(".")[2],
            "signature": hollow(one.source, one.name),
            "tests": {"kind": "pytest", "module": one.module, "name": one.name, "tests": one.tests},
        },
    }


def _splits(ids: Sequence[str]) -> dict[str, Split]:
    """By the ids alone; no split is empty."""
    drawn = sorted(ids, key=lambda one: derive("pytest split", one))
    held = max(1, round(len(ids) * _HELD_OUT))
    return {one: "eval" if at < held else "test" if at < 2 * held else "train" for at, one in enumerate(drawn)}


def _config(id: str, package: Path, slowest_s: float) -> str:  # noqa: A002
    about = f"Write a function of {package.name} whose body is gone; the project's own tests decide."
    cpu_s = min(_MOST_CPU_S, max(_LEAST_CPU_S, round(_ROOM * slowest_s, 1)))
    table = {"id": id, "kind": "code", "format": FORMAT, "files": [TASKS], "cpu_s": cpu_s}
    return tomli_w.dumps({**table, "description": about})


def _nothing(
    tests: Path,
    package: Path,
    kept: Sequence[_Function],
    refused: Sequence[Refusal],
    faults: Mapping[str, str],
    broken: Mapping[str, str],
) -> str:
    """Why there is no environment: the first thing that went wrong for most."""
    if not faults and broken:
        path, why = next(iter(broken.items()))
        return f"{tests}: no test file can be imported, {path}: {why} (is {package} what they test?)"
    reasons = Counter(one.reason for one in refused).most_common(2)
    said = (
        "; ".join(f"{count} functions: {reason}" for reason, count in reasons) or "the package has no function"
    )
    return f"{tests}: {len(kept)} functions of {package} give a task, and three splits need one each: {said}"
