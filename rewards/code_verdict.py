"""Judge what a program's tests showed: compare outside the sandbox, and say in words what went wrong.

Only plain data is compared, so nothing of the program runs here.
"""

import math
import re
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from vertigym.core.errors import SandboxError
from vertigym.rewards.code_tests import (
    PROTOCOLS,
    Asserts,
    Case,
    Cases,
    ExitStatus,
    ImageTests,
    InOut,
    Programs,
    PytestTests,
    Tests,
    arguments_of,
    data,
    unasserted,
)
from vertigym.sandboxes import JobOutcome, Reply, Status
from vertigym.sandboxes.contract import safe_text
from vertigym.sandboxes.data_forms import DataRecord
from vertigym.sandboxes.tagged_json import Array, shown

_PLAIN_NUMBER = re.compile(r"[+-]?(\d{1,400}(\.\d{0,400})?|\.\d{1,400})([eE][+-]?\d{1,3})?")


@dataclass(frozen=True, slots=True)
class Checked:
    """What running the tests showed. `passed` has one entry a test; `notes` says of each failed one why, in
    words a person (or a policy that may try again) can use."""

    status: Status
    passed: tuple[bool, ...]
    compiles: bool
    notes: tuple[str, ...]
    protocol: str
    level: str
    cpu_s: float
    unasserted: tuple[int, ...] = ()  # tests that assert nothing: they pass whatever the program gives

    @property
    def share(self) -> float:
        """Share of the tests that passed."""
        return sum(self.passed) / len(self.passed)

    @property
    def all_pass(self) -> bool:
        """Whether every test passed and the program kept its limits."""
        return all(self.passed) and self.status is Status.OK


def judge(tests: Tests, outcomes: Sequence[JobOutcome], ruled: JobOutcome | None = None) -> Checked:
    """Compare what came out with what was expected; `ruled`: what the programs' checker says of each run.

    Raises:
        SandboxError: an outcome is INFRA, or the checker does not load.
    """
    lost = next((o for o in [*outcomes, *filter(None, [ruled])] if o.status is Status.INFRA), None)
    if lost is not None:
        raise SandboxError(lost.stderr or "the sandbox was lost")
    match tests:
        case Cases():
            notes = _judge_cases(tests, outcomes[0])
        case Asserts() | PytestTests():
            notes = _judge_asserts(tests, outcomes[0])
        case Programs():
            if ruled is not None and ruled.failure is not None:
                raise SandboxError(f"the checker does not load: {_came(None, ruled)}")
            said = [_ruling(ruled, at) for at in range(len(tests.runs))] if ruled else [None] * len(tests.runs)
            rows = zip(tests.runs, outcomes, said, strict=True)
            notes = [_judge_run(tests, run, o, right) for run, o, right in rows]
        case ImageTests():
            raise SandboxError(f"no sandbox here runs {tests.image}")
        case ExitStatus():
            ok = outcomes[0].status is Status.OK
            notes = ["" if ok else (outcomes[0].stdout + outcomes[0].stderr)[-2000:] or "failed"]
    worst = next((o.status for o in outcomes if o.status is not Status.OK), Status.OK)
    return Checked(
        status=worst,
        passed=tuple(not note for note in notes),
        compiles=all(_loads(outcome, tests.kind) for outcome in outcomes),
        notes=tuple(notes),
        protocol=PROTOCOLS[tests.kind],
        level=outcomes[0].level,
        cpu_s=sum(outcome.cpu_s for outcome in outcomes),
        unasserted=unasserted(tests) if isinstance(tests, Asserts) else (),
    )


def same(expected: Any, got: Any, *, rel: float = 1e-6, abs: float = 1e-9) -> bool:  # noqa: A002
    """Equal in type, structure and value, all the way down; floats to within `rel` or `abs`; NaN equals NaN; a
    named tuple is also the tuple that it is. Only plain data is compared, so nothing of the program runs."""
    if type(expected) is tuple and isinstance(got, tuple):
        got = tuple(got)
    if type(expected) is not type(got):
        return False
    if isinstance(expected, float):
        both_nan = math.isnan(expected) and math.isnan(got)
        return both_nan or math.isclose(expected, got, rel_tol=rel, abs_tol=abs)
    if isinstance(expected, (list, tuple, deque)):
        pairs = zip(expected, got, strict=False)
        return len(expected) == len(got) and all(same(e, g, rel=rel, abs=abs) for e, g in pairs)
    if isinstance(expected, dict):
        return _same_keys(expected, got) and all(
            same(value, got[key], rel=rel, abs=abs) for key, value in expected.items()
        )
    if isinstance(expected, (set, frozenset)):
        return _same_keys(expected, got)
    if isinstance(expected, DataRecord):
        named = expected.kind_of_record == got.kind_of_record
        return named and same(expected.fields_of_record, got.fields_of_record, rel=rel, abs=abs)
    if isinstance(expected, Array):
        alike = (expected.dtype, expected.shape) == (got.dtype, got.shape)
        return alike and same(expected.items, got.items, rel=rel, abs=abs)
    if isinstance(expected, Decimal) and expected.is_nan():
        return bool(got.is_nan())
    return bool(expected == got)


