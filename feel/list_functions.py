"""List functions and sorting. Source: OMG Decision Model and Notation 1.5, tables 71 to 73 and 77."""

import decimal
from collections import Counter
from collections.abc import Callable, Hashable
from decimal import Decimal
from functools import cmp_to_key, reduce
from typing import Any

from vertigym.feel.operators import equal, operate, order
from vertigym.feel.signatures import builtin
from vertigym.feel.temporal import DateTime, DaysTime, Time, YearsMonths
from vertigym.feel.values import (
    DECIMAL128,
    MOST_ITEMS,
    FeelError,
    Function,
    NoValue,
    Range,
    Value,
    kind_of,
    shown,
)

Items = list[Any]


def aggregate(name: str, item: str = "Any") -> Callable[[Callable[[Items], Value]], Callable[[Items], Value]]:
    """Declares a function of a list, which may also be written out as arguments."""

    def declare(run: Callable[[Items], Value]) -> Callable[[Items], Value]:
        builtin(f"{name}(list: list<{item}>)")(lambda items: run(_without_null(name, items)))
        builtin(f"{name}(...c: {item})")(lambda *items: run(_without_null(name, _some(name, list(items)))))
        return run

    return declare


def _without_null(name: str, items: Items) -> Items:
    if None in items:
        raise NoValue(f"{name} of a list with null in it")
    return items


def _some(name: str, items: Items) -> Items:
    if not items:
        raise NoValue(f"{name} of no items")
    return items


@builtin("count(list: list)")
def _count(items: Items) -> Value:
    return Decimal(len(items))


@aggregate("min")
def _min(items: Items) -> Any:
    return min(_some("min", items), key=cmp_to_key(order))


@aggregate("max")
def _max(items: Items) -> Any:
    return max(_some("max", items), key=cmp_to_key(order))


@aggregate("sum")
def _sum(items: Items) -> Any:
    """Of numbers, or of durations of one kind."""
    return _folded("+", _some("sum", items))


@aggregate("product", "number")
def _product(items: Items) -> Any:
    return _folded("*", _some("product", items))


@aggregate("mean")
def _mean(items: Items) -> Value:
    return operate("/", _folded("+", _some("mean", items)), Decimal(len(items)))


@aggregate("median", "number")
def _median(items: Items) -> Value:
    ordered = sorted(_some("median", items))
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]  # type: ignore[no-any-return]
    return DECIMAL128.divide(DECIMAL128.add(ordered[middle - 1], ordered[middle]), Decimal(2))


@aggregate("stddev", "number")
def _stddev(items: Items) -> Value:
    """Of a sample: divided by one less than there are."""
    if len(items) < 2:
        raise NoValue("stddev of fewer than two numbers")
    with decimal.localcontext(DECIMAL128, prec=50):
        mean = sum(items) / len(items)
        variance = sum((item - mean) ** 2 for item in items) / (len(items) - 1)
        return DECIMAL128.plus(variance.sqrt())


@aggregate("mode", "number")
def _mode(items: Items) -> Value:
    """The most frequent numbers, in ascending order."""
    counts = Counter(items)
    most = max(counts.values(), default=0)
    return sorted(item for item, count in counts.items() if count == most)


@builtin("all(list: list)", "all(...b: Any)")
def _all(*given: Any) -> Value:
    return _joined(False, given)


@builtin("any(list: list)", "any(...b: Any)")
def _any(*given: Any) -> Value:
    return _joined(True, given)


def _joined(decisive: bool, given: tuple[Any, ...]) -> Value:
    """Three-valued `or` (where true decides) or `and`."""
    if not given:
        raise NoValue("of no arguments")
    items = given[0] if len(given) == 1 and isinstance(given[0], list) else list(given)
    if any(item is decisive for item in items):
        return decisive
    for item in items:
        if not isinstance(item, bool):
            raise NoValue(f"{shown(item)} in a list of booleans")
    return not decisive


@builtin("list contains(list: list, element: Any)")
def _list_contains(items: Items, element: Value) -> Value:
    return any(equal(item, element) is True for item in items)


@builtin("sublist(list: list, start position: number, length?: number)")
def _sublist(items: Items, start: Decimal, length: Decimal | None = None) -> Value:
    first = place(items, start)
    last = len(items) if length is None else first + int(length)
    if not first < last <= len(items):
        raise NoValue(f"no {length} items from {start} on in a list of {len(items)}")
    return items[first:last]


