"""Cases until every rule and every answer has its share: what few cases show is not learnt, and where one
answer is nearly all, a constant guess earns nearly all.

The search (`sampler.py`) finds cases at the limits that rules name. Here cases are drawn over whole regions.
The known cases of a rule, or of an answer, span a box: from the least to the greatest number or date of a
field, and its other values. A new case takes every field from that box; or one to three fields of a known case
change, to a value near by or anywhere. One number in five is a limit, the others lie between two, in a wide gap
more often than in a narrow one. Which rules a new case hits is what the engine says, so that a box may be too
large.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from vertigym.core.files import dumps
from vertigym.core.seeds import generator
from vertigym.decisions.candidates import OTHER, free_text
from vertigym.decisions.cases import value_key, whole_numbers
from vertigym.decisions.conditions import Field, get, put
from vertigym.decisions.model import Case
from vertigym.decisions.moments import MomentLine
from vertigym.decisions.outputs import leaves, project
from vertigym.decisions.sampler import DecidedCase, SampledCases, Sampler

_IN_VAIN = 80  # tries in a row that give a rule or an answer no new case, until it is left alone
_TRIES = 2  # tries at most for one case wanted
_SURPLUS = 1.25  # cases drawn at most for one wanted
_LIMITS = 0.2  # share of the numbers and dates drawn that are limits
_WIDE = 0.2  # how often a candidate of the second rank is taken where one answer is still nearly all
_BEYOND = 0.2  # how often a number is drawn also from beyond all limits
_TEXTS = 500
_LONGER = 0.2  # how often a text that a rule names is made longer, where a field holds any text
_NEAR = 3  # units to either side
_RULE = "rule "  # begins the name of a rule's group; an answer's is JSON
_MANY = 12  # a number with more values than this is left out of what counts as an outcome


class Outcomes:
    """Names the outcome of a sample: its answer; of numbers and lists that take many values in `samples` only
    that they are there."""

    def __init__(self, samples: Iterable[DecidedCase], fields: Sequence[str]) -> None:
        self._fields = fields
        seen: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for sample in samples:
            for path, value in self._flat(sample).items():
                seen[path].add(dumps(value))
        self._few = {path for path, values in seen.items() if len(values) <= _MANY}

    def __call__(self, sample: DecidedCase) -> str:
        """The name, as JSON."""
        return dumps([[*path, self._shown(path, value)] for path, value in sorted(self._flat(sample).items())])

    def _flat(self, sample: DecidedCase) -> dict[tuple[str, ...], Any]:
        answer = project(sample.evaluation.output, self._fields)
        return dict(leaves(answer)) if isinstance(answer, dict) else {(): answer}

    def _shown(self, path: tuple[str, ...], value: Any) -> Any:
        if path in self._few or value is None or isinstance(value, str | bool):
            return value
        return [bool(value)] if isinstance(value, list) else "number"


@dataclass(slots=True)
class _Held:
    """The values of a field in some cases: how many lie on its scale, from where to where, and the others;
    `read` cases were looked at."""

    low: int = 0
    high: int = 0
    placed: int = 0
    others: dict[str, Any] = field(default_factory=dict)
    read: int = 0


@dataclass(slots=True)
class _Group:
    """The cases of one rule or answer: those known, how many are drawn here, how many are wanted."""

    wanted: int = 0
    cases: list[Case] = field(default_factory=list)
    drawn: int = 0
    in_vain: int = 0
    held: dict[str, _Held] = field(default_factory=lambda: defaultdict(_Held))

    @property
    def needy(self) -> bool:
        """Whether it lacks cases, and there are some to be found as far as is known."""
        return self.drawn < self.wanted and self.in_vain < _IN_VAIN


def add_fair_shares(
    sampler: Sampler, sampled: SampledCases, fields: Sequence[str], seed: int, wanted: int
) -> None:
    """Draw about `wanted` cases: of each table's rules, and of the answers in `fields`, equally many each, as
    far as there are."""
    draw = _Draw(sampler, sampled, fields, seed, wanted)
    draw.rounds()
    if draw.lopsided:
        draw.rounds(wide=_WIDE)


class _Scale:
    """A field's numbers, or moments, as whole places: `limits` are those of its near candidates, `ends` the
    least and the greatest of all; `unit` is 0 where it has none, or where its values are listed."""

    def __init__(self, field_: Field) -> None:
        self.field = field_
        self._moments = None if field_.span or field_.closed else MomentLine.of(field_.near)
        self.unit = field_.span[2] if field_.span else float(self._moments is not None)
        self.limits = sorted({p for p in map(self.place, field_.near) if p is not None})
        more = map(self.place, (*field_.wide, *field_.far))
        placed = [*self.limits, *(p for p in more if p is not None)]
        self.ends = (min(placed), max(placed)) if placed else (0, 0)
        self._names = [n for n in field_.near if isinstance(n, str) and n and n != OTHER]

    def place(self, value: Any) -> int | None:
        """Where a value lies; None where it is no number (no moment)."""
        if self._moments:
            return self._moments.place(value)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return round(value / self.unit) if self.unit and number else None

    def value(self, place: int) -> Any:
        """What lies at a place; beyond an end, what lies there."""
        place = min(max(place, self.ends[0]), self.ends[1])
        return self._moments.value(place) if self._moments else whole_numbers(round(place * self.unit, 3))

    def named(self, value: Any) -> bool:
        """Whether a value is not just any text."""
        free = self.field.free and isinstance(value, str)
        return not free or any(name in value for name in self._names)


class _Draw:
    def __init__(
        self, sampler: Sampler, sampled: SampledCases, fields: Sequence[str], seed: int, wanted: int
    ) -> None:
        self.sampler, self.sampled, self.wanted = sampler, sampled, wanted
        self._most = len(sampled.samples) + int(_SURPLUS * wanted)
        self.rng = generator(seed, "fair shares")
        self.outcome = Outcomes(sampled.samples, fields)
        self.scales = [_Scale(f) for f in sampler.fields]
        self.groups: dict[str, _Group] = defaultdict(_Group)
        for sample in sampled.samples:
            self._note(sample)

    def _needy(self) -> list[_Group]:
        """The groups that lack cases, by how many each is to have."""
        tables = [[f"{_RULE}{rule.id}" for rule in node.rules] for node in self.sampler.model.nodes]
        answers = [name for name in self.groups if not name.startswith(_RULE)]
        for names in [*tables, answers]:
            known = [self.groups[name] for name in names if name in self.groups]
            for group in known:
                group.wanted = self.wanted // len(known)
        return [group for group in self.groups.values() if group.needy]

    @property
    def lopsided(self) -> bool:
        """Whether one answer is that of more than half of the cases."""
        counts = [len(group.cases) for name, group in self.groups.items() if not name.startswith(_RULE)]
        return max(counts, default=0) > sum(counts) / 2

    def rounds(self, wide: float = 0.0) -> None:
        """Draw a case of each group that lacks some in turn; the share `wide` of the values that change are
        candidates of the second rank."""
        tries = _TRIES * self.wanted
        for group in self.groups.values():
            group.in_vain = 0
        while tries > 0 and len(self.sampled.samples) < self._most and (needy := self._needy()):
            for group in needy[:tries]:
                self._one_more(group, wide)
            tries -= len(needy)

    def _one_more(self, group: _Group, wide: float) -> None:
        """Try one case of a group."""
        known = len(self.sampled.samples)
        inside = self.rng.random() < 0.5
        self.sampler.add(self._inside(group) if inside else self._changed(group, wide), drawn=True)
        group.in_vain += 1
        for sample in self.sampled.samples[known:]:
            for hit in self._note(sample):
                hit.drawn += 1
                hit.in_vain = 0

    def _note(self, sample: DecidedCase) -> list[_Group]:
        """Count a sample in its groups."""
        names = [f"{_RULE}{rule}" for rule in sample.evaluation.rules]
        groups = [self.groups[name] for name in dict.fromkeys([*names, self.outcome(sample)])]
        for group in groups:
            group.cases.append(sample.case)
        return groups

    def _inside(self, group: _Group) -> Case:
        """A case of which every field lies in the group's box."""
        case: Case = self._pick(group.cases)
        for scale in self.scales:
            held = self._held(group, scale)
            if scale.unit and held.placed > self.rng.random() * held.read:
                value = self._on(scale, held.low, held.high)
            else:
                value = self._renewed(scale, self._pick(list(held.others.values())))
            case = put(case, scale.field.path, value)
        return case

    def _changed(self, group: _Group, wide: float) -> Case:
        """A case of the group with one to three fields changed."""
        case: Case = self._pick(group.cases)
        for place in self.rng.permutation(len(self.scales))[: int(self.rng.integers(1, 4))]:
            scale = self.scales[int(place)]
            if scale.field.wide and self.rng.random() < wide:
                value = self._renewed(scale, self._pick(scale.field.wide))
            else:
                value = self._anywhere(scale, scale.place(get(case, scale.field.path)))
            case = put(case, scale.field.path, value)
        return case

    def _anywhere(self, scale: _Scale, at: int | None) -> Any:
        """A value near by, or any candidate or what lies between them."""
        if not scale.limits:
            return self._renewed(scale, self._pick(scale.field.near or scale.field.wide))
        if at is not None and self.rng.random() < 0.5:
            return scale.value(at + int(self.rng.integers(-_NEAR, _NEAR + 1)))
        low, high = scale.ends if self.rng.random() < _BEYOND else (scale.limits[0], scale.limits[-1])
        return self._on(scale, low, high)

    def _on(self, scale: _Scale, low: int, high: int) -> Any:
        """A number or date from `low` to `high`."""
        limits = [limit for limit in scale.limits if low <= limit <= high]
        gaps = [gap for gap in pairwise(sorted({low, *limits, high})) if gap[1] - gap[0] > 1]
        if not gaps or (limits and self.rng.random() < _LIMITS):
            return scale.value(self._pick(limits or [low, high]))
        widths = np.sqrt([before - after for after, before in gaps])
        after, before = gaps[int(self.rng.choice(len(gaps), p=widths / widths.sum()))]
        return scale.value(int(self.rng.integers(after + 1, before)))

    def _renewed(self, scale: _Scale, value: Any) -> Any:
        """The value; a text that no rule names becomes any such text, another sometimes a longer one."""
        if not (scale.field.free and isinstance(value, str)):
            return value
        more = free_text(int(self.rng.integers(_TEXTS)))
        if not scale.named(value):
            return more
        if value not in scale.field.near or self.rng.random() >= _LONGER:
            return value
        return f"{value} {more}" if self.rng.random() < 0.5 else f"{more} {value}"

    def _held(self, group: _Group, scale: _Scale) -> _Held:
        """The values of a field in the group's cases so far."""
        held = group.held[scale.field.name]
        for case in group.cases[held.read :]:
            value = get(case, scale.field.path)
            place = scale.place(value)
            if place is None:
                value = value if scale.named(value) else OTHER
                if len(held.others) < 2 * len(scale.field.near) or not held.others:
                    held.others.setdefault(value_key(value), value)
            else:
                held.low = min(held.low, place) if held.placed else place
                held.high = max(held.high, place) if held.placed else place
                held.placed += 1
        held.read = len(group.cases)
        return held

    def _pick(self, options: Sequence[Any]) -> Any:
        return options[int(self.rng.integers(len(options)))]
