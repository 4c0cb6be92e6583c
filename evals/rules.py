"""Gate rules: each is one object that checks its settings, decides on what was measured, and words the verdict.

All ask one question: is the true value shown to lie beyond a bound? The answer is the p-value of
`vertigym.evals.mean_bounds`. `RULES` holds the rules by name; a rule of one's own is one more object in it.
"""

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from vertigym.core.config import Config
from vertigym.core.errors import suggest
from vertigym.evals.clustered import ClusteredValues
from vertigym.evals.mean_bounds import Range, least_clusters, p_above
from vertigym.evals.power import smallest_difference
from vertigym.evals.statistics import Difference, Estimate

BEYOND_ALL = "not even a perfect policy gets past the bound"
QUANTILE = re.compile(r"(latency|tokens)_p(\d{1,2})")


def is_quantile(metric: str) -> bool:
    """Whether `metric` is taken over all samples and has no value for a task."""
    return QUANTILE.fullmatch(metric) is not None


class Gate(Config):
    """One `[[gate]]` table.

    improves    the difference to the champion is shown to lie above `margin` (0 unless given)
    not_worse   it is shown to lie above -`margin`
    at_least    the metric itself is shown to lie above `threshold`
    at_most     it is shown to lie below `threshold`

    `against = "start"` compares with the model that a run started from instead of the last champion, so that
    small losses cannot add up over promotions. `env` and `slice` (`rule=late-return`; `rule` alone means each
    rule by itself) narrow it down. For latency, tokens and cost, where less is better, `improves` and
    `not_worse` count a decrease as a gain.
    """

    rule: str = Field(description="improves, not_worse, at_least or at_most")
    metric: str = Field("score", description="what is compared")
    margin: float | None = Field(None, ge=0, description="improves: a gain of more; not_worse: a loss of less")
    threshold: float | None = Field(None, description="at_least, at_most: the bound")
    env: str = Field("", description="only of this environment")
    slice: str = Field("", description="only of this slice (rule=late-return), or of each of a kind (rule)")
    against: Literal["champion", "start"] = Field(
        "champion", description="the last champion, or the model that the run started from"
    )

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
    def by(self) -> "GateRule":
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
    """What a gate decides on.

    `values` are the tasks' values, or for a paired rule their differences to the champion's, signed so that
    more is better; `limits` is what such a value can be, None where nobody knows. `best` are the values of a
    perfect policy. `error` is the chance of passing wrongly that the gate may use. A quantile has no values:
    `estimate` alone says what it is. `fault` says why nothing can be decided.
    """

    error: float
    values: ClusteredValues | None = None
    limits: Range | None = None
    best: ClusteredValues | None = None
    estimate: Estimate | None = None
    difference: Difference | None = None
    value: float | None = None
    champion: float | None = None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a gate passes by itself; `p` is one-sided for "the true value is at `bound` or beyond", None
    where there is nothing to test."""

    passed: bool
    bound: float
    p: float | None = None


class GateRule(ABC):
    """Decides a gate and words the verdict."""

    paired: bool
    """Whether it compares with the champion."""
    below: bool = False
    """Whether less than the bound is what passes."""

    @abstractmethod
    def fault(self, gate: Gate) -> str:
        """What is wrong with the gate's settings; nothing where they are right."""

    @abstractmethod
    def argument(self, gate: Gate) -> str:
        """What stands behind the rule's name: `(0.02)`."""

    @abstractmethod
    def bound(self, gate: Gate) -> float:
        """What the true value has to lie beyond."""

    @abstractmethod
    def words(self, gate: Gate, measured: Measured, passed: bool) -> str:
        """What was found, after the gate's name."""

    def decide(self, gate: Gate, measured: Measured) -> Verdict:
        """Pass where the true value is shown to lie beyond the bound. Several gates may share one error: then
        `passed` is decided again from `p`."""
        p = self.p_value(gate, measured.values, measured.limits)
        return Verdict(p is not None and not measured.fault and p <= measured.error, self.bound(gate), p)

    def p_value(self, gate: Gate, values: ClusteredValues | None, limits: Range | None) -> float | None:
        """Of "the true mean of `values` is at the bound or on its wrong side"."""
        if values is None:
            return None
        if self.below:
            return p_above(values.mirrored(), -self.bound(gate), limits and -limits[1])
        return p_above(values, self.bound(gate), limits and limits[0])

    def is_out_of_reach(self, gate: Gate, measured: Measured) -> bool:
        """Whether there is too little to pass even a perfect policy."""
        p = self.p_value(gate, measured.best, measured.limits)
        return p is not None and p > measured.error

    def lacks_tasks(self, gate: Gate, measured: Measured) -> bool:
        """Whether a perfect policy would pass if there were more."""
        return self.is_out_of_reach(gate, measured) and self.needed(gate, measured) > 0

    def needed(self, gate: Gate, measured: Measured) -> int:
        """How many clusters would pass a perfect policy; 0 where none would."""
        best, limits = measured.best, measured.limits
        if best is None or limits is None:
            return 2
        centre = float(np.average(best.value_N, weights=best.weight_N))
        if self.below:
            return least_clusters(-self.bound(gate), (-limits[1], -limits[0]), measured.error, -centre)
        return least_clusters(self.bound(gate), limits, measured.error, centre)

    def reason(self, gate: Gate, measured: Measured, passed: bool) -> str:
        """The verdict in one sentence."""
        hopeless = ""
        if not passed and not measured.fault and self.is_out_of_reach(gate, measured):
            assert measured.best
            seen, needed = measured.best.clusters, self.needed(gate, measured)
            takes = f"it takes about {needed}" if needed > seen else "larger ones weigh too much"
            few = f"too few: {seen} clusters could pass no policy here, {takes}"
            hopeless = f"; {few if needed else BEYOND_ALL}"
        return f"{gate.text()}: {measured.fault or self.words(gate, measured, passed)}{hopeless}"


