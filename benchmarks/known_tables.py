"""Decision tables whose meaning is known: drawn from a seed, decided here and not by the rule engine."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, Literal

Value = Any  # a number, text, date, truth value
Case = dict[str, Any]
WORDS = ["books", "music", "garden tools", "toys", "home", "car", "pets", "R2", "A-1", "gold", "basic"]
CHOICES = ["accept", "reject", "review", "store credit", "call back", "manual check"]


@dataclass(frozen=True, slots=True)
class Test:
    """A condition: `any`, `in` or `not in` of values, or a `range` whose ends may be open (None: no end)."""

    kind: Literal["any", "in", "not in", "range"]
    values: tuple[Value, ...] = ()
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: Value) -> bool:
        """Whether a case's value passes."""
        if self.kind == "any":
            return True
        if self.kind != "range":
            return (value in self.values) == (self.kind == "in")
        low, high = self.values
        above = low is None or (value > low if self.open_low else value >= low)
        return above and (high is None or (value < high if self.open_high else value <= high))


@dataclass(frozen=True, slots=True)
class Column:
    """A condition or an outcome: its header, what it holds, and how its numbers are dressed."""

    name: str
    kind: Literal["number", "text", "code", "date", "boolean"]
    dress: Literal["", "percent", "currency"] = ""
    values: tuple[Value, ...] = ()  # of texts: those that occur


@dataclass(frozen=True, slots=True)
class Known:
    """A table: the first rule whose tests all hold decides."""

    title: str
    conditions: tuple[Column, ...]
    outcomes: tuple[Column, ...]
    rules: tuple[tuple[tuple[Test, ...], tuple[Value, ...]], ...]

    def decide(self, case: Case) -> Case:
        """The outcomes by header; None where no rule holds."""
        for tests, values in self.rules:
            pairs = zip(tests, self.conditions, strict=True)
            if all(test.holds(case[column.name]) for test, column in pairs):
                return {column.name: value for column, value in zip(self.outcomes, values, strict=True)}
        return {column.name: None for column in self.outcomes}


def draw(random_: random.Random, names: Mapping[str, Sequence[str]], title: str, kinds: Sequence[str]) -> Known:
    """A table whose first conditions have the given kinds."""
    pool = {kind: list(found) for kind, found in names.items()}
    conditions = tuple(_column(random_, pool, kind) for kind in kinds)
    outcomes = tuple(_column(random_, pool, kind) for kind in random_.sample(["choice", "amount", "rate"], 2))
    count = random_.randint(4, 9)
    rules = []
    for number in range(count):
        last = number == count - 1
        tests = tuple(Test("any") if last else draw_test(random_, column) for column in conditions)
        rules.append((tests, tuple(_outcome(random_, column) for column in outcomes)))
    return Known(title, conditions, outcomes, tuple(rules))


def _column(random_: random.Random, pool: dict[str, list[str]], kind: str) -> Column:
    name = pool[kind].pop(random_.randrange(len(pool[kind])))
    if kind in ("amount", "rate"):
        return Column(name, "number", "currency" if kind == "amount" else "percent")
    if kind in ("words", "choice"):
        words = random_.sample(WORDS, 4) if kind == "words" else random_.sample(CHOICES, 3)
        return Column(name, "text", "", tuple(words))
    if kind == "code":
        codes = [f"{random_.randint(0, 99999):05d}" for _ in range(3)]
        return Column(name, "code", "", ("00712", *codes))
    return Column(name, {"age": "number", "measure": "number", "day": "date", "flag": "boolean"}[kind])  # type: ignore[arg-type]


def draw_number(random_: random.Random, column: Column) -> float:
    """A number as one writes it in this column."""
    if column.dress == "currency":
        return random_.choice([random_.randint(1, 40) * 250, random_.randint(100, 999900) / 100])
    if column.dress == "percent":
        return random_.choice([random_.randint(1, 60) / 100, random_.randint(1, 400) / 1000])
    return random_.choice([random_.randint(1, 120), random_.randint(1, 990) / 10])


def draw_test(random_: random.Random, column: Column) -> Test:
    """A condition on a column."""
    if random_.random() < 0.3:
        return Test("any")
    if column.kind == "boolean":
        return Test("in", (random_.random() < 0.5,))
    if column.kind in ("text", "code"):
        values = tuple(random_.sample(column.values, random_.randint(1, 2)))
        return Test("not in" if random_.random() < 0.2 else "in", values)
    if column.kind == "date":
        start = date(random_.randint(2019, 2025), 1, 1) + timedelta(random_.randint(0, 364))
        ends: tuple[Value, Value] = (start, start + timedelta(random_.randint(20, 400)))
    else:
        ends = tuple(sorted((draw_number(random_, column), round(draw_number(random_, column) + 1, 6))))  # type: ignore[assignment]
    form = random_.choice(["<", "<=", ">", ">=", "range", "range"])
    if form == "range":
        return Test("range", ends)
    one = ends[0]
    return Test("range", (None, one) if "<" in form else (one, None), form == ">", form == "<")


def _outcome(random_: random.Random, column: Column) -> Value:
    return random_.choice(column.values) if column.kind == "text" else draw_number(random_, column)
