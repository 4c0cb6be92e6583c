"""Conditions as exact finite sets: every value a column can take falls into one of finitely many classes.

A *simple* condition compares one value with literals and does nothing else. Its truth cannot change between two
neighbouring literals, so one representative of each class decides for the whole class:

    > 18, [21..65)      numbers   …18) 18 (18…21) 21 (21…65) 65 (65…
    'gold', 'basic'     texts     'gold'  'basic'  any other
    and                 true  false  null  a list  a record

The engine itself says which representatives satisfy a condition; nothing of its language is interpreted here.
A condition is then a bit mask over the classes, a rule a *box* (one mask for each value it looks at), and
whether a rule lies inside the union of earlier ones is decided by subtracting boxes: an argument over all
values, no sample.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import ceil, floor, inf
from typing import Any

from vertigym.decisions.protocols import Language
from vertigym.decisions.zen_language import ZenLanguage

Mask = int
Box = dict[str, Mask]  # what a value is called -> the classes it may lie in; one that is not named is free

MOST_PIECES = 400  # a difference that falls into more boxes is given up
_FEW_PIECES = 16  # the same where it is known to hold something

OTHER_TEXT = "\u2060no such text"


class Classes:
    """The classes that `conditions` tell apart. `points[i]` represents class i, which is bit i of a mask."""

    def __init__(
        self, conditions: Iterable[str], values: Iterable[Any] = (), language: Language | None = None
    ) -> None:
        self._language = language or ZenLanguage()
        numbers, texts = set[float](), set[str]()
        for found in map(self._language.literals, dict.fromkeys(conditions)):
            numbers |= found[0]
            texts |= found[1]
        for value in values:
            if isinstance(value, str):
                texts.add(value)
            elif isinstance(value, int | float) and not isinstance(value, bool):
                numbers.add(float(value))
        self._cuts = sorted(numbers)
        spread = _spread(self._cuts)
        self._others: tuple[Any, ...] = (*sorted(texts), OTHER_TEXT, True, False, None, [], {})
        self._first_other = len(spread)
        self.points: list[Any] = [*spread, *self._others]
        self._texts: Mask = (1 << (len(texts) + 1)) - 1 << self._first_other
        self.all: Mask = (1 << len(self.points)) - 1
        self._masks: dict[tuple[str, str], Mask] = {}
        self._index = {_key(point): 1 << i for i, point in enumerate(self.points)}

    def where(self, condition: str, name: str = "") -> Mask:
        """The classes in which a simple condition holds: a cell's, about `$`; or, given a `name`, an
        expression's about that name."""
        key = (condition, name)
        if key not in self._masks:
            numbers, texts = self._language.literals(condition)
            holds, mask = self._language.condition(condition, name), 0
            for low, high in self._spans(sorted(numbers)):
                if holds(self.points[low]):
                    mask |= (1 << high) - (1 << low)
            if holds(OTHER_TEXT):
                mask |= self._texts
            for index, point in enumerate(self._others, self._first_other):
                if not isinstance(point, str) or point in texts:
                    mask = mask & ~(1 << index) | holds(point) << index
            self._masks[key] = mask
        return self._masks[key]

    def _spans(self, cuts: Sequence[float]) -> Iterator[tuple[int, int]]:
        """The runs of classes, from one up to another, that some of our cuts do not tell apart."""
        start = 0
        for cut in cuts:
            place = 2 * bisect_left(self._cuts, cut) + 1
            yield start, place
            yield place, place + 1
            start = place + 1
        yield start, self._first_other

    def only(self, value: Any) -> Mask | None:
        """The class that holds just `value`, None where there is no such class."""
        if value is None or isinstance(value, bool | int | float | str):
            return self._index.get(_key(value))
        return None

    def example(self, mask: Mask) -> Any:
        """A value in `mask`."""
        return self.points[(mask & -mask).bit_length() - 1]


def meet(one: Box, other: Box) -> bool:
    """Whether something lies in both boxes."""
    for name, mask in other.items():  # noqa: SIM110 (twice as fast, and asked of each two rules of a table)
        if not one.get(name, mask) & mask:
            return False
    return True


def within(one: Box, other: Box, everything: Mask) -> bool:
    """Whether all of `one` lies in `other`."""
    return not any(one.get(name, everything) & ~mask for name, mask in other.items())


def both(one: Box, other: Box) -> Box | None:
    """What lies in both boxes, None where nothing does."""
    common = dict(one)
    for name, mask in other.items():
        common[name] = common[name] & mask if name in common else mask
        if not common[name]:
            return None
    return common