class Paired(GateRule):
    """The difference to the champion against a margin."""

    paired = True
    passing: str
    failing: str

    def fault(self, gate: Gate) -> str:
        """A threshold has no place here."""
        if is_quantile(gate.metric):
            return f"on {gate.metric}: it has no value for a task; use at_most"
        return "takes a margin, not a threshold" if gate.threshold is not None else ""

    def argument(self, gate: Gate) -> str:
        """The margin, where there is one."""
        return f"({gate.margin:g})" if gate.margin else ""

    def words(self, gate: Gate, measured: Measured, passed: bool) -> str:
        """Both means, the difference with its interval, and what could have been seen."""
        difference, value, champion = measured.difference, measured.value, measured.champion
        if difference is None or difference.mean is None or value is None or champion is None:
            return "no task is scored in both reports"
        numbers = f"{value:.3f} against {champion:.3f}, difference {difference.mean:+z.3f}"
        if difference.low is None or difference.high is None:
            return f"{numbers}; one cluster is too few to tell"
        numbers += f" [{difference.low:+z.3f}, {difference.high:+z.3f}] on {difference.tasks} tasks"
        if measured.limits is None:
            numbers += ", by Student's t"
        worse = difference.high < 0
        word = self.passing if passed else "worse" if worse else self.failing
        smallest = smallest_difference(difference)
        if not passed and not worse and smallest and smallest < (measured.limits or (0, math.inf))[1]:
            numbers += f" (this comparison sees {smallest:.3f} or more)"
        return f"{word}: {numbers}"


class Improves(Paired):
    """Better than the champion by more than the margin."""

    passing, failing = "better", "not shown to be better"

    def bound(self, gate: Gate) -> float:
        """The margin."""
        return gate.margin or 0.0


class NotWorse(Paired):
    """Not worse than the champion by the margin."""

    passing, failing = "not worse by the margin", "not shown to stay within the margin"

    def fault(self, gate: Gate) -> str:
        """Without a margin nothing could ever be shown."""
        needed = "needs a margin above 0, for example margin = 0.02"
        return super().fault(gate) or ("" if gate.margin else needed)

    def bound(self, gate: Gate) -> float:
        """The margin, below 0."""
        return -(gate.margin or 0.0)


class Threshold(GateRule):
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

    def bound(self, gate: Gate) -> float:
        """The threshold."""
        assert gate.threshold is not None
        return gate.threshold

    def decide(self, gate: Gate, measured: Measured) -> Verdict:
        """A quantile stands for itself."""
        if measured.values is not None or measured.estimate is None or measured.estimate.mean is None:
            return super().decide(gate, measured)
        gap = measured.estimate.mean - self.bound(gate)
        return Verdict(gap <= 0 if self.below else gap >= 0, self.bound(gate))

    def words(self, gate: Gate, measured: Measured, passed: bool) -> str:
        """The mean with its interval."""
        found = measured.estimate
        if found is None or found.mean is None:
            return "nothing was measured"
        if measured.values is None:
            return f"{found.mean:.3f}"
        if found.low is None or found.high is None:
            return f"{found.mean:.3f}, and one cluster is too few for an interval"
        by = "" if measured.limits else ", by Student's t"
        return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]{by}"


class AtLeast(Threshold):
    """Above."""


class AtMost(Threshold):
    """Below."""

    below = True


RULES: dict[str, GateRule] = {
    "improves": Improves(),
    "not_worse": NotWorse(),
    "at_least": AtLeast(),
    "at_most": AtMost(),
}
