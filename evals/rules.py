"""Gate rules: each is one object that checks its settings, decides on what was measured, and words the verdict.

A rule passes only on evidence: the end of an interval, not its middle, is what it is applied to. `RULES` holds
them by name; a rule of one's own is one more object in it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from pydantic import Field, field_validator, model_validator

from vertigym.core.config import Config
from vertigym.core.errors import suggest
from vertigym.evals.statistics import Difference, Estimate, non_inferior, one_sided_p, shown_better


class Gate(Config):
    """One `[[gate]]` table.

    improves    the paired interval against the champion lies above `margin` (0 unless given)
    not_worse   it lies above -`margin`
    at_least    the interval of the metric itself lies at or above `threshold`
    at_most     at or below `threshold`

    `against = "start"` compares with the model that a run started from instead of the last champion, so that
    small losses cannot add up over promotions. `env` and `slice` (`rule=late-return`; `rule` alone means each
    rule by itself) narrow it down. For latency, tokens and cost, where less is better, `improves` and
    `not_worse` count a decrease as a gain.
    """

    rule: str
    metric: str = "score"
    margin: float | None = Field(None, ge=0)
    threshold: float | None = None
    env: str = ""
    slice: str = ""
    against: Literal["champion", "start"] = "champion"

    @field_validator("rule")
    @classmethod
    def _known(cls, rule: str) -> str:
        if rule not in RULES:
            raise ValueError(f"no such rule{suggest(rule, RULES)}")
        return rule

    @model_validator(mode="after")
    def _complete(self) -> "Gate":
        if fault := self.by.fault(self):
            raise ValueError(f"gate {self.rule} {fault}")
        return self

    @property
    def by(self) -> "Rule":
        """The rule itself."""
        return RULES[self.rule]

    @property
    def paired(self) -> bool:
        """Whether it compares with the champion."""
        return self.by.paired

    def text(self) -> str:
        """`not_worse(0.02) on score of vertigym/Faq-v0, rule=late`."""
        where = ", ".join(part for part in (self.env, self.slice) if part)
        start = " against the start" if self.against == "start" else ""
        return f"{self.rule}{self.by.argument(self)} on {self.metric}{' of ' + where if where else ''}{start}"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a gate decides on: the metric's `estimate`, `exact` where it has no interval; or, for a paired rule,
    the `difference` to the champion, both means, and the `smallest` difference that this comparison sees."""

    estimate: Estimate | None = None
    exact: bool = False
    difference: Difference | None = None
    value: float | None = None
    champion: float | None = None
    smallest: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a gate passes and why; `p` is one-sided for "the true value is at `bound` or beyond"."""

    passed: bool
    reason: str
    bound: float
    p: float | None = None


class Rule(ABC):
    """Decides a gate and words the verdict."""

    paired: bool
    """Whether it compares with the champion."""

    @abstractmethod
    def fault(self, gate: Gate) -> str:
        """What is wrong with the gate's settings; nothing where they are right."""

    @abstractmethod
    def argument(self, gate: Gate) -> str:
        """What stands behind the rule's name: `(0.02)`."""

    @abstractmethod
    def decide(self, gate: Gate, measured: Measured) -> Verdict:
        """The verdict on what was measured."""


class Paired(Rule):
    """The difference to the champion against a margin."""

    paired = True
    passing: str
    failing: str

    def fault(self, gate: Gate) -> str:
        """A threshold has no place here."""
        return "takes a margin, not a threshold" if gate.threshold is not None else ""

    def argument(self, gate: Gate) -> str:
        """The margin, where there is one."""
        return f"({gate.margin:g})" if gate.margin else ""

    @abstractmethod
    def bound(self, gate: Gate) -> float:
        """What the difference has to lie above."""

    @abstractmethod
    def passes(self, gate: Gate, difference: Difference) -> bool:
        """Whether it is shown to."""

    def doubt(self, gate: Gate, difference: Difference) -> str:
        """Why an interval on the right side does not count."""
        return ""

    def decide(self, gate: Gate, measured: Measured) -> Verdict:
        """Pass where the difference is shown to lie above the bound."""
        difference, bound = measured.difference, self.bound(gate)
        assert difference
        passed = self.passes(gate, difference)
        reason = f"{gate.text()}: {self._words(gate, measured, difference, passed)}"
        return Verdict(passed, reason, bound, one_sided_p(difference, bound))

    def _words(self, gate: Gate, measured: Measured, difference: Difference, passed: bool) -> str:
        value, champion, smallest = measured.value, measured.champion, measured.smallest
        if difference.mean is None or value is None or champion is None:
            return "no task is scored in both reports"
        numbers = f"{value:.3f} against {champion:.3f}, difference {difference.mean:+.3f}"
        if difference.low is None or difference.high is None:
            return f"{numbers}; one cluster is too few to tell"
        numbers += f" [{difference.low:+.3f}, {difference.high:+.3f}] on {difference.tasks} tasks"
        worse = difference.high < 0
        word = self.passing if passed else "worse" if worse else self.failing
        if not passed and (doubt := self.doubt(gate, difference)):
            return f"{word}: {numbers} ({doubt})"
        sees = (
            f" (this comparison sees {smallest:.3f} or more)" if smallest and not passed and not worse else ""
        )
        return f"{word}: {numbers}{sees}"


