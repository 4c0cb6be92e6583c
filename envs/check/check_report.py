"""What a check found: results by test, findings that name the task and the action, and what to do."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from vertigym.core.files import jsonable

Level = Literal["failure", "warning"]
_SHOWN = 80  # characters of an action


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: which test found it, on which task, with which action, and what to do about it."""

    check: str
    level: Level
    message: str
    advice: str
    task: str = ""
    action: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """One test: whether it ran, what it measured, what it found."""

    check: str
    summary: str
    findings: tuple[Finding, ...] = ()
    measured: Mapping[str, Any] = field(default_factory=dict)
    skipped: bool = False

    @property
    def verdict(self) -> Literal["passed", "warning", "failed", "skipped"]:
        """The worst level among the findings."""
        if self.skipped:
            return "skipped"
        levels = {finding.level for finding in self.findings}
        return "failed" if "failure" in levels else "warning" if levels else "passed"


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All tests of one environment."""

    env: str
    results: tuple[Result, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def findings(self) -> list[Finding]:
        """All findings, failures first."""
        found = [finding for result in self.results for finding in result.findings]
        return sorted(found, key=lambda finding: finding.level != "failure")

    def passed(self, *, strict: bool = False) -> bool:
        """No failure; with `strict`, no warning either."""
        return not any(strict or finding.level == "failure" for finding in self.findings)

    def rows(self) -> list[tuple[str, str, str]]:
        """One (test, verdict, summary) a test, for a table."""
        return [(result.check, result.verdict, result.summary) for result in self.results]

    def to_json(self, *, strict: bool = False) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {
            "env": self.env,
            "passed": self.passed(strict=strict),
            "settings": jsonable(self.settings),
            "results": [
                {
                    "check": result.check,
                    "verdict": result.verdict,
                    "summary": result.summary,
                    "measured": jsonable(result.measured),
                }
                for result in self.results
            ],
            "findings": [jsonable(asdict(finding)) for finding in self.findings],
        }


def excerpt(text: str) -> str:
    """A text as it appears in a finding: one line, cut."""
    line = text if text.isprintable() else ascii(text)[1:-1]
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 20]}… ({len(text):,} characters)"
