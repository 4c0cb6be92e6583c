"""The code verifier: comparison, extraction, kinds of tests, the cache; HumanEval and MBPP where they are."""

import ast
import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertigym.core.errors import DataError, SandboxError
from vertigym.core.seeds import generator
from vertigym.core.types import Task
from vertigym.envs.code.contests import stdin_programs
from vertigym.envs.code.env import program_of
from vertigym.envs.code.formats import humaneval, mbpp
from vertigym.rewards.code import Verifier, extract_code
from vertigym.rewards.code_tests import parse_tests
from vertigym.rewards.code_verdict import same
from vertigym.sandboxes import JobLimits, JobOutcome, Level, SandboxPool, Status, tagged_json


@pytest.fixture(scope="module")
def pool(sandbox: None) -> Iterator[SandboxPool]:
    with SandboxPool() as made:
        yield made


def cases(entry: str, *pairs: tuple[list[Any], Any], **settings: Any) -> Any:
    rows = [{"args": args, "expected": expected} for args, expected in pairs]
    return parse_tests({"kind": "cases", "entry": entry, "cases": rows, **settings})


# Comparison.


@pytest.mark.parametrize(
    ("expected", "got", "equal"),
    [
        (1, 1, True),
        (1, True, False),
        (1, 1.0, False),
        (1.0, 1.0 + 1e-8, True),
        (1.0, 1.001, False),
        (float("nan"), float("nan"), True),
        (float("inf"), float("inf"), True),
        ([1, 2], (1, 2), False),
        ([1, [2.0]], [1, [2.0 + 1e-9]], True),
        ([1, 2], [1, 2, 3], False),
        ({"a": [1.0]}, {"a": [1.0 + 1e-9]}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({1: 2}, {True: 2}, False),
        ({1, 2}, {2, 1}, True),
        ({1}, {True}, False),
        ("a", "a", True),
        (None, None, True),
        (None, False, False),
    ],
)
def test_values_are_the_same_in_type_structure_and_value(expected: Any, got: Any, equal: bool) -> None:
    assert same(expected, got) is equal


def test_an_opaque_value_equals_nothing() -> None:
    opaque = tagged_json.loads('{"opaque":"solution.Yes"}')
    assert not same(opaque, opaque)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
        | st.frozensets(st.integers() | st.text(), max_size=4)
    ),
    max_leaves=20,
)


@given(plain)
def test_tagged_json_gives_back_what_it_was_given(value: Any) -> None:
    assert tagged_json.loads(tagged_json.dumps(value)) == value
    assert same(value, tagged_json.loads(tagged_json.dumps(value)), rel=0, abs=0)


@given(st.text() | st.binary())
def test_decoding_never_fails_but_with_valueerror(text: str | bytes) -> None:
    with contextlib.suppress(ValueError):
        tagged_json.loads(text)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(ValueError, match="RecursionError"):
        tagged_json.loads("[" * 5000 + "]" * 5000)
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(RecursionError):
        tagged_json.dumps(loop)


# Extraction.


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("x = 1", "x = 1"),
        ("Sure:\n```python\nx = 1\n```\nDone.", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```bash\nls\n```\n```py\nx = 1\n```", "x = 1\n"),
        ("```python\ndef f(): pass\n```\nUse:\n```python\nf()\n```", "def f(): pass\n"),
        ("```python\nx = 1", "x = 1"),
        ("~~~python\nx = 1\n~~~", "x = 1\n"),
    ],
)
def test_code_is_found_in_fences_or_plain_text(text: str, code: str) -> None:
    assert extract_code(text, "f") == code


def test_a_bare_body_goes_below_the_signature() -> None:
    info = {"entry": "f", "before": "import math\n", "signature": 'import math\ndef f(x):\n    """Doc."""\n'}
    task = Task(id="t", prompt="p", info=info)
    assert program_of(task, "    return x").endswith('"""Doc."""\n    return x')
    assert program_of(task, "return x").endswith('"""Doc."""\n    return x')
    assert program_of(task, "def f(x): return 2") == "import math\ndef f(x): return 2"


# Verdicts.


