"""From a decision model to an environment folder: sample cases, let the engine answer, split, write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from vertigym.core.errors import ConfigError
from vertigym.core.manifest import claim_folder
from vertigym.core.types import SPLITS, Split
from vertigym.decisions.fair_shares import add_fair_shares
from vertigym.decisions.findings import RuleFinding
from vertigym.decisions.formats import ReadOptions, read_model
from vertigym.decisions.minimal_pairs import MinimalPair, RulePairs, find_pairs
from vertigym.decisions.model import DecisionError
from vertigym.decisions.outputs import WHOLE, project, value_types
from vertigym.decisions.protocols import RuleModel
from vertigym.decisions.sampler import DecidedCase, SampledCases
from vertigym.envs.check.amounts import too_few, too_low
from vertigym.envs.decision.config import FOLDER, DecisionConfig, Rules, config_text, write_folder
from vertigym.envs.decision.question import first_that_varies, sampled_question
from vertigym.envs.decision.scripts import SANDBOXED
from vertigym.envs.decision.selection import TaskMaker, assign_splits, select, split_sizes, without_surplus
from vertigym.envs.registry import is_env_id

_SURPLUS = 1.5  # cases searched for one kept where patterns of rules are balanced by choosing alone


@dataclass(frozen=True, slots=True)
class DecisionImportReport:
    """What an import made.

    `not_hit` pairs a rule's id with its text: no case that was found hits it. `findings` says which of these
    are proven never to be hit. `without_task` names rules that are hit only by cases in which nothing that is
    asked for is decided. `adjacent` counts pairs of neighbouring outcomes, `adjacent_shown` those that a
    minimal pair of cases shows; `interacting` and `interacting_hit` count pairs of rules that one case may
    hit, and does. `given` and `asked` say the type of each field of a case and of an answer.
    """

    id: str
    folder: Path
    counts: Mapping[Split, int]
    outputs: tuple[str, ...]
    rules: int
    not_hit: tuple[tuple[str, str], ...]
    without_task: tuple[str, ...]
    patterns: int
    evaluations: int
    warnings: tuple[str, ...]
    findings: tuple[RuleFinding, ...] = ()
    adjacent: int = 0
    adjacent_shown: int = 0
    interacting: int = 0
    interacting_hit: int = 0
    given: Mapping[str, str] = field(default_factory=dict)
    asked: Mapping[str, str] = field(default_factory=dict)

    @property
    def coverage(self) -> float | None:
        """Share of the rules that some case hits; None for a model without rules."""
        return 1 - len(self.not_hit) / self.rules if self.rules else None

    @property
    def not_proven(self) -> tuple[tuple[str, str], ...]:
        """Rules that no case hits although nothing proves that none can."""
        proven = {finding.rule for finding in self.findings if finding.kind not in ("overlap", "cell")}
        return tuple(pair for pair in self.not_hit if pair[0] not in proven)

    @property
    def coverage_of_possible(self) -> float | None:
        """Share of the rules not proven unreachable that some case hits; None where there are none."""
        hit = self.rules - len(self.not_hit)
        possible = hit + len(self.not_proven)
        return hit / possible if possible else None


def import_decision(
    file: Path,
    id: str,  # noqa: A002 (the registry's name for it)
    out: Path,
    *,
    rules: Rules = "hidden",
    seed: int = 0,
    sizes: Mapping[Split, int] | None = None,
    outputs: Sequence[str] = (),
    now: str | None = None,
    description: str = "",
    keep: Sequence[str] = (),
    shares: bool = True,
    contrast: bool = True,
    how: ReadOptions = SANDBOXED,
    force: bool = False,
) -> DecisionImportReport:
    """Turn the decision model in `file` into the environment folder `out`.

    Args:
        rules: whether the prompt shows the rules.
        sizes: tasks wanted by split, by default `split_sizes` of the rules that can be hit; fewer distinct
            cases are shared out in the same proportion.
        outputs: output fields to ask for; by default those the model computes.
        now: a moment (ISO 8601) at which the model's clock is stopped; it is shown in each case as `now`.
        keep: names of files in an old `out` that are carried over.
        shares: give each rule and each answer its share; without it tasks are balanced over patterns of rules.
        contrast: look for minimal pairs and interacting rules, and keep the pairs.
        how: how the file is read. Without `decisions` those of a DMN file are asked for that no other one
            requires, or where these are constant, others.
        force: replace `out` also where its files were edited.

    Raises:
        DecisionError: the model does not load, holds nothing to learn, or is not a function of its input (it
            reads the clock or draws random numbers).
        ConfigError: a wrong id, moment or output field.
        OutputError: `out` is no environment that was imported, or was edited and `force` is not given.
    """
    check_id(id)
    claim_folder(out, FOLDER, force=force)
    if sizes is not None and (not sum(sizes.values()) or min(sizes.values()) < 0):
        raise ConfigError(f"sizes {dict(sizes)}: give the number of tasks by split, at least one in all")
    search = 0 if shares or sizes is None else int(_SURPLUS * sum(sizes.values()))

    def read(names: Sequence[str]) -> RuleModel:
        return read_model(file, replace(how, decisions=tuple(names)))

    sample = partial(sampled_question, now=now, seed=seed, search=search, outputs=outputs)
    question = first_that_varies(read, how.decisions, sample, only=bool(how.decisions or outputs))
    model, known, sampler, sampled = question.model, question.known, question.sampler, question.sampled
    fields, warnings = question.fields, question.warnings
    sizes = sizes or split_sizes(len(model.rules.keys() - known.unreachable))
    wanted = sum(sizes.values())
    if shares:
        add_fair_shares(sampler, sampled, fields, seed, wanted)
    pairs = find_pairs(sampler, sampled, known, fields) if contrast else RulePairs()
    usable = [s for s in sampled.samples if project(s.evaluation.output, fields)]
    if len(usable) < len(SPLITS):
        raise DecisionError(f"{file}: decides only {len(usable)} distinct cases; three splits need three")
    minimal = _usable(pairs, usable)
    chosen: Sequence[DecidedCase] = select(usable, wanted, seed, pairs=minimal, fields=fields if shares else ())
    if shares:
        chosen = without_surplus(chosen, fields)
    assigned = assign_splits(chosen, sizes, minimal)
    config = DecisionConfig(
        id=id,
        kind="decision",
        description=description,
        rules=rules,
        outputs=fields,
        seed=seed,
        now=now or "",
        decisions=question.decisions,
    )
    make = TaskMaker(sampler.conditions, fields, optional=_is_optional(usable, fields), pairs=minimal)
    tasks = {split: [make(sample, split, assigned[split]) for sample in assigned[split]] for split in SPLITS}
    in_tasks = {rule for samples in assigned.values() for s in samples for rule in s.evaluation.rules}
    warnings += _shortfalls(sampled, len(chosen), wanted)
    warnings += filter(
        None, [too_few(len(chosen)), too_low(len(in_tasks), len(model.rules.keys() - known.unreachable))]
    )
    neighbours = pairs.outcomes(model)
    report = DecisionImportReport(
        id=id,
        folder=out,
        counts={split: len(tasks[split]) for split in SPLITS},
        outputs=tuple(fields),
        rules=len(model.rules),
        not_hit=tuple((rule.id, rule.text) for rule in model.rules.values() if rule.id not in sampled.hit),
        without_task=tuple(rule for rule in model.rules if rule in sampled.hit - in_tasks),
        patterns=len({s.evaluation.rules for s in chosen}),
        evaluations=sampled.evaluations,
        warnings=tuple(warnings),
        findings=known.findings,
        adjacent=len(neighbours),
        adjacent_shown=sum(neighbours.values()),
        interacting=len(pairs.interacting),
        interacting_hit=len(pairs.hit),
        given=value_types(s.case for s in usable),
        asked=value_types(project(s.evaluation.output, fields) for s in usable),
    )
    write_folder(out, config_text(config), model.files, tasks, _readme(report, config), keep=keep, force=force)
    return report


def check_id(id: str) -> None:  # noqa: A002
    """
    Raises:
        ConfigError: not an environment's id.
    """
    if not is_env_id(id):
        raise ConfigError(f"environment id {id!r}: the form is namespace/Name-v0")


def _usable(pairs: RulePairs, samples: Sequence[DecidedCase]) -> list[MinimalPair]:
    """The minimal pairs both of whose cases can be tasks."""
    known = {id(sample) for sample in samples}
    return [pair for pair in pairs.round_robin() if {id(pair.one), id(pair.other)} <= known]


def _is_optional(samples: Sequence[DecidedCase], fields: Sequence[str]) -> bool:
    """Whether some field is missing from some answer."""
    return fields[0] != WHOLE and any(not project(s.evaluation.output, [f]) for f in fields for s in samples)


def _shortfalls(sampled: SampledCases, chosen: int, wanted: int) -> list[str]:
    found = []
    if chosen < wanted:
        found.append(f"only {chosen} distinct cases were found, {wanted} were asked for")
    if sampled.refused:
        found.append(f"the engine refused {sampled.refused} of the cases tried: {sampled.refusal}")
    return found


def _readme(report: DecisionImportReport, config: DecisionConfig) -> str:
    coverage = "none (the model has no tables)" if report.coverage is None else f"{report.coverage:.0%}"
    counts = ", ".join(f"{report.counts[split]} {split}" for split in SPLITS)
    lines = [
        f"# {report.id}",
        "",
        *([config.description, ""] if config.description else []),
        "A task shows one case as JSON and asks for the decision as JSON; the answer is what the rule engine",
        "says about `decision.json`.",
        "",
        f"- Tasks: {counts}, over {report.patterns} patterns of rules; seed {config.seed}.",
        f"- Asked for: {', '.join(f'`{name}`' for name in report.outputs)}.",
        f"- Rules hit: {coverage}{f' of {report.rules}' if report.rules else ''}.",
        *(f"- Note: {warning}." for warning in report.warnings),
    ]
    if report.without_task:
        names = ", ".join(f"`{rule}`" for rule in report.without_task)
        lines.append(f"- Hit only where nothing asked for is decided, so without a task: {names}.")
    if report.adjacent:
        lines.append(
            f"- Neighbouring outcomes shown by a minimal pair: {report.adjacent_shown} of {report.adjacent}."
        )
    if report.interacting:
        hit = f"{report.interacting_hit} of {report.interacting}"
        lines.append(f"- Pairs of rules that may meet in one case, hit: {hit}.")
    if report.findings:
        lines += ["", "Faults in the rules, proven for all inputs:", ""]
        lines += [f"- `{f.rule}` {f.text}: {f.kind}, {f.reason}" for f in report.findings]
    if report.not_proven:
        lines += ["", "Rules that no case hits, without a proof that none can:", ""]
        lines += [f"- `{rule}` {text}" for rule, text in report.not_proven]
    return "\n".join(lines) + "\n"
