"""Verify programs: run them in a sandbox, judge outside it.

Three kinds of tests, none of which can be forged by the program:
- `cases`: the program is called with inputs; what it returns comes back as data and is compared here, where the
  expected values are (and stay). Types must match; floats may differ by a stated tolerance.
- `asserts`: test code runs in a second sandbox and reaches the program through a data-only channel.
- `programs`: the program reads stdin; what it prints is compared here, line by line without trailing space.

`exit-status` (a command whose exit status is the verdict) exists for test suites that cannot run otherwise; its
Score says `forgeable`, because code under test can end the process that judges it.

What the sandbox loses is unscored, never 0.
"""

import math
import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from vertigym.core.config import Config
from vertigym.core.errors import DataError, SandboxError, VertigymError
from vertigym.core.files import dumps
from vertigym.core.types import Score
from vertigym.sandboxes import Job, Limits, Outcome, Pool, Reply, Status, call, shared_pool, values

PROTOCOLS = {
    "cases": "outputs compared outside",
    "asserts": "tests in a second sandbox",
    "programs": "outputs compared outside",
    "exit-status": "exit status (forgeable)",
}
Parts = Mapping[Literal["all_pass", "share", "compiles"], float]
_FENCE = re.compile(r"^(`{3,}|~{3,})[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)


class Case(Config):
    """One call: arguments and the expected result, as tagged JSON (`sandboxes.values`)."""

    args: list[Any] = Field(default_factory=list)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    expected: Any


class Cases(Config):
    """Calls of `entry` and what they must return, to within `rel` and `abs` for floats."""

    kind: Literal["cases"] = "cases"
    entry: str
    cases: list[Case] = Field(min_length=1)
    rel: float = Field(1e-6, ge=0)
    abs: float = Field(1e-9, ge=0)


class Asserts(Config):
    """Test sources, each passing when it raises nothing; `setup` runs first. `exports`: name in the tests ->
    function of the program; `modules`: packages of the program's files the tests may import from."""

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
    """Runs of the whole program."""

    kind: Literal["programs"] = "programs"
    runs: list[InOut] = Field(min_length=1)


class ExitStatus(Config):
    """A command that exits with 0 when all is well. Forgeable by what it tests, and said so in the Score."""

    kind: Literal["exit-status"] = "exit-status"
    argv: list[str] = Field(min_length=1)
    files: dict[str, str] = Field(default_factory=dict)


Tests = Cases | Asserts | Programs | ExitStatus
_TESTS: TypeAdapter[Tests] = TypeAdapter(Annotated[Tests, Field(discriminator="kind")])


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

    @property
    def share(self) -> float:
        """Share of the tests that passed."""
        return sum(self.passed) / len(self.passed)

    @property
    def all_pass(self) -> bool:
        """Whether every test passed and the program kept its limits."""
        return all(self.passed) and self.status is Status.OK


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


def extract_code(text: str, defines: str = "") -> str:
    """The program in what a policy wrote: the last Markdown fence marked Python or not marked at all (the last
    that defines `defines`, if one does), else the whole text."""
    blocks = [body for _, language, body in _FENCE.findall(text) if language.lower() in _PYTHON]
    if not blocks:
        return text
    defining = [b for b in blocks if defines and re.search(rf"^\s*(def|class) {re.escape(defines)}\b", b, re.M)]
    return str((defining or blocks)[-1])


_PYTHON = {"", "python", "python3", "py", "py3"}


class Verifier:
    """Runs tests in a pool and turns what they show into Scores.

    `parts`: which rewards are on and their weights, of `all_pass`, `share` and `compiles`. `cache`: how many
    verdicts to keep for programs seen before (0: none).
    """

    def __init__(
        self,
        pool: Pool | None = None,
        *,
        parts: Parts | None = None,
        limits: Limits | None = None,
        profile: str = "plain",
        cache: int = 10_000,
    ) -> None:
        self._pool = pool
        self.parts: Parts = parts or {"all_pass": 1.0}
        self.limits = limits or Limits()
        self.profile = profile
        self.cache = VerdictCache(cache)

    @property
    def pool(self) -> Pool:
        """Where programs run: the pool given, else this process's own."""
        return self._pool or shared_pool()

    def score(self, program: str, tests: Tests, files: Mapping[str, str | bytes] | None = None) -> Score:
        """All tests, as one Score; unscored when the sandbox was lost. Never raises."""
        try:
            checked = self.check(program, tests, files)
        except VertigymError as error:
            return Score.unscored(f"{type(error).__name__}: {error}")
        numbers = {"all_pass": checked.all_pass, "share": checked.share, "compiles": checked.compiles}
        parts = {name: float(value) for name, value in numbers.items()}
        value = sum(weight * parts[name] for name, weight in self.parts.items())
        return Score(value, parts, evidence(checked))

    def check(self, program: str, tests: Tests, files: Mapping[str, str | bytes] | None = None) -> Checked:
        """Run the tests.

        Raises:
            SandboxError: no sandbox could finish. DataError: a case is not tagged JSON.
        """
        return self.check_many([(program, tests)], files)[0]

    def check_many(
        self, pairs: Sequence[tuple[str, Tests]], files: Mapping[str, str | bytes] | None = None
    ) -> list[Checked]:
        """`check` for many programs, side by side."""
        keys = [self._key(program, tests, files) for program, tests in pairs]
        found: dict[int, Checked] = {
            i: known for i, key in enumerate(keys) if (known := self.cache.get(key)) is not None
        }
        jobs: list[Job] = []
        spans: dict[int, slice] = {}
        for i, (program, tests) in enumerate(pairs):
            if i not in found:
                made = self._jobs(program, tests, files or {})
                spans[i] = slice(len(jobs), len(jobs) + len(made))
                jobs += made
        outcomes = self.pool.run_many(jobs)
        for i, span in spans.items():
            found[i] = judge(pairs[i][1], outcomes[span])
            self.cache.put(keys[i], found[i])
        return [found[i] for i in range(len(pairs))]

    def _jobs(self, program: str, tests: Tests, files: Mapping[str, str | bytes]) -> list[Job]:
        match tests:
            case Cases():
                inputs = [call(*_data(case.args), **_data_each(case.kwargs)) for case in tests.cases]
                return [self._job(program, files, call=tests.entry, inputs=inputs)]
            case Asserts():
                sources = [tests.setup, *tests.tests]
                return [self._job(program, files, tests=sources, exports=tests.exports, modules=tests.modules)]
            case Programs():
                return [self._job(program, files, stdin=run.stdin) for run in tests.runs]
            case ExitStatus():
                return [self._job(program, {**files, **tests.files}, argv=tests.argv)]

    def _job(self, program: str, files: Mapping[str, str | bytes], **form: Any) -> Job:
        return Job(program, files=files, limits=self.limits, profile=self.profile, **form)

    def _key(self, program: str, tests: Tests, files: Mapping[str, str | bytes] | None) -> str:
        contents = {
            path: sha256(c if isinstance(c, bytes) else c.encode()).hexdigest()
            for path, c in (files or {}).items()
        }
        runtime = [sys.version, self.pool.level, self.profile, repr(self.limits)]
        text = dumps([program, tests.model_dump(), contents, runtime])
        return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class VerdictCache:
    """The last verdicts by program, tests, limits and runtime; safe between threads. Verdicts that hang on the
    clock are not kept."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[str, Checked] = OrderedDict()
        self._lock = threading.Lock()
        self.hits = 0

    def get(self, key: str) -> Checked | None:
        """What was found for this key before."""
        with self._lock:
            known = self._kept.get(key)
            if known is not None:
                self._kept.move_to_end(key)
                self.hits += 1
            return known

    def put(self, key: str, checked: Checked) -> None:
        """Keep a verdict, dropping the oldest when full."""
        if checked.status in (Status.CPU, Status.WALL):
            return
        with self._lock:
            self._kept[key] = checked
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)


def judge(tests: Tests, outcomes: Sequence[Outcome]) -> Checked:
    """Compare what came out with what was expected.

    Raises:
        SandboxError: an outcome is INFRA.
    """
    lost = next((o for o in outcomes if o.status is Status.INFRA), None)
    if lost is not None:
        raise SandboxError(lost.stderr or "the sandbox was lost")
    match tests:
        case Cases():
            notes = _judge_cases(tests, outcomes[0])
        case Asserts():
            notes = _judge_asserts(tests, outcomes[0])
        case Programs():
            notes = [_judge_run(run, outcome) for run, outcome in zip(tests.runs, outcomes, strict=True)]
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
    )


def same(expected: Any, got: Any, *, rel: float = 1e-6, abs: float = 1e-9) -> bool:  # noqa: A002
    """Equal in type, structure and value, all the way down; floats to within `rel` or `abs`; NaN equals NaN.
    Only plain data is compared, so nothing of the program runs."""
    if type(expected) is not type(got):
        return False
    if isinstance(expected, float):
        both_nan = math.isnan(expected) and math.isnan(got)
        return both_nan or math.isclose(expected, got, rel_tol=rel, abs_tol=abs)
    if isinstance(expected, (list, tuple)):
        pairs = zip(expected, got, strict=False)
        return len(expected) == len(got) and all(same(e, g, rel=rel, abs=abs) for e, g in pairs)
    if isinstance(expected, dict):
        return _same_keys(expected, got) and all(
            same(value, got[key], rel=rel, abs=abs) for key, value in expected.items()
        )
    if isinstance(expected, (set, frozenset)):
        return _same_keys(expected, got)
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
    }


def _judge_cases(tests: Cases, outcome: Outcome) -> list[str]:
    notes = []
    for index, case in enumerate(tests.cases):
        reply = outcome.result[index] if index < len(outcome.result) else None
        expected = _data(case.expected)
        if reply is not None and not reply.error and same(expected, reply.value, rel=tests.rel, abs=tests.abs):
            notes.append("")
            continue
        written = ", ".join(
            [repr(a) for a in _data(case.args)] + [f"{k}={v!r}" for k, v in case.kwargs.items()]
        )
        notes.append(_short(f"{tests.entry}({written}): expected {expected!r}, {_came(reply, outcome)}"))
    return notes


def _judge_asserts(tests: Asserts, outcome: Outcome) -> list[str]:
    notes = []
    for index, source in enumerate(tests.tests):
        reply = outcome.result[index] if index < len(outcome.result) else None
        if reply is not None and not reply.error:
            notes.append("")
        else:
            notes.append(_short(f"{source.strip()}: {_came(reply, outcome)}"))
    return notes


def _judge_run(run: InOut, outcome: Outcome) -> str:
    if outcome.status is Status.OK and _lines(outcome.stdout) == _lines(run.stdout):
        return ""
    ended = "" if outcome.status is Status.OK else f" ({_came(None, outcome)})"
    return _short(f"input {run.stdin!r}: expected {run.stdout!r}, printed {outcome.stdout!r}{ended}")


def _came(reply: Reply | None, outcome: Outcome) -> str:
    """What happened in place of the expected."""
    if reply is None and outcome.failure is not None:
        reply = outcome.failure
    if reply is None:
        return f"no answer ({outcome.status})"
    if reply.error:
        return f"{reply.error}: {reply.message}" if reply.message else reply.error
    return f"got {reply.value!r}"


def _loads(outcome: Outcome, kind: str) -> bool:
    """Whether the program was valid Python that ran to its end (or, for a whole program, at least compiled)."""
    if outcome.failure is None:
        return bool(outcome.result) or kind in ("programs", "exit-status") or outcome.status is Status.OK
    return kind == "programs" and outcome.failure.error not in ("SyntaxError", "IndentationError", "TabError")


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def _short(text: str) -> str:
    return text if len(text) <= 500 else text[:497] + "..."


def _data(tagged: Any) -> Any:
    """Tagged JSON, already parsed, as a value."""
    try:
        return values.loads(dumps(tagged))
    except ValueError as error:
        raise DataError(f"a test case is not tagged JSON: {error}") from None


def _data_each(tagged: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _data(value) for key, value in tagged.items()}
