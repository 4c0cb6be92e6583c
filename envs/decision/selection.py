"""Which of the cases found become tasks, and in which split.

Minimal pairs come first, both halves in one split; then cases for every rule, a quarter of an equal share;
then all outcomes in turn, and within an outcome the patterns of rules in turn, so that neither a common outcome
nor a common pattern crowds out the others. Cases drawn over a rule's region come before those found at limits.
Each split sees each rule as far as its cases go.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from vertigym.core.files import dumps
from vertigym.core.seeds import generator
from vertigym.core.types import SPLITS, Split, Task
from vertigym.decisions.conditions import Conditions
from vertigym.decisions.fair_shares import Outcomes
from vertigym.decisions.minimal_pairs import MinimalPair
from vertigym.decisions.model import Case
from vertigym.decisions.outputs import project
from vertigym.decisions.sampler import DecidedCase
from vertigym.envs.check.amounts import LEAST_CASES
from vertigym.envs.decision.prompts import case_prompt
from vertigym.rewards.decision import DecisionVerifier

_PER_RULE = 6  # cases kept for every rule before anything else
_SHARE = 4  # the same: an equal share by so much
_IN_PAIRS = 0.5  # share of the tasks that minimal pairs take at most
_GUESS = 0.55  # what always giving the most common outcome may earn where the others have enough cases
_ROUNDS = 12  # the same, at most
_EACH, _FEWEST, _MOST = 40, 600, 2000  # eval tasks of a rule, and of all rules
_TRAIN = 6000  # tasks to train on


def split_sizes(rules: int) -> dict[Split, int]:
    """Tasks by split for a model of so many rules: what a gate needs to show something.

    A change of one rule among few gains about five points; 300 eval tasks show that in two evals of five, 1,000
    in nine of ten (docs/statistics.md). 40 tasks of a rule without a loss show that it lost less than ten
    points, in the last of six looks of a run: 0.9^40 = 1.5%. The test split is to show as much. Of too few
    tasks to train on a model learns the cases rather than the rules (docs/log.md).
    """
    shown = min(max(_EACH * rules, _FEWEST), _MOST)
    return {"train": _TRAIN, "eval": shown, "test": shown}


def select(
    samples: Sequence[DecidedCase],
    wanted: int,
    seed: int,
    *,
    pairs: Sequence[MinimalPair] = (),
    fields: Sequence[str] = (),
) -> list[DecidedCase]:
    """At most `wanted` samples. With the output `fields` that are asked for the outcomes take turns; without,
    only the patterns of rules do."""
    name = Outcomes(samples, fields)
    outcomes = {id(sample): name(sample) for sample in samples} if fields else {}
    order = [samples[int(i)] for i in generator(seed, "decision", "choose").permutation(len(samples))]
    wanted = min(wanted, len(order))
    kept: dict[int, DecidedCase] = {}
    for pair in pairs:
        if len(kept) + 2 <= _IN_PAIRS * wanted:
            kept |= {id(pair.one): pair.one, id(pair.other): pair.other}
    counts: dict[str, int] = defaultdict(int)
    for sample in kept.values():
        _count(sample, counts)
    rules = {rule for sample in order for rule in sample.evaluation.rules}
    floor = max(_PER_RULE, wanted // (_SHARE * len(rules))) if fields and rules else _PER_RULE
    for sample in _in_turn(sorted(order, key=lambda s: s.drawn), outcomes) if fields else order:
        if len(kept) < wanted and any(counts[rule] < floor for rule in sample.evaluation.rules):
            if id(sample) not in kept:
                _count(sample, counts)
            kept[id(sample)] = sample
    turns = _in_turn(sorted((s for s in order if id(s) not in kept), key=lambda s: s.drawn), outcomes)
    while len(kept) < wanted:
        sample = next(turns)
        kept[id(sample)] = sample
    return list(kept.values())


def without_surplus(kept: Sequence[DecidedCase], fields: Sequence[str]) -> Sequence[DecidedCase]:
    """The cases of an environment without the last ones of the most common outcomes, as long as always giving
    one earns more than `_GUESS` and enough cases are left."""
    name, score = Outcomes(kept, fields), DecisionVerifier()
    outcomes = {id(sample): name(sample) for sample in kept}
    for _ in range(_ROUNDS):
        by_outcome: dict[str, list[DecidedCase]] = defaultdict(list)
        for sample in kept:
            by_outcome[outcomes[id(sample)]].append(sample)
        common = max(by_outcome.values(), key=len)
        others = [sample for samples in by_outcome.values() if samples is not common for sample in samples]
        guess, *answers = (project(sample.evaluation.output, fields) for sample in (common[0], *others))
        partly = sum(score(dumps(guess), answer).value or 0.0 for answer in answers)
        room = max(int((_GUESS * len(others) - partly) / (1 - _GUESS)), LEAST_CASES - len(others), 1)
        if not others or room >= len(common):
            break
        gone = set(map(id, common[room:]))
        kept = [sample for sample in kept if id(sample) not in gone]
    return kept


def _count(sample: DecidedCase, counts: dict[str, int]) -> None:
    for rule in sample.evaluation.rules:
        counts[rule] += 1


def _in_turn(samples: Sequence[DecidedCase], outcomes: Mapping[int, str]) -> Iterator[DecidedCase]:
    """The samples, one of each outcome in turn, and of an outcome one of each pattern, the last first."""
    waiting: dict[str, dict[tuple[str, ...], list[DecidedCase]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        waiting[outcomes.get(id(sample), "")][sample.evaluation.rules].append(sample)
    streams = [_patterns(patterns) for patterns in waiting.values()]
    while streams:
        for stream in list(streams):
            found = next(stream, None)
            if found is None:
                streams.remove(stream)
            else:
                yield found


def _patterns(patterns: Mapping[tuple[str, ...], list[DecidedCase]]) -> Iterator[DecidedCase]:
    while any(patterns.values()):
        for cases in patterns.values():
            if cases:
                yield cases.pop()


def assign_splits(
    samples: Sequence[DecidedCase], sizes: Mapping[Split, int], pairs: Sequence[MinimalPair] = ()
) -> dict[Split, list[DecidedCase]]:
    """Share the samples out in proportion to `sizes`: the minimal pairs whole, then so that each split sees
    each rule, as far as its cases go, then pattern by pattern."""
    share = min(1.0, len(samples) / sum(sizes.values()))
    quota = {split: max(sizes[split] * share, 1) for split in SPLITS if sizes[split]}
    assigned: dict[Split, list[DecidedCase]] = {split: [] for split in SPLITS}
    gone = set[int]()
    for pair in _whole(samples, pairs):
        split = min(quota, key=lambda s: (len(assigned[s]) + 2) / quota[s])
        if len(assigned[split]) + 2 <= quota[split]:
            assigned[split] += [pair.one, pair.other]
            gone |= {id(pair.one), id(pair.other)}
    rest = _one_of_each([s for s in samples if id(s) not in gone], quota, assigned)
    for sample in sorted(rest, key=lambda s: s.evaluation.rules):
        assigned[min(quota, key=lambda s: (len(assigned[s]) + 1) / quota[s])].append(sample)
    return assigned


def _whole(samples: Sequence[DecidedCase], pairs: Sequence[MinimalPair]) -> Iterator[MinimalPair]:
    """Pairs both of whose halves were chosen, no case twice."""
    free = {id(sample) for sample in samples}
    for pair in pairs:
        if {id(pair.one), id(pair.other)} <= free:
            free -= {id(pair.one), id(pair.other)}
            yield pair


def _one_of_each(
    samples: Sequence[DecidedCase], quota: Mapping[Split, float], assigned: Mapping[Split, list[DecidedCase]]
) -> list[DecidedCase]:
    """Assign one case of each rule, the rarest first, to each split that has none yet and has room; gives back
    what is left."""
    holders: dict[str, list[DecidedCase]] = defaultdict(list)
    for sample in samples:
        for rule in sample.evaluation.rules or ("",):
            holders[rule].append(sample)
    gone: set[int] = set()
    for rule, cases in sorted(holders.items(), key=lambda item: (len(item[1]), item[0])):
        for split in quota:
            has = any(rule in s.evaluation.rules for s in assigned[split])
            free = next((s for s in cases if id(s) not in gone), None)
            if free and not has and len(assigned[split]) < quota[split]:
                assigned[split].append(free)
                gone.add(id(free))
    return [sample for sample in samples if id(sample) not in gone]


class TaskMaker:
    """Makes a Task of a sample. `info` says the case, the rules it hits, its difficulty (the rules it hits plus
    the input fields that must be looked at to see so), and for a half of a minimal pair the other half."""

    def __init__(
        self,
        conditions: Conditions,
        fields: Sequence[str],
        *,
        optional: bool,
        pairs: Sequence[MinimalPair] = (),
    ) -> None:
        self._fields, self._optional = fields, optional
        self._looked_at = looked_at(conditions)
        self._pairs: dict[int, tuple[DecidedCase, str]] = {}
        for pair in pairs:
            for one, other in ((pair.one, pair.other), (pair.other, pair.one)):
                self._pairs.setdefault(id(one), (other, pair.field))

    def __call__(self, sample: DecidedCase, split: Split, together: Sequence[DecidedCase] = ()) -> Task:
        """The task; `together` are the samples of its split."""
        rules = list(sample.evaluation.rules)
        info: dict[str, Any] = {"input": sample.case, "rules": rules, "difficulty": self.difficulty(sample)}
        other, name = self._pairs.get(id(sample), (None, ""))
        if other is not None and any(other is s for s in together):
            info["pair"] = {"task": task_id(other.case), "field": name}
        return Task(
            id=(name := task_id(sample.case)),
            prompt=case_prompt(sample.case, self._fields, optional=self._optional),
            answer=project(sample.evaluation.output, self._fields),
            info=info,
            split=split,
            cluster=name,
        )

    def difficulty(self, sample: DecidedCase) -> int:
        """Rules hit plus distinct input fields looked at."""
        rules = sample.evaluation.rules
        return len(rules) + len(frozenset().union(*(self._looked_at[rule] for rule in rules)))


def looked_at(conditions: Conditions) -> dict[str, frozenset[str]]:
    """Rule -> the input fields behind its conditions and, where the first match decides, those before it."""
    found: dict[str, frozenset[str]] = {}
    for node in conditions.nodes:
        before: frozenset[str] = frozenset()
        for rule in node.rules:
            own = frozenset(n for c, cell in rule.cells if cell for n in conditions.sources(c or cell, node))
            found[rule.id] = own | before
            before = found[rule.id] if node.hit_policy == "first" else before
    return found


def task_id(case: Case) -> str:
    """A hash of the case."""
    return blake2b(dumps(case).encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()
