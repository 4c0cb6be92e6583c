"""Rebase: a new base model is out; does the tuned model still earn its keep?

Three models may take part: the new base as it came, the model tuned on the old base, and, where somebody
retrained, the same recipe on the new base. Each is compared with the others on the same tasks, in quality
first, then in latency, tokens and cost. The advice follows from the intervals, not from the means.
"""

from pydantic import BaseModel, ConfigDict

from vertigym.evals.compare import Comparison, compare
from vertigym.evals.gate import compare_rows
from vertigym.evals.report import Report


class Rebase(BaseModel):
    """The page of answer: `advice` in one sentence, `ship` the model it names (None: cannot tell), and the
    comparisons behind it, the new base being the baseline of the first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    advice: str
    ship: str | None
    comparisons: tuple[Comparison, ...]


def rebase(new_base: Report, tuned: Report, retrained: Report | None = None, *, margin: float = 0.02) -> Rebase:
    """Compare the tuned model, and the retrained one where there is one, with the new base.

    The simpler model ships when it is no worse by `margin`: the base as it came before a tuned one, the tuned
    one that is there before a retrained one.

    Raises:
        ConfigError: the reports are of different suites.
    """
    comparisons = compare([new_base, tuned, retrained]) if retrained else compare([new_base, tuned])
    if retrained is None:
        return _two(new_base, tuned, comparisons, margin)
    comparisons += compare([tuned, retrained])
    return _three(new_base, tuned, retrained, comparisons, margin)


def _two(new_base: Report, tuned: Report, comparisons: list[Comparison], margin: float) -> Rebase:
    against = comparisons[0]
    points = f"{100 * margin:g} points"
    if against.better:
        ship, advice = tuned.model, f"keep the tuned model: {against.verdict}"
    elif against.better is False:
        ship, advice = new_base.model, f"move to the new base: {against.verdict}; retraining on it may add more"
    elif _as_good(new_base, tuned, margin):
        ship = new_base.model
        advice = f"move to the new base: as it came it is not worse than the tuned model by {points}"
    else:
        ship, advice = None, against.verdict
    return Rebase(advice=advice, ship=ship, comparisons=tuple(comparisons))


def _three(
    new_base: Report, tuned: Report, retrained: Report, comparisons: list[Comparison], margin: float
) -> Rebase:
    of_base, of_retrained, against_tuned = comparisons
    if of_retrained.better and against_tuned.better:
        ship = retrained.model
        advice = f"ship the retrained model: {against_tuned.verdict}; {of_retrained.verdict}"
    elif of_base.better:
        ship = tuned.model
        advice = f"keep the tuned model, retraining did not beat it: {against_tuned.verdict}; {of_base.verdict}"
    elif _as_good(new_base, retrained, margin) and _as_good(new_base, tuned, margin):
        ship = new_base.model
        advice = f"move to the new base as it came: neither tuning beats it by {100 * margin:g} points"
    elif of_retrained.better:
        ship, advice = retrained.model, f"ship the retrained model: {of_retrained.verdict}"
    else:
        ship, advice = None, f"{of_base.verdict}; retrained: {against_tuned.verdict}"
    return Rebase(advice=advice, ship=ship, comparisons=tuple(comparisons))


def _as_good(model: Report, other: Report, margin: float) -> bool:
    """Whether `model` is shown to be no worse than `other` by `margin`."""
    limits = model.limits("score")
    difference, _, _ = compare_rows(model.rows, other.rows, confidence=model.confidence, limits=limits)
    return difference.low is not None and difference.low > -margin
