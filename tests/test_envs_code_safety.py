"""What hostile programs and replies must not do to a verdict: steer it, stop it, make it dear or unreadable."""

import gc
import os
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from vertigym import envs
from vertigym.core.types import Task
from vertigym.envs.check.check_report import Result
from vertigym.envs.check.task_checks import hidden_tests_assert
from vertigym.envs.code.repository import RepositoryEnv
from vertigym.envs.tasks import TaskSet
from vertigym.envs.tool_calls import write_call
from vertigym.rewards.calling import Caller
from vertigym.rewards.code import Verifier, extract_code
from vertigym.rewards.code_tests import parse_tests, unasserted
from vertigym.rewards.replies import fences
from vertigym.sandboxes import Level, SandboxPool, levels

pytestmark = pytest.mark.usefixtures("sandbox")

NAMESPACED = any(row.name is Level.NAMESPACED and row.available for row in levels())
needs_namespaces = pytest.mark.skipif(not NAMESPACED, reason="no namespaces here")


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with SandboxPool() as pool:
        yield Verifier(pool, cache=0)


def asserts(*tests: str, **rest: Any) -> Any:
    return parse_tests({"kind": "asserts", "tests": list(tests), "exports": {"f": "f"}, **rest})


def cases(expected: Any) -> Any:
    return parse_tests({"kind": "cases", "entry": "f", "cases": [{"args": [1], "expected": expected}]})


# Steering a test.

ITERATING = [
    "assert all(map(lambda x: f(x) == 2 * x, [1, 2]))",
    "assert all(a == b for a, b in zip(map(f, [1, 2]), [2, 4]))",
    "assert set(map(f, [1, 2])) <= {2, 4}",
    "assert not any(map(lambda x: f(x) != 2 * x, [1, 2]))",
    "assert list(filter(lambda x: f(x) != 2 * x, [1, 2])) == []",
    "assert sum(map(lambda x: f(x) != 2 * x, [1, 2])) == 0",
    "assert not list(iter(lambda: f(1), 2))",
    "assert max(map(f, [1, 2]), default=4) == 4",
]


@pytest.mark.parametrize("test", ITERATING)
@pytest.mark.parametrize("error", ["StopIteration", "StopAsyncIteration", "type('Mine', (StopIteration,), {})"])
def test_an_exception_that_ends_loops_does_not_pass_a_test(test: str, error: str, verifier: Verifier) -> None:
    assert verifier.check("def f(x): return 2 * x", asserts(test)).all_pass
    assert not verifier.check(f"def f(x): raise {error}", asserts(test)).all_pass


@pytest.mark.parametrize("test", ITERATING)
def test_nor_does_one_after_a_right_answer(test: str, verifier: Verifier) -> None:
    program = "left = [2]\ndef f(x):\n    if left: return left.pop()\n    raise StopIteration(4)"
    if "iter(lambda" not in test:  # its first answer ends it
        assert not verifier.check(program, asserts(test)).all_pass


# Values.

HOSTILE_VALUES = {
    "a huge int": "1 << 20000",
    "a negative one": "-(1 << 20000)",
    "huge keys": "{1 << 20000: [1 << 30000]}",
    "deep": "eval('[' * 150 + ']' * 150)",
    "deeper": "__import__('functools').reduce(lambda a, _: [a], range(5000), [])",
    "itself": "(lambda l: l.append(l) or l)([])",
    "no repr": "type('A', (), {'__repr__': lambda self: 1 / 0})()",
    "no repr of its type": "type('A', (type,), {'__repr__': lambda self: 1 / 0})('B', (), {})()",
    "an odd name": "type('\\ud800\\0\\x0b', (), {})()",
    "an int without repr": "type('A', (int,), {'__repr__': lambda self: 1 / 0})(5)",
    "surrogates": "'\\ud800\\udfff'",
    "line separators": "'\\u2028\\x0b\\x00'",
    "keys that share a hash": "{(2**61 - 1) * i for i in range(2000)}",
    "endless": "__import__('itertools').count()",
    "wide": "list(range(30000))",
    "nan": "float('nan')",
}


