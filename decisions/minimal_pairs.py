"""Pairs of rules: those that meet at a boundary, and those that work together; and the cases that show them.

*Adjacent*: two rules of a table or switch, with different outcomes, whose regions are one column apart: a
value of one column decides which of the two applies. A *minimal pair* shows it: two cases that differ in one
input field and in the answer, one on each side.

*Interacting*: a rule of one node and a rule of a later node that one case may hit (what no state of
`symbolic.py` reaches is proven not to interact).

After the sampler has found cases, `find_pairs` completes them: for an adjacent pair without a minimal pair it
changes one field of a case on one side until the other applies; for an interacting pair that no case hits it
crosses two cases. Both are bounded by numbers of evaluations.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, reduce
from hashlib import blake2b
from itertools import combinations, zip_longest
from typing import Any

from vertigym.core.files import dumps
from vertigym.decisions.boxes import Box, differing, hull
from vertigym.decisions.candidates import distinct
from vertigym.decisions.cases import case_key, value_key
from vertigym.decisions.conditions import Field, get, put
from vertigym.decisions.findings import RuleAnalysis, region
from vertigym.decisions.model import Case
from vertigym.decisions.outputs import leaves, project
from vertigym.decisions.protocols import RuleModel
from vertigym.decisions.sampler import DecidedCase, SampledCases, Sampler

_BASES = 8  # cases tried for one side of one pair
_VALUES = 24  # values tried for one field
_FOR_PAIRS = 2500  # evaluations at most for minimal pairs
_FOR_CROSSES = 800  # evaluations at most for interacting pairs
_ADJACENT = 4000  # adjacent pairs looked at in one table
_KEPT = 4  # minimal pairs kept for one adjacent pair
_CROSSES = 6  # crossings tried for one pair


@dataclass(frozen=True, slots=True)
class AdjacentRules:
    """Two rules of `node` one column apart; `columns` are where they can differ (all, where that is not
    known)."""

    node: str
    one: str
    other: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MinimalPair:
    """Two samples that differ in the input field `field` and in the answer."""

    field: str
    one: DecidedCase
    other: DecidedCase


@dataclass(slots=True)
class RulePairs:
    """What was found: minimal pairs for each adjacent pair; interacting pairs and those among them that
    some case hits."""

    minimal: dict[AdjacentRules, list[MinimalPair]] = field(default_factory=dict)
    interacting: set[tuple[str, str]] = field(default_factory=set)
    hit: set[tuple[str, str]] = field(default_factory=set)

    def outcomes(self, model: RuleModel) -> dict[tuple[str, str, str], bool]:
        """(node, one outcome, another) that are adjacent -> whether some minimal pair shows it."""
        shown: dict[tuple[str, str, str], bool] = defaultdict(bool)
        for pair, found in self.minimal.items():
            one, other = sorted(_outcome(model, rule) for rule in (pair.one, pair.other))
            shown[pair.node, one, other] |= bool(found)
        return dict(shown)

    def round_robin(self) -> list[MinimalPair]:
        """All minimal pairs: one of each adjacent pair, then a second one of each, and so on."""
        found = [p for turn in zip_longest(*self.minimal.values()) for p in turn if p]
        return list({(id(p.one), id(p.other)): p for p in found}.values())


def adjacent(model: RuleModel, analysis: RuleAnalysis) -> list[AdjacentRules]:
    """The adjacent pairs of all tables and switches where the first match decides, among rules that are not
    proven unreachable; of a large table those of rules that stand near each other."""
    explorer, gone = analysis.explorer, analysis.unreachable
    found = []
    for node in model.nodes:
        if node.hit_policy != "first":
            continue
        rows = analysis.rows[node.id]
        live = [place for place, row in enumerate(rows) if row.rule.id not in gone]
        regions = [region(explorer, rows, place) for place in live]
        hulls = [reduce(hull, pieces) if pieces else {} for pieces in regions]
        outcomes = [_outcome(model, rows[place].rule.id) for place in live]
        pairs: dict[tuple[int, int], tuple[str, ...]] = {}
        for a, b in _nearest_first(len(live)):
            if len(pairs) == _ADJACENT:
                break
            if outcomes[a] != outcomes[b] and len(differing(hulls[a], hulls[b])) <= 1:
                columns = _apart(regions[a], regions[b])
                if columns is not None:
                    pairs[a, b] = columns
        for (a, b), columns in sorted(pairs.items()):
            found.append(AdjacentRules(node.id, rows[live[a]].rule.id, rows[live[b]].rule.id, columns))
    return found


def _nearest_first(count: int) -> Iterator[tuple[int, int]]:
    """All pairs of places below `count`, neighbours first."""
    for distance in range(1, count):
        for place in range(count - distance):
            yield place, place + distance


def find_pairs(
    sampler: Sampler, sampled: SampledCases, analysis: RuleAnalysis, fields: Sequence[str]
) -> RulePairs:
    """Find minimal pairs and cases for interacting pairs; cases that are new are added to `sampled`."""
    search = _Search(sampler, sampled, analysis, fields)
    search.minimal_pairs()
    search.crossings()
    return search.pairs


class _Search:
    def __init__(
        self, sampler: Sampler, sampled: SampledCases, analysis: RuleAnalysis, fields: Sequence[str]
    ) -> None:
        self.model, self.sampler, self.sampled, self.asked = sampler.model, sampler, sampled, fields
        self.nodes = {node.id: node for node in self.model.nodes}
        self.node_of = {rule.id: node.id for node in self.model.nodes for rule in node.rules}
        self.pairs = RulePairs(
            minimal={pair: [] for pair in adjacent(self.model, analysis)},
            interacting=set(analysis.reached.pairs),
        )
        self.by_rules = {(p.one, p.other): p for p in self.pairs.minimal}
        self.holders: dict[str, list[int]] = defaultdict(list)
        self._by_case: dict[str, DecidedCase] = {}
        self._held = 0
        self._used = set[int]()

    # Minimal pairs.

    def minimal_pairs(self) -> None:
        """Among the samples first, then by changing one field on purpose."""
        self._among_samples()
        budget = _FOR_PAIRS
        for pair in [p for p, found in self.pairs.minimal.items() if not found]:
            for here, there in ((pair.one, pair.other), (pair.other, pair.one)):
                if not self.pairs.minimal[pair] and budget > 0:
                    budget -= self._cross_over(pair, here, there)

    def _among_samples(self) -> None:
        keys = [_LeafKeys(sample.case) for sample in self.sampled.samples]
        for field_ in self.sampler.fields:
            groups: dict[int, list[DecidedCase]] = defaultdict(list)
            for key, sample in zip(keys, self.sampled.samples, strict=True):
                groups[key.without(field_.path)].append(sample)
            for group in groups.values():
                for one, other in combinations(group[:_VALUES], 2) if len(group) > 1 else ():
                    self._note(one, other, field_.name)

    def _note(self, one: DecidedCase, other: DecidedCase, name: str) -> None:
        """Keep two samples that differ in one field, for each adjacent pair that they show."""
        left, right = set(one.evaluation.rules), set(other.evaluation.rules)
        if left == right or self._answer(one) == self._answer(other):
            return
        for a in left - right:
            for b in right - left:
                for key, first, second in (((a, b), one, other), ((b, a), other, one)):
                    if pair := self.by_rules.get(key):
                        self._keep(self.pairs.minimal[pair], MinimalPair(name, first, second))

    def _keep(self, found: list[MinimalPair], new: MinimalPair) -> None:
        """The first minimal pair in any case, further ones only where neither case is in another."""
        halves = {id(new.one), id(new.other)}
        if not found or (len(found) < _KEPT and not halves & self._used):
            found.append(new)
            self._used |= halves

    def _cross_over(self, pair: AdjacentRules, here: str, there: str) -> int:
        """Change one field of cases that hit `here` until they hit `there`; how many evaluations that took."""
        spent = 0
        node = self.nodes[pair.node]
        names = {n for column in pair.columns for n in self.sampler.conditions.sources(column, node)}
        donors = [self.sampled.samples[i] for i in self._holding(there)[:_BASES]]
        for base in [self.sampled.samples[i] for i in self._spread(self._holding(here))]:
            for field_ in [self.sampler.by_name[n] for n in sorted(names & self.sampler.by_name.keys())]:
                for value in self._values(field_, donors):
                    spent += 1
                    changed = self._added(put(base.case, field_.path, value))
                    if changed and there in changed.evaluation.rules:
                        self._note(base, changed, field_.name)
                    if self.pairs.minimal[pair]:
                        return spent
        return spent

    def _values(self, field_: Field, donors: Sequence[DecidedCase]) -> list[Any]:
        given = [get(donor.case, field_.path) for donor in donors]
        return list(distinct((*given, *field_.near[:_VALUES])))[:_VALUES]

    # Interacting pairs.

    def crossings(self) -> None:
        """Note the pairs that some case hits; for the others, cross a case of one rule with a case of the
        other."""
        self._note_hits(self.sampled.samples)
        budget = _FOR_CROSSES
        for one, other in sorted(self.pairs.interacting - self.pairs.hit):
            if budget > 0:
                budget -= self._cross(one, other)

    def _cross(self, one: str, other: str) -> int:
        spent = 0
        names = self._asked_by(other)
        for a, b in list(
            zip(self._spread(self._holding(one)), self._spread(self._holding(other)), strict=False)
        )[:_CROSSES]:
            case, donor = self.sampled.samples[a].case, self.sampled.samples[b].case
            for name in sorted(names & self.sampler.by_name.keys()):
                case = put(case, self.sampler.by_name[name].path, get(donor, self.sampler.by_name[name].path))
            spent += 1
            if made := self._added(case):
                self._note_hits([made])
            if (one, other) in self.pairs.hit:
                break
        return spent

    def _asked_by(self, rule: str) -> frozenset[str]:
        """Input fields behind a rule's own conditions."""
        node = self.nodes[self.node_of[rule]]
        cells = [(column, cell) for column, cell in self.model.rules[rule].cells if cell]
        return frozenset(
            n for column, cell in cells for n in self.sampler.conditions.sources(column or cell, node)
        )

    def _note_hits(self, samples: Sequence[DecidedCase]) -> None:
        for sample in samples:
            rules = sample.evaluation.rules
            self.pairs.hit |= {(a, b) for a in rules for b in rules} & self.pairs.interacting

    # Samples.

    def _added(self, case: Mapping[str, Any]) -> DecidedCase | None:
        """The sample of a case, new or found before; None where it cannot be decided or has no answer."""
        self.sampler.add(dict(case))
        for known in self.sampled.samples[len(self._by_case) :]:
            self._by_case[case_key(known.case)] = known
        sample = self._by_case.get(case_key({**case, **self.sampler.fixed}))
        return sample if sample and self._answer(sample) else None

    def _answer(self, sample: DecidedCase) -> Any:
        return project(sample.evaluation.output, self.asked)

    def _holding(self, rule: str) -> list[int]:
        """Indices of the samples that hit a rule."""
        for index in range(self._held, len(self.sampled.samples)):
            for name in self.sampled.samples[index].evaluation.rules:
                self.holders[name].append(index)
        self._held = len(self.sampled.samples)
        return self.holders[rule]

    @staticmethod
    def _spread(found: Sequence[int]) -> list[int]:
        """A few of them, evenly spread."""
        step = max(len(found) // _BASES, 1)
        return list(found[::step][:_BASES])


class _LeafKeys:
    """A case as a sum of hashes, one a leaf, so that it is quickly known without one of its fields."""

    def __init__(self, case: Case) -> None:
        self._of = {path: _hash(path, value_key(value)) for path, value in leaves(case) if value is not None}
        self._sum = sum(self._of.values())

    def without(self, path: tuple[str, ...]) -> int:
        """The key of the case with nothing at `path`."""
        if path in self._of:
            return self._sum - self._of[path]
        return self._sum - sum(key for at, key in self._of.items() if at[: len(path)] == path)


@lru_cache(maxsize=1 << 16)
def _hash(path: tuple[str, ...], value: str) -> int:
    text = dumps([path, value]).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=16).digest(), "big")


def _apart(here: Sequence[Box], there: Sequence[Box]) -> tuple[str, ...] | None:
    """The columns that alone can lead from one region to the other; None where several must change at once."""
    columns: dict[str, None] = {}
    for one in here:
        for other in there:
            differ = differing(one, other)
            if len(differ) <= 1:
                columns.update(dict.fromkeys(differ or (*one, *other)))
    return tuple(sorted(name.partition(" with ")[0] for name in columns)) or None


def _outcome(model: RuleModel, rule: str) -> str:
    """What a rule decides, as text; a switch's branch is its own outcome."""
    return dumps(model.rules[rule].outcome) if model.rules[rule].outcome else rule
