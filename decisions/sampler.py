"""Cases for a decision model, sampled until every rule that can be hit has been.

Four rounds, each bounded by a number of evaluations, so that one seed always gives the same cases:

1. the inputs of the file's own tests, and each of them with one field changed, every field and candidate;
2. random changes of one to three fields, and cases with all fields drawn afresh;
3. for every rule not hit yet, cases put together on purpose: for each of its conditions a *donor* case that
   satisfies it is looked up, and the fields that condition depends on are taken from the donor; where no
   candidate gives a computed number the right size, the way between two cases is halved until it fits; for what
   is still missing, a case inside what earlier rules leave to it, where its columns are inputs;
4. more of round 2, with the wide candidates where a rule is still missing and with numbers between the
   candidates where cases are.

What is found lies at limits; `fair_shares.py` draws over the whole of each rule.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from typing import Any, TypeVar

from vertigym.core.seeds import generator
from vertigym.decisions.boxes import OTHER_TEXT, Box, outside, without
from vertigym.decisions.candidates import free_text
from vertigym.decisions.cases import case_key, whole_numbers
from vertigym.decisions.conditions import Conditions, Field, get, put
from vertigym.decisions.findings import RuleAnalysis, analyse
from vertigym.decisions.model import Case, CaseError, Evaluation, Node, Rule, is_finite
from vertigym.decisions.protocols import Language, RuleModel
from vertigym.decisions.symbolic import AS, Explorer

T = TypeVar("T")

_ONE_BY_ONE = 1500  # evaluations at most in round 1
_DONORS = 12  # cases looked at for one condition
_TRIES = 80  # cases put together for one rule
_FOR_TARGETS = 16_000  # cases put together at most in one round
_LOOKED_AT = 6000  # cases that reached a rule's table looked at for it, at most
_SMALL = 100  # rules of a model that is searched at length before regions are worked out
_HALVINGS = 16  # steps between two cases
_PAIRS = 4  # pairs of cases tried
_FREE, _TEXTS = 0.5, 500  # how often a free text is drawn rather than a candidate, and of how many
_FACTORS = (0.5, 0.75, 0.9, 0.95, 1.05, 1.1, 1.25, 1.5, 2.0)


@dataclass(frozen=True, slots=True)
class DecidedCase:
    """A case and what the engine made of it; `drawn` over a rule's region rather than found at a limit."""

    case: Case
    evaluation: Evaluation
    drawn: bool = False


@dataclass(slots=True)
class SampledCases:
    """Distinct cases in the order found, and which rules they hit. `refused` counts cases the engine could
    not decide, `refusal` is the first reason."""

    samples: list[DecidedCase] = field(default_factory=list)
    hit: set[str] = field(default_factory=set)
    evaluations: int = 0
    refused: int = 0
    refusal: str = ""