@pytest.mark.parametrize("name", HOSTILE_VALUES)
def test_a_hostile_value_is_wrong_and_no_more(name: str, verifier: Verifier) -> None:
    program = f"def f(x): return {HOSTILE_VALUES[name]}"
    for tests in (cases(3), asserts("assert f(1) == 3"), cases([[3]])):
        score = verifier.score(program, tests)
        assert score.value == 0, score
        text = str(score.evidence["first_failure"])
        text.encode()
        assert len(text.splitlines()) == 1


def test_a_huge_number_can_be_the_right_one(verifier: Verifier) -> None:
    tests = cases({"int": hex(1 << 20000)})
    assert verifier.score("def f(x): return 1 << 20000", tests).value == 1
    wrong = verifier.score("def f(x): return x", tests)
    assert "an int of 20001 bits" in wrong.evidence["first_failure"]


def test_a_hostile_value_costs_its_own_verdict_alone(verifier: Verifier) -> None:
    pairs = [("def f(x): return 3", cases(3)), ("def f(x): return 1 << 20000", cases(3))]
    assert [checked.all_pass for checked in verifier.check_many(pairs * 2)] == [True, False] * 2


@pytest.mark.parametrize(
    "program",
    ["raise ValueError('\\ud800\\0')", "class E(Exception): __str__ = lambda s: 1 / 0\nraise E", "\ud800"],
)
def test_what_the_policy_sees_of_a_failure_can_be_tokenized(program: str) -> None:
    env = envs.make("vertigym/Repair-v0")
    env.reset(seed=0, options={"task": "functions/depth"})
    observation, *_ = env.step(program)
    observation.encode()
    assert "0 of 2 public tests pass" in observation
    env.close()


# Output.


@pytest.mark.parametrize("mark", ["\\x0b", "\\x0c", "\\x1c", "\\x85", "\\u2028", "\\r"])
def test_only_a_newline_ends_a_line(mark: str, verifier: Verifier) -> None:
    tests = parse_tests({"kind": "programs", "runs": [{"stdout": "1\n2\n"}]})
    assert verifier.check("print('1\\r\\n2 ', end='')", tests).all_pass
    assert not verifier.check(f"print('1{mark}2')", tests).all_pass


def test_files_that_are_not_utf_8_are_unscored_not_a_fault(verifier: Verifier) -> None:
    score = verifier.score("def f(x): return 3", cases(3), {"a": "\ud800"})
    assert score.value is None
    assert "half a character" in score.evidence["reason"]


# Time. Where these were quadratic, each would take hours.

LONG = 2_000_000


