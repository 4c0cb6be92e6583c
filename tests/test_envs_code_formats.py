"""Code tasks from the files people have, a row of each shape: its reference passes, a wrong program fails."""

import base64
import json
import pickle
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vertigym.core.errors import DataError
from vertigym.core.types import Task
from vertigym.envs.check import check
from vertigym.envs.code.contests import leetcode, stdin_programs
from vertigym.envs.code.env import CodeEnv, program_of
from vertigym.envs.code.formats import humaneval, mbpp
from vertigym.envs.code.swe_bench import swe_bench
from vertigym.envs.tasks import TaskSet
from vertigym.rewards.code import Verifier
from vertigym.rewards.code_tests import ImageTests, parse_tests
from vertigym.rewards.code_verdict import Checked
from vertigym.sandboxes import JobLimits, SandboxPool

pytestmark = pytest.mark.usefixtures("sandbox")
Read = Callable[[Path], list[Task]]


@pytest.fixture(scope="module")
def pool() -> Iterator[SandboxPool]:
    with SandboxPool(size=1) as made:
        yield made


@pytest.fixture
def read(tmp_path: Path) -> Callable[[Read, dict[str, Any]], Task]:
    def one(reader: Read, row: dict[str, Any]) -> Task:
        file = tmp_path / "rows.jsonl"
        file.write_text(json.dumps(row) + "\n")
        (task,) = reader(file)
        return task

    return one


def judged(pool: SandboxPool, task: Task, answer: str, profile: str = "plain") -> Checked:
    verifier = Verifier(pool, cache=0, profile=profile, limits=JobLimits(cpu_s=5, wall_s=60))
    return verifier.check(program_of(task, answer), parse_tests(task.info["tests"]))


def compressed(tests: list[dict[str, str]]) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(json.dumps(tests)))).decode()


APPS_STDIN = {
    "problem_id": 1,
    "question": "Halve a number.",
    "input_output": json.dumps({"inputs": ["3\n", ["4", ""]], "outputs": ["1.50\n", ["2"]]}),
    "solutions": json.dumps(["print(int(input()) / 2)"]),
}
APPS_FUNCTION = {
    "id": 2,
    "question": "Pair a number with its double.",
    "starter_code": "def pair(x):\n",
    "input_output": {"fn_name": "pair", "inputs": [[1], [2]], "outputs": [[[1, 2]], [[2, 4]]]},
    "solutions": "['def pair(x):\\n    return (x, 2 * x)']",
}
APPS_METHOD = {
    "id": 3,
    "question": "Sum.",
    "starter_code": "class Solution:\n    def total(self, xs: List[int]) -> int:\n        ",
    "input_output": json.dumps({"fn_name": "total", "inputs": [[[1, 2]], [[]]], "outputs": [3, 0]}),
    "solutions": ["class Solution:\n    def total(self, xs: List[int]) -> int:\n        return sum(xs)"],
}
LIVE_STDIN = {
    "question_id": "4",
    "question_content": "Double a number.",
    "starter_code": "",
    "public_test_cases": json.dumps([{"input": "1\n", "output": "2\n", "testtype": "stdin"}]),
    "private_test_cases": compressed([{"input": "5\n", "output": "10\n", "testtype": "stdin"}]),
    "metadata": "{}",
    "solutions": ["print(2 * int(input()))"],
}
LIVE_FUNCTION = {
    "question_id": "5",
    "question_content": "Count words.",
    "starter_code": "class Solution:\n    def count(self, words: List[str], least: int) -> dict:\n        ",
    "public_test_cases": json.dumps(
        [{"input": '["a", "b", "a"]\n1', "output": '{"a": 2, "b": 1}', "testtype": "functional"}]
    ),
    "private_test_cases": json.dumps([{"input": '["a", "b"]\n2', "output": "{}", "testtype": "functional"}]),
    "metadata": json.dumps({"func_name": "count"}),
    "solutions": [
        "class Solution:\n    def count(self, words: List[str], least: int) -> dict:\n"
        "        return {k: n for k, n in Counter(words).items() if n >= least}"
    ],
}


@pytest.mark.parametrize(
    ("row", "kind", "wrong"),
    [
        (APPS_STDIN, "programs", "print(int(input()) / 2 + 1)"),
        (APPS_FUNCTION, "cases", "def pair(x): return (x, x)"),
        (APPS_METHOD, "cases", "class Solution:\n    def total(self, xs): return len(xs)"),
        (LIVE_STDIN, "programs", "print(2)"),
        (LIVE_FUNCTION, "cases", "class Solution:\n    def count(self, words, least): return {'a': 2, 'b': 1}"),
    ],
)
def test_contest_rows(
    row: dict[str, Any],
    kind: str,
    wrong: str,
    read: Callable[[Read, dict[str, Any]], Task],
    pool: SandboxPool,
) -> None:
    task = read(stdin_programs, row)
    assert task.info["tests"]["kind"] == kind
    checked = judged(pool, task, task.answer)
    assert checked.all_pass, checked.notes
    assert len(checked.passed) == 2
    assert not judged(pool, task, wrong).all_pass