def _same_keys(expected: Collection[Any], got: Collection[Any]) -> bool:
    """Whether two sets (or the keys of two dicts) hold the same things of the same types: 1 is not True."""
    theirs = {key: key for key in got}
    return len(expected) == len(theirs) and all(
        key in theirs and same(key, theirs[key], rel=0, abs=0) for key in expected
    )


def evidence(checked: Checked) -> dict[str, Any]:
    """What lets a person check a verdict."""
    first = next((note for note in checked.notes if note), "")
    return {
        "status": checked.status.value,
        "passed": sum(checked.passed),
        "tests": len(checked.passed),
        "protocol": checked.protocol,
        "forgeable": "forgeable" in checked.protocol,
        "level": str(checked.level),
        **({"first_failure": first} if first else {}),
        **({"without_assertion": list(checked.unasserted)} if checked.unasserted else {}),
    }


def _judge_cases(tests: Cases, outcome: JobOutcome) -> list[str]:
    notes = []
    for index, case in enumerate(tests.cases):
        reply = outcome.result[index] if index < len(outcome.result) else None
        right = reply is not None and _as_expected(tests, case, reply)
        wanted = f"{_written(tests.entry, case)}: expected {_wanted(case)}, "
        notes.append("" if right else wanted + _came(reply, outcome))
    return notes


def _as_expected(tests: Cases, case: Case, reply: Reply) -> bool:
    if case.raises or reply.error:
        named = reply.error == case.raises
        return named and case.message in (None, reply.message)
    expected = data(case.expected) if case.after is None else [data(case.expected), data(case.after)]
    if case.after is not None and "expected" not in case.model_fields_set and isinstance(reply.value, list):
        return same(expected[1], reply.value[-1], rel=tests.rel, abs=tests.abs)
    if tests.as_json:
        return same(_as_json(expected), _as_json(reply.value), rel=tests.rel, abs=tests.abs)
    return same(expected, reply.value, rel=tests.rel, abs=tests.abs)


def _wanted(case: Case) -> str:
    if case.raises:
        return case.raises + (f": {case.message}" if case.message is not None else "")
    after = f" and the arguments to become {shown(data(case.after))}" if case.after is not None else ""
    return shown(data(case.expected)) + after


def _written(name: str, case: Case) -> str:
    """The call, or the calls, as one would write them."""
    given = arguments_of(case)
    first = _one_call(name, given.args, given.kwargs)
    return "; ".join([first, *(f".{_one_call(*one)}" for one in given.calls)])


def _one_call(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    named = [f"{key}={shown(value)}" for key, value in kwargs.items()]
    return f"{name}({', '.join([*map(shown, args), *named])})"


def _judge_asserts(tests: Asserts | PytestTests, outcome: JobOutcome) -> list[str]:
    notes = []
    for index, source in enumerate(tests.tests):
        reply = outcome.result[index] if index < len(outcome.result) else None
        if reply is not None and not reply.error:
            notes.append("")
        else:
            notes.append(f"{source.strip()}: {_came(reply, outcome)}")
    return notes


def _ruling(ruled: JobOutcome, at: int) -> bool:
    """Whether the checker took a run's output; one that stops at it does not."""
    return at < len(ruled.result) and not ruled.result[at].error and ruled.result[at].value is True


def _judge_run(tests: Programs, run: InOut, outcome: JobOutcome, right: bool | None) -> str:
    if right is None:
        printed_lines, wanted_lines = _lines(outcome.stdout), _lines(safe_text(run.stdout))
        as_numbers = tests.numbers and [*map(_words, printed_lines)] == [*map(_words, wanted_lines)]
        right = printed_lines == wanted_lines or as_numbers
    if outcome.status is Status.OK and right:
        return ""
    ended = "" if outcome.status is Status.OK else f" ({_came(None, outcome)})"
    given, wanted, printed = map(shown, (run.stdin, run.stdout, outcome.stdout))
    return f"input {given}: expected {wanted}, printed {printed}{ended}"


def _came(reply: Reply | None, outcome: JobOutcome) -> str:
    """What happened in place of the expected."""
    if reply is None and outcome.failure is not None:
        reply = outcome.failure
    if reply is None:
        return f"no answer ({outcome.status})"
    if reply.error:
        return f"{reply.error}: {reply.message}" if reply.message else reply.error
    return f"got {shown(reply.value)}"


def _loads(outcome: JobOutcome, kind: str) -> bool:
    """Whether the program was valid Python that ran to its end (or, for a whole program, at least compiled)."""
    if outcome.failure is None:
        return bool(outcome.result) or kind in ("programs", "exit-status") or outcome.status is Status.OK
    return kind == "programs" and outcome.failure.error not in ("SyntaxError", "IndentationError", "TabError")


def _words(line: str) -> list[Any]:
    """The words of a line, those that are numbers by value."""
    return [Decimal(word) if _PLAIN_NUMBER.fullmatch(word) else word for word in line.split()]


def _as_json(value: Any) -> Any:
    """What JSON would make of a value: lists of tuples, texts of keys."""
    if isinstance(value, Array):
        return value.items
    if type(value) is int and abs(value) < 1 << 53:
        return float(value)  # JSON has one kind of number
    if isinstance(value, dict):
        return {key if isinstance(key, str) else shown(key): _as_json(item) for key, item in value.items()}
    return [*map(_as_json, value)] if isinstance(value, (list, tuple, deque)) else value


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]