@pytest.mark.parametrize(
    "text",
    [
        "```\n" + "\n" * LONG,
        "```\n" + " " * LONG + "\n```",
        "`" * LONG,
        "```" + "-" * LONG,
        "```\n\n```\n" * (LONG // 8),
        "~~~" * LONG,
        "```python\n" + "async " * (LONG // 6),
        "```\n" + "def " * (LONG // 4),
    ],
    ids=range(8),
)
def test_code_is_found_in_linear_time(text: str) -> None:
    assert isinstance(extract_code(text, "f"), str)
    fences(text)


def test_code_is_found_by_what_it_defines() -> None:
    text = "```\nasync def f(x): pass\n```\n```\nf()\n```"
    assert extract_code(text, "f") == "async def f(x): pass\n"


# Repositories.

FILES = {
    "shop/__init__.py": "",
    "shop/prices.py": "RATES = {'de': 19}\n_SECRET = 1\nall = id\nclass Shop: pass\ndef total(x): return x\n",
}


def repository(*tests: str, setup: str = "") -> Any:
    return parse_tests({"kind": "asserts", "setup": setup, "tests": list(tests), "modules": ["shop"]})


@needs_namespaces
@pytest.mark.parametrize(
    ("test", "passes"),
    [
        ("from shop.prices import total\nassert total(2) == 2", True),
        ("import shop.prices\nassert shop.prices.total(2) == 2", True),
        ("from shop import prices\nassert prices.total(2) == 2", True),
        ("from shop.prices import RATES, _SECRET\nassert (RATES, _SECRET) == ({'de': 19}, 1)", True),
        ("from shop.prices import Shop\nassert Shop()", True),
        ("import shop.new_module", False),
        ("from shop import new_module", False),
        ("from shop.prices import new_function", False),
        ("import shop.prices\nshop.prices.new_function", False),
        ("from shop.prices import total\nassert total.new_attribute", False),
        ("from shop.prices import *\nassert all([False])", False),
    ],
)
def test_a_test_imports_what_is_there(test: str, passes: bool, verifier: Verifier) -> None:
    assert verifier.check("", repository(test), FILES).all_pass is passes
    assert not verifier.check("", repository(test), {}).all_pass
    assert not verifier.check("", repository("assert True", setup=test), {}).all_pass


@pytest.mark.parametrize(
    ("test", "setup", "asserted"),
    [
        ("assert f(1)", "", True),
        ("f(1)", "", False),
        ("import shop", "", False),
        ("check(f)", "def check(g):\n    assert g(1)", True),
        ("check(f)", "def check(g):\n    g(1)", False),
        ("check(f)", "def inner(g):\n    assert g(1)\ndef check(g):\n    inner(g)", True),
        ("if f(1) != 2: raise ValueError", "", True),
        ("with raises(ValueError): f(1)", "", True),
        ("case.assertEqual(f(1), 2)", "", True),
        ("def f(:", "", True),
    ],
)
def test_a_test_that_asserts_nothing_is_reported(
    test: str, setup: str, asserted: bool, verifier: Verifier
) -> None:
    tests = asserts(test, "assert True", setup=setup)
    assert unasserted(tests) == (() if asserted else (0,))
    evidence = verifier.score("def f(x): return x", tests).evidence
    assert evidence.get("without_assertion", []) == ([] if asserted else [0])


def tree(**files: Any) -> RepositoryEnv:
    tests = {"kind": "asserts", "tests": ["assert True"]}
    task = Task(id="t", prompt="p", info={"files": {"a.txt": "a", **files}, "tests": tests})
    return RepositoryEnv(TaskSet([task]))


@needs_namespaces
def test_a_reset_leaves_no_session_behind() -> None:
    env = tree()
    old = []
    for _ in range(3):
        env.reset(seed=0, options={"task": "t"})
        assert env._session is not None
        old.append(weakref.ref(env._session))
    gc.collect()
    assert [session() is None for session in old] == [True, True, False]
    env.close()
    gc.collect()
    assert old[-1]() is None
    env.reset(seed=0, options={"task": "t"})
    pid = env._session._worker.pid  # type: ignore[union-attr]
    del env
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@needs_namespaces
def test_an_edit_keeps_every_byte_it_does_not_change_and_bad_arguments_are_the_policys() -> None:
    env = tree(**{"b.txt": "x\x0c\r\n\u2028y"})
    env.reset(seed=0, options={"task": "t"})
    assert "wrote" in env.step(write_call("edit", path="b.txt", old="y", new="z"))[0]
    assert env._session is not None
    assert env._session.read("b.txt") == "x\x0c\r\n\u2028z".encode()
    env._session.write("c.txt", b"\xff")
    assert "not UTF-8" in env.step(write_call("edit", path="c.txt", old="a", new="b"))[0]
    assert "no such file" in env.step(write_call("edit", path="none", old="a", new="b"))[0]
    for call in (
        write_call("bash", command="echo \ud800"),
        write_call("edit", path="d", old="", new="\ud800"),
        write_call("read", path="\0"),
    ):
        observation, _, over, *_ = env.step(call)
        assert "error" in observation
        assert not over
    env.step(write_call("bash", command=r"printf '\377' > $'\xff'; printf 1 > $'\xfe\n'"))
    *_, info = env.step(write_call("submit"))
    assert info["score"].value == 1
    env.close()


# Reward functions.


def test_a_reward_function_whose_error_cannot_be_printed_is_unscored() -> None:
    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def fails(completion: str) -> float:
        raise Unprintable

    score = Caller(fails, 5)(Task(id="t", prompt="p"), "c", [])
    assert score.value is None
    assert "Unprintable" in score.evidence["reason"]


def test_a_check_names_the_tests_that_assert_nothing() -> None:
    def checked(*tests: str) -> list[Result]:
        judged = {"kind": "asserts", "tests": list(tests)}
        return list(hidden_tests_assert([Task(id="t", prompt="p", info={"tests": judged})]))

    (result,) = checked("assert f(1)", "f(2)")
    assert [(f.level, f.task, f.message) for f in result.findings] == [
        ("failure", "t", "asserts nothing: f(2)")
    ]
    (result,) = checked("assert f(1)")
    assert not result.findings
    assert not list(hidden_tests_assert([Task(id="t", prompt="p")]))