def test_public_tests_are_apart_and_few(read: Callable[[Read, dict[str, Any]], Task]) -> None:
    task = read(stdin_programs, LIVE_FUNCTION)
    assert (len(task.info["public"]["cases"]), len(task.info["tests"]["cases"])) == (1, 2)


class Bomb:
    def __reduce__(self) -> Any:
        return print, ("PWNED",)


@pytest.mark.parametrize(
    "column",
    [
        base64.b64encode(zlib.compress(pickle.dumps(Bomb()))).decode(),
        base64.b64encode(zlib.compress(b"no pickle")).decode(),
        base64.b64encode(b"no zlib").decode(),
        "no base64",
    ],
)
def test_a_compressed_column_runs_nothing(
    column: str, read: Callable[[Read, dict[str, Any]], Task], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl:1"):
        read(stdin_programs, {**LIVE_STDIN, "private_test_cases": column})
    assert "PWNED" not in capsys.readouterr().out


def test_leetcode_rows(read: Callable[[Read, dict[str, Any]], Task], pool: SandboxPool) -> None:
    row = {
        "task_id": "two-sum",
        "prompt": "from typing import *\n",
        "problem_description": "Find two that sum to the target.",
        "starter_code": "class Solution:\n    def pair(self, nums: List[int], target: int) -> List[int]:\n",
        "entry_point": "Solution().pair",
        "test": "def check(candidate):\n    assert candidate(nums=[2, 7], target=9) == [0, 1]\n"
        "    assert candidate(nums=[3, 3, 4], target=7) == [1, 2]",
        "completion": "class Solution:\n    def pair(self, nums: List[int], target: int) -> List[int]:\n"
        "        at = {x: i for i, x in enumerate(nums)}\n"
        "        return next(sorted([i, at[target - x]]) for i, x in reversed([*enumerate(nums)])"
        " if at.get(target - x, i) != i)",
    }
    task = read(leetcode, row)
    checked = judged(pool, task, task.answer)
    assert checked.passed == (True, True), checked.notes
    assert not any(judged(pool, task, "class Solution:\n    def pair(self, nums, target): return []").passed)


MORE = (
    "import numpy as np\n\ndef assertion(out, exp, atol):\n    assert np.allclose(out, exp, atol=atol)\n\n"
    "{head}inputs = [[1, 2], [3, 4]]\n{indent}results = [3, 7]\n"
    "{indent}for inp, exp in zip(inputs, results):\n{indent}    assertion({name}(*inp), exp, 0)\n"
)


def test_evalplus_rows(read: Callable[[Read, dict[str, Any]], Task], pool: SandboxPool) -> None:
    human = {
        "task_id": "HumanEval/900",
        "entry_point": "add",
        "prompt": 'def add(a, b):\n    """Add."""\n',
        "canonical_solution": "    return a + b\n",
        "test": MORE.format(head="def check(candidate):\n    ", indent="    ", name="candidate"),
    }
    basic = {
        "task_id": 900,
        "prompt": "Add.",
        "code": "def add(a, b):\n    return a + b",
        "test_imports": [],
        "test_list": ["assert add(1, 2) == 3"],
        "test": MORE.format(head="", indent="", name="add"),
    }
    for reader, row in ((humaneval, human), (mbpp, basic)):
        task = read(reader, row)
        assert judged(pool, task, task.answer, "numpy").all_pass
        assert not judged(pool, task, "def add(a, b):\n    return 3", "numpy").all_pass


TREE = {
    "task_id": 901,
    "prompt": "Write a class for a binary tree and a function that gives its depth.",
    "code": "class Node:\n    def __init__(self, value):\n"
    "        self.value, self.left, self.right = value, None, None\n"
    "def depth(node):\n    return 0 if node is None else 1 + max(depth(node.left), depth(node.right))",
    "test_setup_code": "root = Node(1)\nroot.left = Node(2)\nroot.left.right = Node(3)",
    "test_list": ["assert depth(root) == 3", "assert depth(root.left) == 2", "assert depth(root.right) == 0"],
}
IN_PLACE = {
    "task_id": 902,
    "prompt": "Sort in place.",
    "code": "def arrange(xs):\n    xs.sort()",
    "test_list": ["xs = [2, 1]\narrange(xs)\nassert xs == [1, 2]"],
}
QUEUE = {
    "task_id": 903,
    "prompt": "Rotate.",
    "code": "from collections import deque\nclass EmptyError(Exception): pass\ndef rotate(xs, n):\n"
    "    if not xs: raise EmptyError('empty')\n    d = deque(xs)\n    d.rotate(n)\n    return d",
    "test_list": [
        "assert rotate([1, 2, 3], 1) == deque([3, 1, 2])",
        "try:\n    rotate([], 1)\n    assert False\nexcept EmptyError as e:\n    assert str(e) == 'empty'",
    ],
}


@pytest.mark.parametrize("row", [TREE, IN_PLACE, QUEUE])
def test_mbpp_tests_of_classes_changes_and_exceptions_are_carried_over(
    row: dict[str, Any], read: Callable[[Read, dict[str, Any]], Task], pool: SandboxPool
) -> None:
    task = read(mbpp, row)
    checked = judged(pool, task, task.answer)
    assert checked.all_pass, checked.notes
    assert not judged(pool, task, "pass").all_pass


def test_a_check_runs_every_reference_and_says_why_one_fails() -> None:
    def task(number: int, expected: object) -> Task:
        test = f"x = '{'long ' * 200}'\nassert f({number}) == {expected}"
        info = {"entry": "f", "tests": {"kind": "asserts", "tests": [test], "exports": {"f": "f"}}}
        answer = "```python\ndef f(x): return object() if x == 11 else x\n```"
        return Task(id=f"t{number}", prompt=f"number {number}", answer=answer, info=info)

    env = CodeEnv(TaskSet([task(n, n) for n in range(12)]))
    report = check(lambda: env, tasks=2)
    (reference,) = [result for result in report.results if result.check == "the reference scores 1"]
    assert reference.summary == "11 of 12 tasks"
    (finding,) = reference.findings
    assert finding.task == "t11"
    assert finding.message.endswith("AssertionError")
    assert "long " * 200 in finding.message
    shorter = check(lambda: env, tasks=2, sample=3)
    assert any(result.summary.endswith("of 3 tasks") for result in shorter.results)


SWE_BENCH = {
    "instance_id": "psf__requests-1142",
    "repo": "psf/requests",
    "base_commit": "22623bd8c265b78b161542663ee980738441c307",
    "problem_statement": "requests.get is ALWAYS sending content length",
    "patch": "diff --git a/requests/models.py b/requests/models.py\n",
    "test_patch": "diff --git a/test_requests.py b/test_requests.py\n",
    "FAIL_TO_PASS": '["test_requests.py::RequestsTestCase::test_no_content_length"]',
    "PASS_TO_PASS": ["test_requests.py::RequestsTestCase::test_basic_building"],
    "version": "1.1",
    "hints_text": "",
}


def test_a_row_of_swe_bench_is_read_and_names_its_image(read: Any, pool: SandboxPool) -> None:
    task = read(swe_bench, SWE_BENCH)
    tests = parse_tests(task.info["tests"])
    assert isinstance(tests, ImageTests)
    assert tests.image == "swebench/sweb.eval.x86_64.psf_1776_requests-1142:latest"
    assert tests.fail_to_pass == ["test_requests.py::RequestsTestCase::test_no_content_length"]
    assert task.cluster == "psf/requests"
    score = CodeEnv(TaskSet([task]), verifier=Verifier(pool, cache=0)).verifier.score("", tests)
    assert score.value is None
    assert tests.image in str(score.evidence)
    with pytest.raises(DataError, match="FAIL_TO_PASS"):
        read(swe_bench, {**SWE_BENCH, "FAIL_TO_PASS": "{}"})


CHECKER = (
    "def check(stdin, printed, stdout):\n    a, b = map(int, printed.split())\n    return a + b == int(stdin)"
)


@pytest.mark.parametrize(
    ("program", "checker", "value"),
    [
        ("n = int(input())\nprint(n - 1, 1)", CHECKER, 1.0),
        ("n = int(input())\nprint(1, n - 1)", CHECKER, 1.0),
        ("n = int(input())\nprint(n, n)", CHECKER, 0.0),
        ("print('a b')", CHECKER, 0.0),
        ("n = int(input())\nprint(n - 1, 1)\nraise SystemExit(1)", CHECKER, 0.0),
        ("import sys\nsys.modules['builtins'].int = lambda *_: 0\nprint(0, 0)", CHECKER, 0.0),
        ("n = int(input())\nprint(n, n)", "def check(stdin, printed, stdout): return 'yes'", 0.0),
        ("print(1)", "def check(:", None),
    ],
)
def test_any_valid_answer_is_for_a_checker_to_say(
    program: str, checker: str, value: float | None, pool: SandboxPool
) -> None:
    runs = [{"stdin": f"{n}\n", "stdout": f"0 {n}\n"} for n in (5, 8)]
    tests = parse_tests({"kind": "programs", "runs": runs, "checker": checker})
    assert Verifier(pool, cache=0).score(program, tests).value == value
