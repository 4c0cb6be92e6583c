"""Every protocol of code tests: honest programs pass, wrong ones fail, and an object of the
program's is never taken for a value."""

import textwrap
from collections.abc import Iterator
from typing import Any

import pytest

from vertigym.core.errors import DataError
from vertigym.rewards.code import Verifier
from vertigym.rewards.code_tests import Tests, parse_tests
from vertigym.rewards.code_verdict import same
from vertigym.sandboxes import JobLimits, SandboxPool, tagged_json
from vertigym.sandboxes.tagged_json import shown

from . import hostile, hostile_grammar, hostile_judge
from .code_protocols import TASKS, WRONG, ProtocolTask

pytestmark = pytest.mark.usefixtures("sandbox")


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with SandboxPool() as pool:
        yield Verifier(pool, cache=0, limits=JobLimits(cpu_s=5, wall_s=60))


def passed(verifier: Verifier, pairs: list[tuple[str, Tests]]) -> list[bool]:
    return [checked.all_pass for checked in verifier.check_many(pairs)]


def test_every_reference_of_every_protocol_passes(verifier: Verifier) -> None:
    pairs = [(task.program, parse_tests(task.tests)) for task in TASKS]
    notes = {t.name: c.notes for t, c in zip(TASKS, verifier.check_many(pairs), strict=True) if not c.all_pass}
    assert len(TASKS) >= 200
    assert notes == {}


@pytest.mark.parametrize("kind", WRONG)
def test_no_wrong_program_of_any_protocol_passes(kind: str, verifier: Verifier) -> None:
    tried = [(task, wrong) for task in TASKS if (wrong := WRONG[kind](task)) is not None]
    assert len(tried) > 100
    pairs = [(wrong, parse_tests(task.tests)) for task, wrong in tried]
    rows: list[tuple[ProtocolTask, bool]] = [
        (task, ok) for (task, _), ok in zip(tried, passed(verifier, pairs), strict=True)
    ]
    assert [task.name for task, ok in rows if ok] == []


OBJECTS = parse_tests(hostile_judge.PROTOCOLS["objects"])
YES = [
    "EVIL()",
    "Box(EVIL())",
    "iter([EVIL()])",
    "[EVIL()]",
    "lambda *a, **k: EVIL()",
    "EVIL",
    "(EVIL(), EVIL())",
    "{7: EVIL()}",
    "type('int', (EVIL,), {})()",
]


@pytest.mark.parametrize("value", YES)
def test_an_object_that_says_yes_to_everything_passes_no_test(value: str, verifier: Verifier) -> None:
    program = f"def solve(x): return {value}\n{hostile_grammar.BESIDE}"
    checked = verifier.check(program, OBJECTS)
    assert [note for note in checked.notes if not note] == []
    assert not any(checked.passed)


@pytest.mark.parametrize("returned", ["self", "Box(3)", "EVIL()", "iter([self])", "self.value"])
def test_nor_does_one_that_the_test_made(returned: str, verifier: Verifier) -> None:
    evil = f"class Box(EVIL):\n    def __init__(self, x): self.x = x\n    def value(self): return {returned}"
    program = f"def solve(x): return Box(x)\n{hostile_grammar.BESIDE}\n{evil}"
    assert not any(verifier.check(program, OBJECTS).passed)


@pytest.mark.parametrize("name", hostile.FORGERIES)
def test_every_forgery_fails_on_every_protocol(name: str, verifier: Verifier) -> None:
    beside = textwrap.dedent(hostile_grammar.BESIDE)
    program = f"{beside}\n{hostile.FORGERIES[name]}"
    for protocol in ("objects", "sequences", "changes", "raises"):
        assert not verifier.check(program, parse_tests(hostile_judge.PROTOCOLS[protocol])).all_pass, protocol


def test_honest_programs_pass_every_protocol_of_the_grammar(verifier: Verifier) -> None:
    for protocol in ("objects", "sequences", "changes", "raises"):
        checked = verifier.check(hostile_judge.HONEST, parse_tests(hostile_judge.PROTOCOLS[protocol]))
        assert checked.all_pass, checked.notes