def minus(box: Box, other: Box, everything: Mask) -> list[Box]:
    """`box` without `other`, as boxes that do not overlap."""
    if not meet(box, other):
        return [box]
    pieces, rest = [], dict(box)
    for name, mask in other.items():
        inside = rest.get(name, everything)
        if outside := inside & ~mask:
            pieces.append({**rest, name: outside})
        rest[name] = inside & mask
    return pieces


class Cover(list[Box]):
    """Boxes that cover something together. One that lies inside a later one over the same names gives its place
    to it, so that rising limits (`<= 1`, `<= 2`, …) stay one box."""

    def __init__(self) -> None:
        super().__init__()
        self._places: dict[tuple[str, ...], list[int]] = defaultdict(list)

    def add(self, box: Box) -> None:
        """Cover `box`, too."""
        places = self._places[tuple(box)]
        for place in places:
            if within(self[place], box, 0):
                self[place] = box
                return
        places.append(len(self))
        self.append(box)


def outside(box: Box, others: Sequence[Box], everything: Mask) -> Box | None:
    """A part of `box` that meets none of `others`: each that it meets it evades by the value by which it loses
    least. None where that ends in nothing, which does not mean that there is no such part."""
    rest = dict(box)
    for other in others:
        if not meet(rest, other):
            continue
        left = {name: rest.get(name, everything) & ~mask for name, mask in other.items()}
        if not any(left.values()):
            return None
        name = max(left, key=lambda name: left[name].bit_count() / rest.get(name, everything).bit_count())
        rest[name] = left[name]
    return rest


def without(box: Box, others: Sequence[Box], everything: Mask) -> list[Box] | None:
    """`box` without all of `others`; None where it falls into too many boxes."""
    pieces, most = [box], _FEW_PIECES
    for other in others:
        if meet(box, other):
            pieces = [piece for old in pieces for piece in minus(old, other, everything)]
        if len(pieces) > most:
            most = MOST_PIECES if outside(box, others, everything) is None else 0
        if len(pieces) > most:
            return [] if most and any(within(box, other, everything) for other in others) else None
        if not pieces:
            break
    return pieces


def hull(one: Box, other: Box) -> Box:
    """The smallest box around two."""
    return {name: one[name] | other[name] for name in one.keys() & other.keys()}


def differing(one: Box, other: Box) -> list[str]:
    """The values that must differ between a point of `one` and a point of `other`."""
    return [name for name in one.keys() & other.keys() if not one[name] & other[name]]


def schema_mask(classes: Classes, schema: Mapping[str, Any]) -> Mask:
    """The classes that a field's JSON schema leaves open (null stands for a missing field and stays)."""
    mask = 0
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    enum = schema.get("enum")
    numbers = [point for point in classes.points if isinstance(point, float)]
    for index, point in enumerate(classes.points):
        is_number = isinstance(point, int | float) and not isinstance(point, bool)
        fits = not types or any(_is_type(point, name) for name in types)
        if enum is not None:
            fits &= any(type(point) is type(v) and point == v for v in map(_as_float, enum)) or (
                (point == OTHER_TEXT and any(isinstance(v, str) and classes.only(v) is None for v in enum))
                or (is_number and any(_is_type(v, "number") and classes.only(v) is None for v in enum))
            )
        if is_number:
            fits &= _within(numbers, index, schema)
        mask |= (fits or point is None) << index
    return mask


def _within(numbers: Sequence[float], index: int, schema: Mapping[str, Any]) -> bool:
    """Whether a class of numbers reaches into the schema's limits (a gap does when either neighbour does)."""
    low, high = schema.get("minimum", -inf), schema.get("maximum", inf)
    whole = schema.get("type") == "integer"
    if index % 2:  # a literal itself
        return bool(low <= numbers[index] <= high) and (not whole or numbers[index].is_integer())
    least = numbers[index - 1] if index else -inf
    most = numbers[index + 1] if index + 1 < len(numbers) else inf
    if not whole or inf in (-least, most):
        return bool(max(least, low) < min(most, high) or least < low == high < most)
    first = max(floor(least) + 1, ceil(low) if low > -inf else floor(least) + 1)
    return bool(first < most and first <= high)


def _as_float(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _is_type(value: Any, name: str) -> bool:
    kinds: dict[str, Any] = {"boolean": bool, "string": str, "array": list, "object": dict, "null": type(None)}
    if name in ("number", "integer"):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, kinds.get(name, object))


def _spread(cuts: Sequence[float]) -> list[float]:
    """One number below the first cut, each cut, one between each two, one above the last: gaps at even
    places."""
    if not cuts:
        return [0.0]
    spread = [cuts[0] - 1.0]
    for low, high in zip(cuts, [*cuts[1:], cuts[-1] + 2.0], strict=True):
        spread += [low, (low + high) / 2]
    return spread


def _key(value: Any) -> tuple[str, Any]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number", float(value)
    return type(value).__name__, value if isinstance(value, str | bool) else None
