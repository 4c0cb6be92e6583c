"""Verify programs: run them in a sandbox, judge outside it.

Four kinds of tests, none of which can be forged by the program:
- `cases`: the program is called with inputs; what it returns comes back as data and is compared here, where the
  expected values are (and stay). Types must match; floats may differ by a stated tolerance.
- `asserts`: test code runs in a second sandbox and reaches the program through a data-only channel.
- `programs`: the program reads stdin; what it prints is compared here, line by line without trailing space.
- `pytest`: as `asserts`, but the program is one function of a package, and the tests are the project's own.

`exit-status` (a command whose exit status is the verdict) exists for test suites that cannot run otherwise; its
Score says `forgeable`, because code under test can end the process that judges it.

What the sandbox loses is unscored, never 0.
"""

import re
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, Literal

from vertigym.core.errors import SandboxError, VertigymError
from vertigym.core.files import dumps
from vertigym.core.types import Score
from vertigym.rewards.code_tests import (
    Asserts,
    Cases,
    ExitStatus,
    ImageTests,
    Programs,
    PytestTests,
    Tests,
    arguments_of,
)
from vertigym.rewards.code_verdict import Checked, evidence, judge
from vertigym.rewards.pytest_sides import REMOTE, exported, two_sides
from vertigym.rewards.replies import fences
from vertigym.sandboxes import Job, JobLimits, JobOutcome, SandboxPool, Status, call, shared_pool

Parts = Mapping[Literal["all_pass", "share", "compiles"], float]
_PYTHON = {"", "python", "python3", "py", "py3"}


def extract_code(text: str, defines: str = "") -> str:
    """The program in what a policy wrote: the last Markdown fence marked Python or not marked at all (the last
    that defines `defines`, if one does), else the whole text."""
    blocks = [body for language, body in fences(text) if language in _PYTHON]
    if not blocks:
        return text
    defining = re.compile(rf"^[ \t]*(async +)?(def|class) +{re.escape(defines)}\b", re.MULTILINE)
    wanted = [block for block in blocks if defines and defining.search(block)]
    return (wanted or blocks)[-1]


class Verifier:
    """Runs tests in a pool and turns what they show into Scores.

    `parts`: which rewards are on and their weights, of `all_pass`, `share` and `compiles`. `cache`: how many
    verdicts to keep for programs seen before (0: none).
    """

    def __init__(
        self,
        pool: SandboxPool | None = None,
        *,
        parts: Parts | None = None,
        limits: JobLimits | None = None,
        profile: str = "plain",
        cache: int = 10_000,
    ) -> None:
        self._pool = pool
        self.parts: Parts = parts or {"all_pass": 1.0}
        self.limits = limits or JobLimits()
        self.profile = profile
        self.cache = VerdictCache(cache)

    @property
    def pool(self) -> SandboxPool:
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
        ruled = self._ruled({i: pairs[i][1] for i in spans}, {i: outcomes[span] for i, span in spans.items()})
        for i, span in spans.items():
            found[i] = judge(pairs[i][1], outcomes[span], ruled.get(i))
            self.cache.put(keys[i], found[i])
        return [found[i] for i in range(len(pairs))]

    def _ruled(
        self, tests: Mapping[int, Tests], outcomes: Mapping[int, Sequence[JobOutcome]]
    ) -> dict[int, JobOutcome]:
        """What the checkers of programs say of what was printed, each in a sandbox of its own."""
        jobs = dict[int, Job]()
        for i, one in tests.items():
            if isinstance(one, Programs) and one.checker:
                printed = zip(one.runs, outcomes[i], strict=True)
                inputs = [call(run.stdin, outcome.stdout, run.stdout) for run, outcome in printed]
                jobs[i] = self._job(one.checker, {}, call="check", inputs=inputs)
        return dict(zip(jobs, self.pool.run_many([*jobs.values()]) if jobs else (), strict=True))

    def _jobs(self, program: str, tests: Tests, files: Mapping[str, str | bytes]) -> list[Job]:
        match tests:
            case Cases():
                inputs = [arguments_of(case) for case in tests.cases]
                return [self._job(program, files, call=tests.entry, inputs=inputs)]
            case Asserts():
                sources = [tests.setup, *tests.tests]
                return [self._job(program, files, tests=sources, exports=tests.exports, modules=tests.modules)]
            case Programs():
                return [self._job(program, files, stdin=run.stdin) for run in tests.runs]
            case PytestTests():
                ours, theirs = two_sides(program, tests)
                sources = [theirs, *(f"assert_passed({test!r})" for test in tests.tests)]
                job = self._job(ours, {}, tests=sources, exports={REMOTE: exported(tests.name)})
                return [replace(job, profile="pytest")]
            case ImageTests():
                raise SandboxError(
                    f"these tests run in the container image {tests.image}, and no sandbox here runs another "
                    "image: use the benchmark's own harness"
                )
            case ExitStatus():
                return [self._job(program, {**files, **tests.files}, argv=tests.argv)]

    def _job(self, program: str, files: Mapping[str, str | bytes], **form: Any) -> Job:
        return Job(program, files=files, limits=self.limits, profile=self.profile, **form)

    def _key(self, program: str, tests: Tests, files: Mapping[str, str | bytes] | None) -> str:
        contents = {
            path: sha256(c if isinstance(c, bytes) else c.encode("utf-8", "surrogatepass")).hexdigest()
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
