"""What a change of the rules changes: which cases get another answer, and which rules did it.

The cases are those that reach every rule and boundary of the old model and of the new one, so an answer that
changes only between an old and a new threshold is among them. From them an environment can be written whose
tasks say `info.change`, "changed" or "same", with the old model beside the new one, and suites with gates:
learn the change, keep the rest."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vertigym.core.errors import ConfigError
from vertigym.core.files import dumps
from vertigym.core.types import SPLITS, Split, Task
from vertigym.decisions.cases import case_key, value_key
from vertigym.decisions.conditions import Conditions
from vertigym.decisions.fair_shares import add_fair_shares
from vertigym.decisions.findings import analyse
from vertigym.decisions.formats import ReadOptions, guess, read_model
from vertigym.decisions.minimal_pairs import find_pairs
from vertigym.decisions.model import Case, CaseError
from vertigym.decisions.outputs import computed_fields, project
from vertigym.decisions.protocols import RuleModel
from vertigym.decisions.sampler import DecidedCase, Sampler
from vertigym.envs.decision.config import (
    MODEL_FILES,
    OLD_FILES,
    DecisionConfig,
    Rules,
    RulesConfig,
    config_text,
    write_folder,
)
from vertigym.envs.decision.scripts import SANDBOXED
from vertigym.envs.decision.selection import TaskMaker, assign_splits, select, without_surplus
from vertigym.envs.folders import EnvFolder

SIZES: Mapping[Split, int] = {"train": 6000, "eval": 400, "test": 400}
REFUSED = "refused"  # the answer of a model that cannot decide a case
_CASES = 6000  # sampled from each of the two models
CHANGED, SAME = "changed", "same"

_SUITE = """\
# {title}
name = "{name}"
metrics = ["exact"]
{parts}
[sampling]
max_tokens = {tokens}
{gates}"""
_PART = """
[[env]]
id = "."
name = "{change}"
split = "eval"
args = {{ only = "{change}" }}
"""
_IMPROVES = """
[[gate]]
rule = "improves"
metric = "exact"
env = "changed"
"""
_KEEPS = """
[[gate]]
rule = "not_worse"
metric = "exact"
margin = 0.05
env = "same"
against = "start"
"""


@dataclass(frozen=True, slots=True)
class RuleChange:
    """Cases that change their answer for one reason: the rules (id, text) that applied before and no longer do,
    and those that apply now. Without any, an expression or a script did it."""

    before: tuple[tuple[str, str], ...]
    now: tuple[tuple[str, str], ...]
    cases: int
    example: Case
    old_answer: Any
    new_answer: Any


@dataclass(frozen=True, slots=True)
class RuleDifference:
    """Two models compared on `cases` cases; `removed` and `added` are rules (node, text) of one of them only,
    `nodes` the expressions and scripts that differ."""

    cases: int
    changed: int
    fields: tuple[str, ...]
    changes: tuple[RuleChange, ...]
    removed: tuple[str, ...]
    added: tuple[str, ...]
    nodes: tuple[str, ...]

    @property
    def share(self) -> float:
        """Share of the cases that change their answer."""
        return self.changed / self.cases if self.cases else 0.0


@dataclass(frozen=True, slots=True)
class _ComparedCase:
    """A case under both models; an answer is REFUSED where the model cannot decide it."""

    case: Case
    old: DecidedCase | None
    new: DecidedCase | None
    old_answer: Any
    new_answer: Any

    @property
    def is_changed(self) -> bool:
        return value_key(self.old_answer) != value_key(self.new_answer)


class RuleComparison:
    """Two models and the cases they were compared on.

    Raises:
        ConfigError: there is no case that both models know.
    """

    def __init__(self, old: RuleModel, new: RuleModel, *, seed: int = 0, cases: Sequence[Case] = ()) -> None:
        self.old, self.new, self.seed = old, new, seed
        found = [*cases, *(case for model in (old, new) for case in _sampled(model, seed))]
        unique = list({case_key(case): case for case in reversed(found)}.values())[::-1]
        sides = [[_decided(model, case) for case in unique] for model in (old, new)]
        asked = dict[str, None]()
        for model, side in ((new, sides[1]), (old, sides[0])):
            asked |= dict.fromkeys(computed_fields(model, [(s.case, s.evaluation.output) for s in side if s]))
        if not asked:
            raise ConfigError("neither model decides anything in any case: nothing to compare")
        self.fields = list(asked)
        self.compared = [
            _ComparedCase(case, a, b, _answer(a, self.fields), _answer(b, self.fields))
            for case, a, b in zip(unique, *sides, strict=True)
            if a or b
        ]

    def difference(self) -> RuleDifference:
        """Which cases change their answer, grouped by the rules that did it, the most cases first."""
        groups: dict[Any, list[_ComparedCase]] = defaultdict(list)
        for compared in self.compared:
            if compared.is_changed:
                groups[_reason(compared, self.old, self.new)].append(compared)
        changes = [
            RuleChange(before, now, len(found), found[0].case, found[0].old_answer, found[0].new_answer)
            for (before, now), found in groups.items()
        ]
        old_rules, new_rules = (_rule_texts(model) for model in (self.old, self.new))
        return RuleDifference(
            cases=len(self.compared),
            changed=sum(len(found) for found in groups.values()),
            fields=tuple(self.fields),
            changes=tuple(sorted(changes, key=lambda change: -change.cases)),
            removed=tuple(text for text in old_rules if text not in new_rules),
            added=tuple(text for text in new_rules if text not in old_rules),
            nodes=tuple(_other_nodes(self.old, self.new)),
        )

    def write(
        self,
        out: Path,
        name: str,
        *,
        sizes: Mapping[Split, int] = SIZES,
        rules: Rules = "hidden",
        force: bool = False,
    ) -> dict[Split, dict[str, int]]:
        """Write the environment `name` of the change and its suites; gives back the tasks by split and change.

        Half of the tasks are changed cases, as far as there are enough.

        Raises:
            ConfigError: no case changes its answer, or too few do for three splits. OutputError: as in
                `import_decision`.
        """
        usable = [
            compared.new for compared in self.compared if compared.new is not None and compared.new_answer
        ]
        changed = {id(compared.new) for compared in self.compared if compared.is_changed}
        groups = {
            CHANGED: [sample for sample in usable if id(sample) in changed],
            SAME: [sample for sample in usable if id(sample) not in changed],
        }
        if min(map(len, groups.values())) < len(SPLITS):
            counts = f"{len(groups[CHANGED])} cases change their answer and {len(groups[SAME])} keep it"
            raise ConfigError(f"{counts}: each split needs one of both")
        tasks: dict[Split, list[Task]] = {split: [] for split in SPLITS}
        make = TaskMaker(Conditions(self.new), self.fields, optional=_has_gaps(usable, self.fields))
        halves = {split: -(-size // 2) for split, size in sizes.items()}
        most = sum(halves.values())
        same, other = (select(groups[name], most, self.seed, fields=self.fields) for name in (SAME, CHANGED))
        kept = without_surplus([*same, *other], self.fields)  # what is left out is left out of the changed ones
        for change in (CHANGED, SAME):
            chosen = [sample for sample in kept if (id(sample) in changed) == (change == CHANGED)]
            for split, assigned in assign_splits(chosen, halves).items():
                tasks[split] += [_tagged(make(sample, split), change) for sample in assigned]
        config = DecisionConfig(
            id=name,
            kind="decision",
            description="A change of the rules.",
            rules=rules,
            outputs=tuple(self.fields),
        )
        longest = max(len(dumps(task.answer)) for split in SPLITS for task in tasks[split])
        (old_name, old_text), *imports = self.old.files.items()
        if imports:
            raise ConfigError(f"{self.old.source}: it imports {imports[0][0]}; put both into one file first")
        old_file = OLD_FILES[MODEL_FILES.index(old_name)]
        extra = {old_file: old_text, **suites(tokens=longest + 8)}
        text, readme = config_text(config), self._readme(name)
        write_folder(out, text, self.new.files, tasks, readme, extra=extra, force=force)
        return {
            split: {c: sum(task.info["change"] == c for task in tasks[split]) for c in (CHANGED, SAME)}
            for split in SPLITS
        }

    def _readme(self, name: str) -> str:
        found = self.difference()
        lines = [f"# {name}", "", f"{found.changed} of {found.cases} cases change their answer.", ""]
        lines += [f"- {change_text(change)}" for change in found.changes[:20]]
        lines += ["", "`change.toml`: learn the change, keep the rest. `changed.toml`: only the changed cases."]
        return "\n".join(lines) + "\n"


def compare_files(
    old: Path,
    new: Path,
    *,
    seed: int = 0,
    now: str | None = None,
    how: ReadOptions = SANDBOXED,
) -> RuleComparison:
    """Two files of rules, or environment folders, compared; `now` stops the clock of models that read it,
    `how` says how the files are read.

    Raises:
        DecisionError: one of them cannot be used. ConfigError: as `RuleComparison`.
    """
    models = [_model(path, how) for path in (old, new)]
    old_model, new_model = (model.at(now) if now else model for model in models)
    for model in (old_model, new_model):
        if model.clock_readers() or model.impure():
            raise ConfigError(f"{model.source}: it reads the clock or draws random numbers; give --now")
    return RuleComparison(old_model, new_model, seed=seed)


def _model(path: Path, how: ReadOptions) -> RuleModel:
    """The model in a file, or in an environment's folder."""
    if not path.is_dir():
        return read_model(path, how if guess(path) in ("csv", "xlsx") else replace(how, columns={}))
    folder = EnvFolder(path)
    config = RulesConfig.model_validate(
        {k: v for k, v in folder.table.items() if k in RulesConfig.model_fields}
    )
    return config.model(folder, how.scripts)