def test_a_failed_assertion_in_a_callback_fails_the_test_whatever_the_program_does(verifier: Verifier) -> None:
    program = "def each(f, xs):\n    for x in xs:\n        try: f(x)\n        except BaseException: pass"
    test = "def check(x):\n    assert x == 2\neach(check, [1])"
    tests = parse_tests({"kind": "asserts", "tests": [test], "exports": {"each": "each"}})
    assert verifier.check(program, tests).notes[0].endswith("AssertionError")


@pytest.mark.parametrize(
    ("body", "ok"),
    [
        ("raise ValueError('asked for')", True),
        ("assert box.value == 2", False),
        ("raise AssertionError", False),
        ("assert wrong()[0] == 2", False),
        ("10 / wrong()", False),
        ("box.fails()", False),
    ],
)
def test_a_context_under_test_ends_only_what_the_test_raises_in_it(
    body: str, ok: bool, verifier: Verifier
) -> None:
    program = (
        "class Box:\n    value = 1\n    def __enter__(self): return self\n"
        "    def __exit__(self, *error): return True\n"
        "    def fails(self): raise ValueError\ndef wrong(): return 0"
    )
    for source in (
        f"with Box() as box:\n    {body}",
        f"def inside(box):\n    {body}\nwith Box() as box:\n    inside(box)",
    ):
        tests = parse_tests(
            {"kind": "asserts", "tests": [source], "exports": {"Box": "class Box", "wrong": "wrong"}}
        )
        checked = verifier.check(program, tests)
        assert checked.all_pass == (ok and "inside" not in source), checked.notes


def test_changes_are_seen_only_where_the_tests_ask_for_them(verifier: Verifier) -> None:
    program = "def f(xs):\n    xs.clear()\n    return []"
    for target, ok in (("f", False), ("changes f", True)):
        tests = parse_tests(
            {"kind": "asserts", "tests": ["xs = [2, 1]\nassert f(xs) == sorted(xs)"], "exports": {"f": target}}
        )
        assert verifier.check(program, tests).passed == (ok,)


@pytest.mark.parametrize(
    "text",
    [
        '{"decimal":"sNaN"}',
        '{"decimal":"1E99999"}',
        '{"fraction":[1,0]}',
        '{"fraction":["1",2]}',
        '{"record":["a",[["__class__",1]]]}',
        '{"namedtuple":["x",["a","a"],[1,2]]}',
        '{"namedtuple":["class",["a"],[1]]}',
        '{"namedtuple":["x",["a"],[1,2]]}',
        '{"date":5}',
        '{"datetime":"x"}',
        '{"timedelta":[1e99]}',
        '{"deque":5}',
    ],
)
def test_a_form_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        tagged_json.loads(text)


def test_a_reference_is_nothing_outside_the_channel() -> None:
    value = tagged_json.loads('{"ref":["object",1,"x"]}')
    assert not same(value, value)
    assert "no data form" in shown(value)


@pytest.mark.parametrize(
    "case",
    [{"args": [1]}, {"expected": 1, "calls": [["put"]]}, {"expected": 1, "calls": [[1, []]]}],
)
def test_a_case_that_expects_nothing_is_refused_in_one_line(case: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"cases\.0"):
        parse_tests({"kind": "cases", "entry": "f", "cases": [case]})


def test_arrays_are_arrays_on_both_sides() -> None:
    program = "import numpy as np\ndef f(x): return 2 * x.astype(float)"
    test = "import numpy as np\nr = f(np.array([[1, 2], [3, 4]]))\nassert r.sum() == 20 and r.dtype == float"
    with SandboxPool(size=1, profiles={"numpy": ["numpy"]}) as pool:
        verifier = Verifier(pool, profile="numpy", cache=0)
        asserts = parse_tests({"kind": "asserts", "tests": [test], "exports": {"f": "f"}})
        assert verifier.check(program, asserts).passed == (True,)
        given, wanted = {"array": ["int64", [2], [1, 2]]}, {"array": ["float64", [2], [2.0, 4.0]]}
        cases = {"kind": "cases", "entry": "f", "cases": [{"args": [given], "expected": wanted}]}
        assert verifier.check(program, parse_tests(cases)).passed == (True,)