def test_share_all_pass_and_compiles(pool: SandboxPool) -> None:
    tests = cases("f", ([1], 2), ([2], 4), ([3], 5))
    verifier = Verifier(pool, parts={"all_pass": 0.5, "share": 0.3, "compiles": 0.2})
    score = verifier.score("def f(x): return 2 * x", tests)
    assert score.value == pytest.approx(0.3 * 2 / 3 + 0.2)
    assert score.parts == {"all_pass": 0.0, "share": pytest.approx(2 / 3), "compiles": 1.0}
    assert "f(3): expected 5, got 6" in score.evidence["first_failure"]
    assert verifier.score("def f(x) return", tests).parts["compiles"] == 0


def test_tests_reached_before_a_limit_count(pool: SandboxPool) -> None:
    source = "def f(x):\n    while x == 2: pass\n    return x"
    checked = Verifier(pool, limits=JobLimits(cpu_s=1)).check(source, cases("f", ([1], 1), ([2], 2), ([3], 3)))
    assert checked.passed == (True, False, False)
    assert checked.status is Status.CPU


def test_programs_are_compared_without_trailing_space(pool: SandboxPool) -> None:
    tests = parse_tests(
        {"kind": "programs", "runs": [{"stdin": "2 3", "stdout": "5"}, {"stdin": "1 1", "stdout": "3"}]}
    )
    checked = Verifier(pool).check("print(sum(map(int, input().split())), '')", tests)
    assert checked.passed == (True, False)


def test_asserts_see_exceptions_mutable_data_and_classes(pool: SandboxPool) -> None:
    program = (
        "class Box:\n    def twice(self, x): return 2 * x\n"
        "def f(x):\n    if x < 0: raise ValueError('negative')\n    return x"
    )
    tests = parse_tests(
        {
            "kind": "asserts",
            "setup": "def raises(x):\n    try: f(x)\n    except ValueError as e: return str(e)",
            "tests": ["assert raises(-1) == 'negative'", "assert twice(4) == 8", "assert f(2) == 3"],
            "exports": {"f": "f", "twice": "Box.twice"},
        }
    )
    assert Verifier(pool).check(program, tests).passed == (True, True, False)


def test_exit_status_is_said_to_be_forgeable(pool: SandboxPool) -> None:
    tests = parse_tests({"kind": "exit-status", "argv": ["python3", "t.py"], "files": {"t.py": "assert True"}})
    score = Verifier(pool, limits=JobLimits(processes=8)).score("", tests)
    assert score.value == 1
    assert score.evidence["forgeable"] is True


def test_a_lost_sandbox_is_unscored_never_zero() -> None:
    class Lost:
        level = Level.NAMESPACED

        def run_many(self, jobs: list[Any]) -> list[JobOutcome]:
            return [JobOutcome(Status.INFRA, stderr="gone") for _ in jobs]

    verifier = Verifier(Lost())  # type: ignore[arg-type]
    score = verifier.score("def f(x): return x", cases("f", ([1], 1)))
    assert score.value is None
    assert "gone" in score.evidence["reason"]
    with pytest.raises(SandboxError):
        verifier.check("def f(x): return x", cases("f", ([1], 1)))


def test_verdicts_are_cached_by_program_tests_and_limits(pool: SandboxPool) -> None:
    verifier = Verifier(pool)
    tests = cases("f", ([1], 1))
    for _ in range(3):
        assert verifier.check("def f(x): return x", tests).all_pass
    assert verifier.cache.hits == 2
    assert not verifier.check("def f(x): return x", cases("f", ([1], 2))).all_pass
    assert verifier.cache.hits == 2
    slow = Verifier(pool, limits=JobLimits(cpu_s=0.2))
    for _ in range(2):
        assert slow.check("def f(x):\n    while True: pass", tests).status is Status.CPU
    assert slow.cache.hits == 0


@pytest.mark.parametrize(
    "table", [{}, {"kind": "cases"}, {"kind": "nope"}, {"kind": "cases", "entry": "f", "cases": []}]
)
def test_bad_tests_are_one_clear_line(table: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="tests"):
        parse_tests(table)


