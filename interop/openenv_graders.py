"""`vertigym env check` as graders of OpenEnv, by its entry points `openenv.validation.graders`.

An exported package names its environment in `openenv.yaml`, under `vertigym`: that one is checked, references
and answers included. Of any other package what runs is checked, over its wire. One check serves all graders.

OpenEnv 0.10 loads graders of others by `GraderRegistry.load_entry_points()`; its own command does not call it.
"""

import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import yaml  # type: ignore[import-untyped]
from openenv.validation.report import CheckResult
from openenv.validation.types import CheckStatus, Level, ProviderCapability

from vertigym.core.errors import VertigymError
from vertigym.envs.check import CheckReport, check
from vertigym.envs.check.determinism import SCORES, SEEDS
from vertigym.interop import OURS

_STATUS = {
    "passed": CheckStatus.PASS,
    "warning": CheckStatus.PASS,
    "failed": CheckStatus.FAIL,
    "skipped": CheckStatus.SKIP,
}
_WORST_FIRST = (CheckStatus.FAIL, CheckStatus.PASS, CheckStatus.SKIP)
_SHOWN = 10  # findings


@dataclass(frozen=True)
class CheckGrader:
    """The tests of our check, by name, that one check of OpenEnv's policy stands for."""

    check_id: str
    tests: tuple[str, ...]
    level: Level = Level.SEMANTIC
    requires_capabilities: ClassVar[frozenset[str]] = frozenset()
    requires_provider: ClassVar[frozenset[ProviderCapability]] = frozenset()
    depends_on: ClassVar[tuple[str, ...]] = ()

    def applies_to(self, manifest: Any) -> bool:
        """To every package."""
        return True

    def run(self, subject: Any) -> CheckResult:
        """Passed, failed with what was found, or skipped with the reason."""
        began = time.monotonic()
        place, reward = _place(subject), subject.manifest.reward
        if not place:
            return self._result(CheckStatus.SKIP, ["nothing runs, and the package names no environment"], began)
        try:
            report = _checked(place, reward.range[1] - reward.floor_margin)
        except VertigymError as error:  # it could not be tested, which is no fault of it
            return self._result(CheckStatus.ERROR, [str(error)], began)
        results = [result for result in report.results if result.check in self.tests]
        found = {_STATUS[result.verdict] for result in results} or {CheckStatus.SKIP}
        status = next(one for one in _WORST_FIRST if one in found)
        faults = [finding for result in results for finding in result.findings]
        said = [f"{result.check}: {result.summary}" for result in results]
        said += [f"{one.task} {one.action!r}: {one.message}" for one in faults[:_SHOWN]]
        advice = faults[0].advice if faults else None
        return self._result(status, said or ["nothing of it could be tested"], began, advice)

    def _result(
        self, status: CheckStatus, evidence: list[str], began: float, remediation: str | None = None
    ) -> CheckResult:
        spent = time.monotonic() - began
        return CheckResult(
            check_id=self.check_id, status=status, evidence=evidence, remediation=remediation, duration_s=spent
        )


def _place(subject: Any) -> str:
    """What to check: the environment that the package names, else the server that runs."""
    file = Path(subject.root) / "openenv.yaml"
    told = (yaml.safe_load(file.read_text("utf-8")) if file.is_file() else None) or {}
    named = str((told.get(OURS) or {}).get("environment", ""))
    folder, mark, arguments = named.partition("?")
    if folder and (Path(subject.root) / folder / "env.toml").is_file():
        return str(Path(subject.root).resolve() / folder) + mark + arguments
    return named or (f"openenv:{subject.running.base_url}" if subject.running else "")


@lru_cache(maxsize=8)
def _checked(place: str, guess_floor: float) -> CheckReport:
    return check(place, guess_floor=guess_floor)


oracle_max = CheckGrader("semantic.oracle_max", ("the reference scores 1",))
floor_gap = CheckGrader(
    "semantic.floor_gap",
    ("a floor under degenerate answers", "doing nothing earns nothing", "mutated references fail"),
)
no_solution_leakage = CheckGrader(
    "semantic.no_solution_leakage", ("prompts do not contain the answer", "no task in two splits")
)
verifier_determinism = CheckGrader("semantic.verifier_determinism", (SCORES, "hostile text never raises"))
seed_control = CheckGrader("runtime.seed_control", (SEEDS,), Level.RUNTIME)