def suites(*, tokens: int) -> dict[str, str]:
    """The suite files of a change, by name."""
    changed, same = (_PART.format(change=change) for change in (CHANGED, SAME))
    both = _SUITE.format(
        title="Learn the change, keep the rest.", name="change", parts=changed + same, tokens=tokens,
        gates=_IMPROVES + _KEEPS,
    )  # fmt: skip
    only = _SUITE.format(
        title="Only the cases that change their answer.", name="changed", parts=changed, tokens=tokens,
        gates=_IMPROVES,
    )  # fmt: skip
    return {"change.toml": both, "changed.toml": only}


def change_text(change: RuleChange) -> str:
    """`31 cases: fee:2 amount > 50 -> fee 5 gives way to fee:2 amount > 80 -> fee 5`."""
    before = "; ".join(f"{rule} ({text})" for rule, text in change.before)
    now = "; ".join(f"{rule} ({text})" for rule, text in change.now)
    if before and now:
        reason = f"{before} gives way to {now}"
    elif before or now:
        reason = f"{before} no longer applies" if before else f"{now} applies"
    else:
        reason = "the same rules apply; an expression or a script differs"
    return f"{change.cases} case{'s' if change.cases > 1 else ''}: {reason}"


def change_lines(found: RuleDifference, most: int = 12) -> list[str]:
    """The difference as lines of text: rules that went and came, then each reason with an example."""
    lines = [f"cases:     {found.changed} of {found.cases} change their answer ({found.share:.0%})"]
    for mark, texts in (("-", found.removed), ("+", found.added), ("~", found.nodes)):
        lines += [f"  {mark} {text}" for text in texts]
    for change in found.changes[:most]:
        lines += [change_text(change), f"  {dumps(change.example)}"]
        lines.append(f"  {dumps(change.old_answer)} -> {dumps(change.new_answer)}")
    if len(found.changes) > most:
        lines.append(f"and {len(found.changes) - most} further reasons (--json lists all)")
    return lines