def test_the_stdin_shape_is_read(tmp_path: Path, pool: SandboxPool) -> None:
    file = tmp_path / "apps.jsonl"
    file.write_text(
        '{"id": 7, "question": "Sum.", "input_output": "{\\"inputs\\": [\\"1 2\\"], \\"outputs\\": [\\"3\\"]}",'
        ' "solutions": "[\\"print(sum(map(int, input().split())))\\"]"}\n'
    )
    (task,) = stdin_programs(file)
    assert Verifier(pool).check(program_of(task, task.answer), parse_tests(task.info["tests"])).all_pass
    file.write_text("{}\n")
    with pytest.raises(DataError, match=r"apps\.jsonl:1"):
        stdin_programs(file)


# Real data.


def _verify(pool: SandboxPool, tasks: list[Task], answers: list[str]) -> list[bool]:
    pairs = [(program_of(t, a), parse_tests(t.info["tests"])) for t, a in zip(tasks, answers, strict=True)]
    verifier = Verifier(pool, cache=0, limits=JobLimits(cpu_s=10, wall_s=60))
    return [checked.all_pass for checked in verifier.check_many(pairs)]


def _failed(tasks: list[Task], passed: list[bool]) -> list[str]:
    return [task.id for task, ok in zip(tasks, passed, strict=True) if not ok]


def test_every_humaneval_solution_passes_and_empty_ones_fail(data: Path, pool: SandboxPool) -> None:
    tasks = humaneval(data / "humaneval" / "HumanEval.jsonl.gz")
    assert _failed(tasks, _verify(pool, tasks, [task.answer for task in tasks])) == []
    for wrong in ("", "    pass", "    return 0"):
        assert not any(_verify(pool, tasks[::4], [wrong] * len(tasks[::4])))


def test_every_mbpp_solution_passes_and_empty_ones_fail(data: Path, pool: SandboxPool) -> None:
    tasks = mbpp(data / "mbpp" / "sanitized-mbpp.json")
    assert _failed(tasks, _verify(pool, tasks, [task.answer for task in tasks])) == []
    assert not any(_verify(pool, tasks[::10], ["pass"] * len(tasks[::10])))


class _Mutate(ast.NodeTransformer):
    """Change the n-th place that can be changed."""

    SWAPS: ClassVar[dict[Any, type[ast.AST]]] = {
        ast.Add: ast.Sub,
        ast.Sub: ast.Add,
        ast.Lt: ast.GtE,
        ast.Gt: ast.LtE,
        ast.Eq: ast.NotEq,
        ast.And: ast.Or,
    }

    def __init__(self, place: int) -> None:
        self.left = place

    def generic_visit(self, node: ast.AST) -> ast.AST:
        for holder in ("op", "ops"):
            found = getattr(node, holder, None)
            first = found[0] if isinstance(found, list) and found else found
            if type(first) in self.SWAPS:
                self.left -= 1
                if self.left == 0:
                    new = self.SWAPS[type(first)]()
                    setattr(node, holder, [new, *found[1:]] if isinstance(found, list) else new)
        if isinstance(node, ast.Constant) and type(node.value) is int:
            self.left -= 1
            if self.left == 0:
                return ast.copy_location(ast.Constant(node.value + 1), node)
        return super().generic_visit(node)


def mutants(program: str, count: int, *path: str) -> list[str]:
    tree = ast.parse(program)
    counter = _Mutate(-1)
    counter.visit(copy.deepcopy(tree))
    places = -1 - counter.left
    drawn = generator(0, "mutants", *path).permutation(places)[:count]
    return [ast.unparse(_Mutate(int(place) + 1).visit(copy.deepcopy(tree))) for place in drawn]


@pytest.mark.slow
def test_mutants_of_humaneval_solutions_are_caught(data: Path, pool: SandboxPool) -> None:
    tasks = humaneval(data / "humaneval" / "HumanEval.jsonl.gz")
    pairs = [(task, mutant) for task in tasks for mutant in mutants(program_of(task, task.answer), 2, task.id)]
    checks = [(mutant, parse_tests(task.info["tests"])) for task, mutant in pairs]
    found = Verifier(pool, cache=0, limits=JobLimits(cpu_s=1, wall_s=10)).check_many(checks)
    survivors = sorted({task.id for (task, _), checked in zip(pairs, found, strict=True) if checked.all_pass})
    caught = sum(not checked.all_pass for checked in found)
    print(f"{caught} of {len(found)} mutants caught; tasks with survivors: {', '.join(survivors)}")
    assert caught / len(found) > 0.85