class Sampler:
    """Samples one model. `fixed` fields are set in every case; `known` is its analysis, made where it is not
    given: no case is looked for that hits a rule proven unreachable."""

    def __init__(
        self, model: RuleModel, seed: int, fixed: Case | None = None, known: RuleAnalysis | None = None
    ) -> None:
        self.model, self._speak = model, model.language
        self.conditions = Conditions(model)
        self.fields = self.conditions.fields
        self.by_name = {f.name: f for f in self.fields}
        self.fixed = fixed or {}
        self._known = known or analyse(model)
        self._rng = generator(seed, "decision-cases")
        self._found = SampledCases()
        self._seen: set[str] = set()
        self._between_candidates = False
        self._fresh: list[int] = []  # cases that were the first to hit some rule
        self._bases = [case for case, _ in model.tests] or [self._from_scratch()]

    def run(self, wanted: int) -> SampledCases:
        """Sample until every rule is hit and about `wanted` distinct cases are found, or the bounds are
        reached."""
        for case in self._one_by_one():
            self.add(case)
        self._vary(wanted, wide=0.0)
        ways = [self._target_all, self._target_all, self._inside_regions]
        for look in ways if len(self.model.rules) <= _SMALL else reversed(ways):
            look()
        if self._missing():
            self._vary(len(self._found.samples) + wanted // 4, wide=0.3)
            self._target_all()
        self._vary(wanted, wide=0.0, between=True)
        return self._found

    def _from_scratch(self) -> Case:
        """A first case for a file without tests."""
        return reduce(lambda case, f: put(case, f.path, (*f.near, *f.wide)[0]), self.fields, Case())

    def _missing(self) -> list[Rule]:
        known = self._found.hit | self._known.unreachable
        return [rule for rule in self.model.rules.values() if rule.id not in known]

    def add(self, case: Case, *, drawn: bool = False) -> bool:
        """Evaluate a case that was not seen before; whether it hit a new rule."""
        found, case = self._found, {**case, **self.fixed}
        key = case_key(case)
        if key in self._seen:
            return False
        self._seen.add(key)
        found.evaluations += 1
        try:
            outcome = self.model.evaluate(case)
        except CaseError as error:
            found.refused += 1
            found.refusal = found.refusal or str(error)
            return False
        if not is_finite(outcome.output):
            return False
        new = not found.hit.issuperset(outcome.rules)
        if new:
            self._fresh.append(len(found.samples))
            found.hit.update(outcome.rules)
        found.samples.append(DecidedCase(case, outcome, drawn))
        return new

    # Rounds 1 and 2.

    def _one_by_one(self) -> Iterator[Case]:
        yield from self._bases
        budget = _ONE_BY_ONE
        for base in self._bases:
            for field_ in self.fields:
                for value in field_.near:
                    if budget:
                        budget -= 1
                        yield put(base, field_.path, value)

    def _vary(self, wanted: int, wide: float, *, between: bool = False) -> None:
        """Random cases until there are `wanted`; gives up after three times as many tries without need. With
        `between`, numbers may lie anywhere between the candidates."""
        self._between_candidates = between
        for attempt in range(3 * wanted):
            if len(self._found.samples) >= wanted or not self.fields:
                break
            if attempt % 2 or not self._fresh:
                self.add(self._afresh(wide))
            else:
                self.add(self._mutant(wide))

    def _afresh(self, wide: float) -> Case:
        """A test's input with every field that matters drawn anew."""
        case = self._pick(self._bases)
        for field_ in self.fields:
            case = put(case, field_.path, self._value(field_, wide))
        return case

    def _mutant(self, wide: float) -> Case:
        """A case that was the first to hit some rule, with one to three fields changed."""
        case = self._found.samples[self._pick(self._fresh)].case
        for _ in range(int(self._rng.integers(1, 4))):
            field_ = self._pick(self.fields)
            case = put(case, field_.path, self._value(field_, wide))
        return case

    def _value(self, field_: Field, wide: float) -> Any:
        use_wide = not field_.near or (field_.wide and self._rng.random() < wide)
        if self._between_candidates and (span := field_.span):
            low, high, unit = span
            return whole_numbers(round(int(self._rng.integers(low, high + 1)) * unit, 3))
        if self._between_candidates and field_.free and self._rng.random() < _FREE:
            return free_text(int(self._rng.integers(_TEXTS)))
        return self._pick(field_.wide if use_wide else field_.near)

    def _pick(self, options: Sequence[T]) -> T:
        return options[int(self._rng.integers(len(options)))]

    def share(self, evaluations: int) -> int:
        """So many evaluations for up to 100 rules; of a larger model each is dearer, and more rules ask."""
        return evaluations * _SMALL**2 // max(_SMALL, len(self.model.rules)) ** 2

    # Round 3.

    def _inside_regions(self) -> None:
        """For each rule still missing a case inside what earlier rules of its table leave to it. Where a
        column is computed the case is only a try."""
        explorer, missing = self._known.explorer, {rule.id for rule in self._missing()}
        for node in self.model.nodes:
            earlier, asked = list[Box](), not missing.isdisjoint(rule.id for rule in node.rules)
            for row in self._known.rows[node.id] if asked else ():
                if row.box is not None and row.rule.id in missing:
                    box = outside(row.box, earlier, explorer.classes.all)
                    pieces = [box] if box else without(row.box, earlier, explorer.classes.all)
                    self.add(self._case_in((pieces or [row.box])[0], explorer))
                if row.exact and row.box is not None:
                    earlier.append(row.asks)

    def _case_in(self, box: Box, explorer: Explorer) -> Case:
        """A case whose fields lie in the box."""
        case = self._bases[0]
        for name, mask in box.items():
            field_, _, axis = name.partition(AS)
            value = explorer.classes.example(mask)
            if field_ in self.by_name and value != OTHER_TEXT:
                case = put(case, self.by_name[field_].path, whole_numbers(self._speak.example(value, axis)))
        return case

    def _target_all(self) -> None:
        """Target what is missing, within a number of evaluations."""
        most = self._found.evaluations + self.share(_FOR_TARGETS)
        for rule in self._missing():
            if self._found.evaluations < most:
                self._target(rule)

    def _target(self, rule: Rule) -> None:
        """Put cases together for one rule: its conditions one by one, each satisfied by some donor's fields."""
        node = next(n for n in self.model.nodes if any(r.id == rule.id for r in n.rules))
        if "[]" in node.scope:
            return
        reached = [s for s in self._found.samples if node.id in s.evaluation.contexts]
        if not reached:
            return
        if len(reached) > (most := self.share(_LOOKED_AT)):
            reached = [reached[i] for i in self._rng.permutation(len(reached))[:most]]
        cells = [(column, cell) for column, cell in rule.cells if cell]
        donors = [self._donors(node, column, cell, reached) for column, cell in cells]
        for _ in range(_TRIES):
            case = self._pick(reached).case
            for (column, cell), known in zip(cells, donors, strict=True):
                if known:
                    case = self._with_fields_of(
                        case, self._pick(known), self.conditions.sources(column or cell, node)
                    )
            self.add(self._perturbed(case) if self._rng.random() < 0.6 else case)
            if rule.id in self._found.hit:
                return
        self._bisect_conditions(rule, node, cells, donors, reached)

    def _bisect_conditions(
        self,
        rule: Rule,
        node: Node,
        cells: Sequence[tuple[str, str]],
        donors: Sequence[Sequence[Case]],
        reached: Sequence[DecidedCase],
    ) -> None:
        """Halve the way between two cases: a computed number may have to fall between two limits that no
        candidate falls between. With a donor, between a case that fails only one condition and one that
        satisfies it; without, between a case where the number is too small and one where it is too large."""
        for index, (column, cell) in enumerate(cells):
            others = [pair for pair in cells if pair != (column, cell)]
            near = [s for s in reached if all(self._speak.holds(*pair, _context(s, node)) for pair in others)]
            sources = self.conditions.sources(column or cell, node)
            if near and donors[index]:
                low = self._pick(near).case
                high = self._with_fields_of(low, self._pick(donors[index]), sources)
                self._bisect(rule, node, low, high, sources, partial(self._speak.holds, column, cell))
            elif near and column and (limits := [n for atom in self._speak.atoms(cell) for n in atom.numbers]):
                target = sum(limits) / len(limits)
                above = [_above(self._speak, target, column, _context(s, node)) for s in near]
                lows = [s.case for s, is_above in zip(near, above, strict=True) if is_above is False]
                highs = [s.case for s, is_above in zip(near, above, strict=True) if is_above]
                for _ in range(_PAIRS if lows and highs else 0):
                    low = self._pick(lows)
                    high = self._with_fields_of(low, self._pick(highs), sources)
                    self._bisect(rule, node, low, high, sources, partial(_above, self._speak, target, column))
            limits = _limits(self._speak, node, rule, column)
            if near and column and limits and rule.id not in self._found.hit:
                self._solve(rule, node, column, limits, self._pick(near).case)

    def _solve(self, rule: Rule, node: Node, column: str, limits: Sequence[float], base: Case) -> None:
        """Move one number of a case until a column that is (nearly) linear in it meets one of its limits."""
        for name in sorted(self.conditions.sources(column, node) & self.by_name.keys()):
            path = self.by_name[name].path
            at = get(base, path)
            if isinstance(at, bool) or not isinstance(at, int | float):
                continue
            here = self._column(base, node, column)
            there = self._column(put(base, path, whole_numbers(at + 1)), node, column)
            if here is None or there is None or here == there:
                continue
            for goal in [limit + shift for limit in limits for shift in (-1, 0, 1)]:
                self.add(put(base, path, whole_numbers(round(at + (goal - here) / (there - here), 2))))
                if rule.id in self._found.hit:
                    return

    def _column(self, case: Case, node: Node, column: str) -> float | None:
        """A column's number in a case, None where it has none."""
        try:
            return self._speak.number(
                column, _inside(self.model.evaluate(case).contexts.get(node.id), node.scope)
            )
        except CaseError:
            return None

    def _bisect(
        self,
        rule: Rule,
        node: Node,
        low: Case,
        high: Case,
        names: frozenset[str],
        is_high: Callable[[Any], bool | None],
    ) -> None:
        """Move two cases towards each other, in the numbers named, until the rule is hit or they meet."""
        for _ in range(_HALVINGS):
            middle = self._between(low, high, names)
            self.add(middle)
            sample = self._found.samples[-1]
            if rule.id in self._found.hit or sample.case != middle:
                return
            if is_high(_context(sample, node)):
                high = middle
            else:
                low = middle

    def _between(self, one: Case, other: Case, names: frozenset[str]) -> Case:
        """`one` with the numbers named moved half way to those of `other`."""
        for name in sorted(names & self.by_name.keys()):
            path = self.by_name[name].path
            a, b = get(one, path), get(other, path)
            if isinstance(a, int | float) and isinstance(b, int | float) and not isinstance(a, bool):
                one = put(one, path, whole_numbers(round((a + b) / 2, 2)))
        return one

    def _donors(self, node: Node, column: str, cell: str, reached: Sequence[DecidedCase]) -> list[Case]:
        """Cases in which one condition of the rule holds (in the context its node saw)."""
        order = self._rng.permutation(len(reached))
        found = []
        for index in order[:600]:
            sample = reached[int(index)]
            if self._speak.holds(column, cell, _context(sample, node)):
                found.append(sample.case)
                if len(found) == _DONORS:
                    break
        return found or self._invented(column, cell, node)

    def _invented(self, column: str, cell: str, node: Node) -> list[Case]:
        """No case satisfies the condition: try each candidate of the fields it depends on, in place."""
        base = self._pick(self._found.samples).case
        made = []
        for name in sorted(self.conditions.sources(column or cell, node)):
            if field_ := self.by_name.get(name):
                made += [put(base, field_.path, value) for value in (*field_.near, *field_.wide)]
        return [case for case in made if self._speak.holds(column, cell, _inside(case, node.scope))]

    def _perturbed(self, case: Case) -> Case:
        """One field changed: a number by some per cent (a computed value may have to fall into a narrow band),
        anything else to one of its candidates."""
        field_ = self._pick(self.fields)
        value = get(case, field_.path)
        if isinstance(value, bool) or not isinstance(value, int | float) or self._rng.random() < 0.4:
            return put(case, field_.path, self._value(field_, 0.3))
        digits = 0 if field_.whole else 2
        return put(case, field_.path, whole_numbers(round(value * self._pick(_FACTORS), digits)))

    def _with_fields_of(self, case: Case, donor: Case, names: frozenset[str]) -> Case:
        for name in sorted(names):
            if field_ := self.by_name.get(name):
                case = put(case, field_.path, get(donor, field_.path))
        return case


def _limits(language: Language, node: Node, rule: Rule, column: str) -> list[float]:
    """The numbers that a column is compared with in a rule and those before it, and a larger one."""
    cells = [cell for other in node.rules[: rule.index + 1] for name, cell in other.cells if name == column]
    numbers = sorted({number for cell in cells for atom in language.atoms(cell) for number in atom.numbers})
    return [*numbers, 1.5 * numbers[-1]] if numbers else []


def _context(sample: DecidedCase, node: Node) -> Any:
    """What `node` saw when it decided the sample's case."""
    return _inside(sample.evaluation.contexts.get(node.id), node.scope)


def _inside(context: Any, scope: str) -> Any:
    return get(context, tuple(scope.split("."))) if scope and isinstance(context, dict) else context


def _above(language: Language, target: float, column: str, context: Any) -> bool | None:
    """Whether a column's value is above `target`; None where it is no number."""
    return None if (value := language.number(column, context)) is None else value > target
