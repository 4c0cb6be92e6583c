"""Weak tests of code tasks: which mutants of the reference pass them, and inputs that tell these apart.

    tests = strengthened(task, verifier)       # the task with more tests, or None where there is nothing to add

New inputs are made of the old ones, by type, and stay of their kind: no negative number where there was none,
no empty list. The expected values are the reference's. A test is kept only when it kills a mutant that passed
before. An input may still lie outside of what the task promises, so read what was added.
"""

import ast
import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

from vertigym.core.types import Task
from vertigym.envs.code.env import program_of
from vertigym.rewards.code import Verifier
from vertigym.rewards.code_tests import Asserts, Cases, arguments_of, parse_tests
from vertigym.rewards.code_verdict import same
from vertigym.rewards.mutants import Mutant, mutants
from vertigym.sandboxes import CallArguments, Job, JobLimits, call
from vertigym.sandboxes.tagged_json import dumps

_LIMITS = JobLimits(cpu_s=1.0, wall_s=10.0)  # of a mutant: one that hangs has been told apart


def survivors(task: Task, verifier: Verifier, most: int = 12) -> tuple[list[Mutant], int]:
    """The mutants of a task's reference that pass all of its tests, and how many were tried."""
    reference = program_of(task, str(task.answer))
    tests, made = parse_tests(task.info["tests"]), mutants(reference, most)
    checked = verifier.check_many([(mutant.program, tests) for mutant in made])
    return [mutant for mutant, one in zip(made, checked, strict=True) if one.all_pass], len(made)


def strengthened(task: Task, verifier: Verifier, *, inputs: int = 60, most: int = 40) -> Task | None:
    """The task with tests added that kill mutants which passed; None where none can be.

    `inputs`: how many are made; `most`: how many mutants are tried. Only functions of data have inputs to vary:
    tests of kind `cases` without `calls`, and `asserts` that call an exported function with literals.
    """
    tests = parse_tests(task.info["tests"])
    alive, _ = survivors(task, verifier, most)
    entry, given = _inputs(tests)
    if not alive or not given:
        return None
    program = program_of(task, str(task.answer))
    fresh = list(_varied(given, random.Random(task.id), inputs))
    known = _answers(program, entry, fresh, verifier)
    cases = [{"args": _tagged(list(args)), "expected": _tagged(value)} for args, value in known]
    kept = _killing(alive, entry, cases, verifier)
    if not kept:
        return None
    added = _added(tests, entry, [known[at] for at in kept])
    right = verifier.check(program, parse_tests(added)).all_pass  # a value may have no literal
    return task.model_copy(update={"info": {**task.info, "tests": added}}) if right else None


def _inputs(tests: object) -> tuple[str, list[tuple[Any, ...]]]:
    """The function, and the positional arguments that the tests already call it with."""
    if isinstance(tests, Cases):
        plain = all(not (case.calls or case.kwargs or case.raises or case.after) for case in tests.cases)
        return tests.entry, [arguments_of(case).args for case in tests.cases] if plain else []
    return next(iter(_called(tests).items()), ("", [])) if isinstance(tests, Asserts) else ("", [])


def _called(tests: Asserts) -> dict[str, list[tuple[Any, ...]]]:
    """By target, the literal arguments with which plain functions are called."""
    found: dict[str, list[tuple[Any, ...]]] = {}
    for test in tests.tests:
        for node in ast.walk(ast.parse(test)):
            name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            target = tests.exports.get(name, " ")
            if isinstance(node, ast.Call) and not node.keywords and " " not in target:
                try:
                    found.setdefault(target, []).append(tuple(ast.literal_eval(one) for one in node.args))
                except ValueError:
                    continue
    return found