class Improves(Paired):
    """Better than the champion by more than the margin."""

    passing, failing = "better", "not shown to be better"

    def bound(self, gate: Gate) -> float:
        """The margin."""
        return gate.margin or 0.0

    def passes(self, gate: Gate, difference: Difference) -> bool:
        """The interval lies above, and where few clusters differ the sign-flip test agrees."""
        return shown_better(difference, self.bound(gate))

    def doubt(self, gate: Gate, difference: Difference) -> str:
        """The sign-flip test does not agree."""
        if difference.low is None or difference.low <= self.bound(gate):
            return ""
        return (
            f"only {difference.differing} clusters differ; when their signs are swapped, p = {difference.p:.3f}"
        )


class NotWorse(Paired):
    """Not worse than the champion by the margin."""

    passing, failing = "not worse by the margin", "not shown to stay within the margin"

    def fault(self, gate: Gate) -> str:
        """Without a margin nothing could ever be shown."""
        return super().fault(gate) or (
            "" if gate.margin else "needs a margin above 0, for example margin = 0.02"
        )

    def bound(self, gate: Gate) -> float:
        """The margin, below 0."""
        return -(gate.margin or 0.0)

    def passes(self, gate: Gate, difference: Difference) -> bool:
        """The interval lies above."""
        return non_inferior(difference, gate.margin or 0.0)


class Threshold(Rule):
    """The metric itself against a number."""

    paired = False

    def fault(self, gate: Gate) -> str:
        """A margin has no place here."""
        if gate.threshold is None:
            return "needs a threshold, for example threshold = 0.8"
        return "takes a threshold, not a margin" if gate.margin is not None else ""

    def argument(self, gate: Gate) -> str:
        """The threshold."""
        return f"({gate.threshold:g})"

    @abstractmethod
    def passes(self, threshold: float, low: float | None, high: float | None) -> bool:
        """Whether an interval lies on the right side."""

    def decide(self, gate: Gate, measured: Measured) -> Verdict:
        """Pass where the interval lies on the right side; a value without an interval stands for itself."""
        found = measured.estimate
        assert found
        assert gate.threshold is not None
        low, high = (found.mean, found.mean) if measured.exact else (found.low, found.high)
        passed = self.passes(gate.threshold, low, high)
        return Verdict(passed, f"{gate.text()}: {self._words(found, measured.exact)}", gate.threshold)

    def _words(self, found: Estimate, exact: bool) -> str:
        if found.mean is None:
            return "nothing was measured"
        if exact:
            return f"{found.mean:.3f}"
        if found.low is None or found.high is None:
            return f"{found.mean:.3f}, and one cluster is too few for an interval"
        return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


class AtLeast(Threshold):
    """At or above."""

    def passes(self, threshold: float, low: float | None, high: float | None) -> bool:
        """Its lower end."""
        return low is not None and low >= threshold


class AtMost(Threshold):
    """At or below."""

    def passes(self, threshold: float, low: float | None, high: float | None) -> bool:
        """Its upper end."""
        return high is not None and high <= threshold


RULES: dict[str, Rule] = {
    "improves": Improves(),
    "not_worse": NotWorse(),
    "at_least": AtLeast(),
    "at_most": AtMost(),
}
