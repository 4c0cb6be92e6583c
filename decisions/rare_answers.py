"""More cases of the answers that few cases have: where one answer is nearly all, a constant guess earns nearly
all.

A case with a rare answer is changed in one or two fields: to a candidate of the field, or, of a number, to one
beside it or half way to that of another case with the same answer, or, of a text, to a longer one.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from vertigym.core.files import dumps
from vertigym.core.seeds import generator
from vertigym.decisions.candidates import free_text
from vertigym.decisions.cases import whole_numbers
from vertigym.decisions.conditions import Field, get, put
from vertigym.decisions.model import Case
from vertigym.decisions.outputs import project
from vertigym.decisions.sampler import SampledCases, Sampler

_MOST_TRIES = 6000  # cases tried, fewer in a large model
_IN_VAIN = 80  # tries in a row that give an answer no new case, until it is left alone
_TEXTS = 100
_WIDE = 0.1  # how often a candidate of the second rank is taken


def add_rare_answers(
    sampler: Sampler, sampled: SampledCases, fields: Sequence[str], seed: int, wanted: int
) -> None:
    """Look for cases until the most common answer makes up half at most, or `wanted` cases have another."""
    rng = generator(seed, "rare answers")
    cases: dict[str, list[Case]] = defaultdict(list)
    for sample in sampled.samples:
        cases[dumps(project(sample.evaluation.output, fields))].append(sample.case)
    in_vain: dict[str, int] = defaultdict(int)
    for _ in range(sampler.share(_MOST_TRIES)):
        common = max(cases, key=lambda answer: len(cases[answer]), default="")
        rare = [answer for answer in cases if answer != common and in_vain[answer] < _IN_VAIN]
        if not rare or sum(map(len, cases.values())) - len(cases[common]) >= min(len(cases[common]), wanted):
            return
        answer = min(rare, key=lambda a: len(cases[a]) + in_vain[a])
        known = len(sampled.samples)
        sampler.add(_changed(cases[answer], sampler.fields, rng))
        in_vain[answer] += 1
        for sample in sampled.samples[known:]:
            found = dumps(project(sample.evaluation.output, fields))
            cases[found].append(sample.case)
            in_vain[found] = 0 if found != common else in_vain[found]


def _changed(cases: Sequence[Case], fields: Sequence[Field], rng: np.random.Generator) -> Case:
    """One of the cases with one or two fields changed."""
    case, other = (cases[int(rng.integers(len(cases)))] for _ in range(2))
    for place in rng.permutation(len(fields))[: int(rng.integers(1, 3))]:
        field = fields[int(place)]
        at, there = get(case, field.path), get(other, field.path)
        if field.span and _is_number(at) and rng.random() < 0.6:
            unit = field.span[2] if field.span[2] >= 1 else field.span[2] / 10
            halved = _is_number(there) and there != at
            value = (at + there) / 2 if halved else at + int(rng.integers(-3, 4)) * unit
            case = put(case, field.path, whole_numbers(round(round(value / unit) * unit, 4)))
        elif field.free and isinstance(at, str) and rng.random() < 0.6:
            more = free_text(int(rng.integers(_TEXTS)))
            case = put(case, field.path, f"{at} {more}" if rng.random() < 0.5 else f"{more} {at}")
        else:
            options = field.wide if field.wide and rng.random() < _WIDE else field.near or field.wide
            case = put(case, field.path, options[int(rng.integers(len(options)))])
    return case


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