def _varied(given: Sequence[tuple[Any, ...]], draw: random.Random, count: int) -> Iterator[tuple[Any, ...]]:
    """New arguments: those of several calls mixed, then one or two of them changed within their kind."""
    seen = {repr(args) for args in given}
    for _ in range(5 * count):
        width = len(draw.choice(given))
        rows = [args for args in given if len(args) == width]
        mixed = [draw.choice(rows)[at] for at in range(width)]
        for at in draw.sample(range(width), min(width, draw.randint(0, 2))):
            mixed[at] = _changed(mixed[at], draw)
        if repr(mixed) not in seen and count:
            seen.add(repr(mixed))
            count -= 1
            yield tuple(mixed)


def _changed(value: Any, draw: random.Random) -> Any:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case int():
            near = value + draw.choice((-2, -1, 1, 2, 10))
            away = value + (1 if value >= 0 else -1)
            return near if value * near > 0 else away
        case float():
            return value * draw.choice((0.5, 1.5, 2.0))
        case str() if len(value) > 1:
            at = draw.randrange(len(value))
            return draw.choice((value[:at] + value[at + 1 :], value[:at] + value[at] + value[at:], value[::-1]))
        case list() | tuple() if value:
            items, at = list(value), draw.randrange(len(value))
            options = [
                [*items, items[at]],
                items[::-1],
                [*items[:at], _changed(items[at], draw), *items[at + 1 :]],
            ]
            if len(items) > 1:
                options.append(items[:at] + items[at + 1 :])
            return type(value)(draw.choice(options))
        case dict() if len(value) > 1:
            gone = draw.choice(list(value))
            return {key: item for key, item in value.items() if key != gone}
    return value


def _answers(
    program: str, entry: str, fresh: Sequence[tuple[Any, ...]], verifier: Verifier
) -> list[tuple[tuple[Any, ...], Any]]:
    """The reference's value for each input that has one, and the same one twice."""
    inputs: list[CallArguments] = [call(*args) for args in fresh]
    job = Job(program, call=entry, inputs=inputs, limits=_LIMITS, profile=verifier.profile)
    once, twice = verifier.pool.run_many([job, job])
    replies = zip(fresh, once.result, twice.result, strict=False)
    return [(args, a.value) for args, a, b in replies if not (a.error or b.error) and same(a.value, b.value)]


def _killing(alive: list[Mutant], entry: str, cases: list[dict[str, Any]], verifier: Verifier) -> list[int]:
    """Numbers of few cases that together fail every mutant that any of them fails."""
    if not cases:
        return []
    tests = parse_tests({"kind": "cases", "entry": entry, "cases": cases})
    checked = verifier.check_many([(mutant.program, tests) for mutant in alive])
    left = [{at for at, ok in enumerate(one.passed) if not ok} for one in checked]
    kept = list[int]()
    while left := [failed for failed in left if failed and not failed & {*kept}]:
        kept.append(max(range(len(cases)), key=lambda at: sum(at in failed for failed in left)))
    return kept


def _added(tests: object, entry: str, chosen: list[tuple[tuple[Any, ...], Any]]) -> dict[str, Any]:
    if isinstance(tests, Cases):
        more = [{"args": _tagged(list(args)), "expected": _tagged(value)} for args, value in chosen]
        table = tests.model_dump(exclude_unset=True)
        return {**table, "kind": "cases", "cases": [*table["cases"], *more]}
    assert isinstance(tests, Asserts)
    name = next(name for name, target in tests.exports.items() if target == entry)
    sources = [_source(name, args, value) for args, value in chosen]
    return {**tests.model_dump(), "tests": [*tests.tests, *sources]}


def _source(name: str, args: tuple[Any, ...], value: Any) -> str:
    called = f"{name}({', '.join(map(repr, args))})"
    if isinstance(value, float):
        return f"assert abs({called} - {value!r}) <= 1e-6 * max(1, abs({value!r}))"
    return f"assert {called} == {value!r}"


def _tagged(value: Any) -> Any:
    """A value as a task's data writes it."""
    return json.loads(dumps(value))