@builtin("append(list: list, ...item: Any)")
def _append(items: Items, *more: Value) -> Value:
    return _bounded([*items, *more])


@builtin("concatenate(...list: list)")
def _concatenate(*lists: Items) -> Value:
    return _bounded([item for each in _given(lists) for item in each])


@builtin("union(...list: list)")
def _union(*lists: Items) -> Value:
    return _distinct([item for each in _given(lists) for item in each])


@builtin("insert before(list: list, position: number, newItem: Any)")
def _insert_before(items: Items, position: Decimal, new: Value) -> Value:
    at = place(items, position)
    return _bounded([*items[:at], new, *items[at:]])


@builtin("remove(list: list, position: number)")
def _remove(items: Items, position: Decimal) -> Value:
    at = place(items, position)
    return items[:at] + items[at + 1 :]


@builtin("list replace(list: list, position: number, newItem: Any)")
def _replace_at(items: Items, position: Decimal, new: Value) -> Value:
    at = place(items, position)
    return [*items[:at], new, *items[at + 1 :]]


@builtin("list replace(list: list, match: function, newItem: Any)")
def _replace_where(items: Items, match: Function, new: Value) -> Value:
    return [new if _holds(match, item, new) else item for item in items]


@builtin("reverse(list: list)")
def _reverse(items: Items) -> Value:
    return items[::-1]


@builtin("index of(list: list, match: Any)")
def _index_of(items: Items, match: Value) -> Value:
    return [Decimal(index) for index, item in enumerate(items, 1) if equal(item, match) is True]


@builtin("distinct values(list: list)")
def _distinct(items: Items) -> Value:
    """The first of each."""
    found: dict[Hashable, Value] = {}
    for item in items:
        found.setdefault(_identity(item), item)
    return list(found.values())


@builtin("flatten(list: list)")
def _flatten(items: Items) -> Value:
    found: Items = []
    left = items[::-1]
    while left:
        item = left.pop()
        if isinstance(item, list):
            left += item[::-1]
        else:
            found.append(item)
    return _bounded(found)


@builtin("sort(list: list, precedes?: function)")
def _sort(items: Items, precedes: Function | None = None) -> Value:
    if precedes is None:
        return sorted(items, key=cmp_to_key(order))
    before = precedes

    def way(left: Value, right: Value) -> int:
        return -1 if _holds(before, left, right) else int(_holds(before, right, left))

    return sorted(items, key=cmp_to_key(way))


def place(items: Items, position: Decimal) -> int:
    """Where a position, from 1 or from -1 backwards, lies in a list; its fraction is cut off.

    Raises:
        NoValue: outside.
    """
    if not 1 <= abs(position) < len(items) + 1:
        raise NoValue(f"position {position} in a list of {len(items)}")
    return int(position) - 1 if position > 0 else len(items) + int(position)


def _holds(function: Function, left: Value, right: Value) -> bool:
    if len(function.parameters) != 2:
        raise NoValue(f"a function of {len(function.parameters)} parameters where one of two is asked for")
    found = function.call(left, right)
    if not isinstance(found, bool):
        raise NoValue(f"a function that gives {shown(found)} where a boolean is asked for")
    return found


def _folded(operator: str, items: Items) -> Any:
    kinds = {type(item) for item in items}
    if len(kinds) > 1 or not kinds <= {Decimal, DaysTime, YearsMonths}:
        raise NoValue(
            f"{' and '.join(sorted(map(kind_of, items[:2])))}: neither numbers nor durations of one kind"
        )
    return reduce(lambda total, item: operate(operator, total, item), items)


def _identity(value: Value) -> Hashable:
    """What two values share where `=` holds for them."""
    match value:
        case list():
            return (list, *map(_identity, value))
        case dict():
            return (dict, frozenset((key, _identity(item)) for key, item in value.items()))
        case Time() | DateTime():
            return type(value), value.zone is None, value.instant
        case Range(low, high, low_closed, high_closed):
            return Range, _identity(low), _identity(high), low_closed, high_closed
    return type(value), value


def _given(lists: tuple[Items, ...]) -> tuple[Items, ...]:
    if not lists:
        raise NoValue("of no lists")
    return lists


def _bounded(items: Items) -> Items:
    if len(items) > MOST_ITEMS:
        raise FeelError(f"a list of {len(items)} items; at most {MOST_ITEMS} are made")
    return items