def _sampled(model: RuleModel, seed: int) -> list[Case]:
    """Cases that reach every rule and every boundary of a model."""
    known = analyse(model)
    sampler = Sampler(model, seed, known=known)
    found = sampler.run(0)
    fields = computed_fields(model, ((s.case, s.evaluation.output) for s in found.samples))
    add_fair_shares(sampler, found, fields, seed, _CASES)
    find_pairs(sampler, found, known, fields)
    return [sample.case for sample in found.samples]


def _decided(model: RuleModel, case: Case) -> DecidedCase | None:
    try:
        return DecidedCase(case, model.evaluate(case))
    except CaseError:
        return None


def _answer(sample: DecidedCase | None, fields: Sequence[str]) -> Any:
    return REFUSED if sample is None else project(sample.evaluation.output, fields)


def _reason(compared: _ComparedCase, old: RuleModel, new: RuleModel) -> Any:
    """The rules that applied before and whose like no longer does, and those that apply now."""
    before, now = (
        {(model.rules[r].node, model.rules[r].text): r for r in (sample.evaluation.rules if sample else ())}
        for model, sample in ((old, compared.old), (new, compared.new))
    )
    gone = tuple((rule, text) for (node, text), rule in before.items() if (node, text) not in now)
    came = tuple((rule, text) for (node, text), rule in now.items() if (node, text) not in before)
    return gone, came


def _rule_texts(model: RuleModel) -> dict[str, None]:
    return {f"{rule.node}: {rule.text}": None for rule in model.rules.values()}


def _other_nodes(old: RuleModel, new: RuleModel) -> list[str]:
    """Names of expressions and scripts that are not the same in both."""
    sides = [{node.name: (node.expressions, node.source) for node in m.nodes} for m in (old, new)]
    names = dict.fromkeys([*sides[0], *sides[1]])
    return [name for name in names if sides[0].get(name, ((), "")) != sides[1].get(name, ((), ""))]


def _has_gaps(samples: Sequence[DecidedCase], fields: Sequence[str]) -> bool:
    return any(not project(s.evaluation.output, [f]) for f in fields for s in samples)


def _tagged(task: Task, change: str) -> Task:
    """The task with its tag, each a cluster of its own: what is asked is whether these rules were learnt, not
    others like them, so two cases of one rule are two pieces of evidence."""
    return task.model_copy(update={"info": {**task.info, "change": change}, "cluster": ""})
