"""What is asked of a decision model: the decisions whose answers vary, the cases found, the output fields.

Where the decisions at the top of a file give (nearly) every case one answer, others of the file are asked for,
or a function of it is practised.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from vertigym.core.errors import ConfigError
from vertigym.core.files import dumps
from vertigym.decisions.findings import RuleAnalysis, analyse
from vertigym.decisions.model import Case, DecisionError
from vertigym.decisions.outputs import WHOLE, computed_fields, project
from vertigym.decisions.protocols import RuleModel
from vertigym.decisions.sampler import SampledCases, Sampler
from vertigym.envs.check.amounts import LEAST_CASES

_LEAST = 2000  # cases searched at least: rare rules are found by looking long enough
_VARIED = LEAST_CASES // 2  # cases with another answer than the most common one, for answers to vary
_MOST_ALTERNATIVES = 8  # other decisions of a file that are tried
_CLOCKS = ("2020-02-10T09:00:00Z", "2031-07-25T21:30:00Z")  # two moments, to see whether answers depend on it
_NOW = "now"


class _TwoAnswersError(DecisionError):
    """The model is not a function of its input."""


def _without_clock(model: RuleModel, now: str | None, seed: int, warnings: list[str]) -> tuple[RuleModel, Case]:
    """The model as a function of its input, and what is fixed in every case."""
    if impure := model.impure():
        raise _TwoAnswersError(
            f"{model.source}: node {impure[0]!r} draws random numbers or reads the clock in a script: the same "
            "input has two answers, so it cannot be scored"
        )
    readers = model.clock_readers()
    if now is not None:
        try:
            datetime.fromisoformat(now)
        except ValueError:
            raise ConfigError(f"now={now!r}: the form is 2025-06-30T12:00:00Z") from None
        return (model.at(now), {_NOW: now}) if readers else (model, {})
    if not readers:
        return model, {}
    stopped, later = (model.at(clock) for clock in _CLOCKS)
    samples = Sampler(stopped, seed).run(600).samples
    fields = computed_fields(stopped, ((s.case, s.evaluation.output) for s in samples))
    for sample in samples:
        if project(sample.evaluation.output, fields) != project(later.evaluate(sample.case).output, fields):
            raise _TwoAnswersError(
                f"{model.source}: node {readers[0]!r} reads the clock: the same input has two answers on two "
                "days; give the moment to decide at, for example now=2025-06-30T12:00:00Z"
            )
    warnings.append(f"node {readers[0]!r} reads the clock, no answer depends on it: stopped at {_CLOCKS[0]}")
    return stopped, {}


@dataclass(frozen=True, slots=True)
class Question:
    """A model that is asked for some decisions, the cases found, and the output fields asked for."""

    decisions: tuple[str, ...]
    model: RuleModel
    known: RuleAnalysis
    sampler: Sampler
    sampled: SampledCases
    fields: list[str]
    warnings: list[str]

    @property
    def answers(self) -> list[str]:
        """The answers to the cases found, those that decide nothing left out."""
        found = (project(s.evaluation.output, self.fields) for s in self.sampled.samples)
        return [dumps(answer) for answer in found if answer]

    @property
    def others(self) -> int:
        """How many cases have another answer than the most common one."""
        answers = Counter(self.answers)
        return answers.total() - max(answers.values(), default=0)


def first_that_varies(
    read: Callable[[Sequence[str]], RuleModel],
    wanted: Sequence[str],
    sample: Callable[[RuleModel, Sequence[str]], Question],
    *,
    only: bool,
) -> Question:
    """The decisions that are wanted; where (nearly) every case has one answer, and unless it is `only` these,
    the first other ones of the file whose answers vary.

    Raises:
        DecisionError: no answer of the file depends on an input.
    """
    model = read(wanted)
    found: list[Question] = []
    reasons: list[str] = []
    for names in [wanted, *([] if only else islice(model.alternatives(), _MOST_ALTERNATIVES))]:
        try:
            found.append(sample(model if names is wanted else read(names), names))
        except _TwoAnswersError:
            raise
        except DecisionError as error:
            reasons.append(str(error))
            continue
        if found[-1].others >= _VARIED:
            break
    best = max(found, key=lambda question: question.others, default=None)
    if best is None or not best.others:
        why = _one_answer(found) if found else reasons[0].removeprefix(f"{model.source}: ")
        raise DecisionError(f"{model.source}: holds nothing to learn: {why}")
    if best.decisions != tuple(wanted):
        names = ", ".join(best.decisions)
        best.warnings.append(
            f"what is decided at the top is nearly always the same: asked for instead is {names}"
        )
    return best


def _one_answer(found: Sequence[Question]) -> str:
    """What the one answer is, and how many cases are refused."""
    answer = next((answer for question in found for answer in question.answers), "nothing")
    sampled = next((q.sampled for q in found if q.sampled.refused), found[0].sampled)
    refused = f"{sampled.refused} of {sampled.evaluations} cases have none: {sampled.refusal}"
    return f"every case has one answer, {answer[:80]}{f' ({refused})' if sampled.refused else ''}"


def sampled_question(
    read: RuleModel, names: Sequence[str], *, now: str | None, seed: int, search: int, outputs: Sequence[str]
) -> Question:
    """What `names` are asked, with at least `search` cases where there are as many.

    Raises:
        DecisionError: the model has no inputs to vary, decides nothing, or is not a function of its input.
    """
    warnings = list(read.notes)
    model, fixed = _without_clock(read, now, seed, warnings)
    known = analyse(model)
    sampler = Sampler(model, seed, fixed, known)
    if not sampler.fields:
        raise DecisionError(
            f"{model.source}: no inputs to vary: no condition or expression names an input field"
        )
    sampled = sampler.run(max(_LEAST, search))
    if not sampled.samples:
        raise DecisionError(f"{model.source}: the engine can decide no case: {sampled.refusal}")
    fields = _asked(model, sampled, outputs)
    return Question(tuple(names), model, known, sampler, sampled, fields, warnings)


def _asked(model: RuleModel, sampled: SampledCases, wanted: Sequence[str]) -> list[str]:
    """The output fields to ask for; those wanted must occur. By default those whose value varies, where any
    does."""
    pairs = [(s.case, s.evaluation.output) for s in sampled.samples]
    if not wanted:
        fields = computed_fields(model, pairs)
        decided = [output for _, output in pairs if project(output, fields)]
        varied = [f for f in fields if len({dumps(project(output, [f])) for output in decided}) > 1]
        if not fields:
            raise DecisionError(f"{model.source}: the model computes no output field; nothing can be asked")
        return varied or fields
    for name in wanted:
        if name != WHOLE and not any(project(output, [name]) for _, output in pairs):
            known = ", ".join(computed_fields(model, pairs))
            raise ConfigError(f"outputs: no case has a field {name!r}; the model computes {known}")
    return list(wanted)
