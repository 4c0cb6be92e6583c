"""Decision tables as people type them into spreadsheets, each with the table that it means: what is read right?

    python benchmarks/spreadsheets.py [--seed 0] [--workbooks 40] [--keep FOLDER] [--verbose]

A known table is drawn from a seed and written down as somebody in one of five places would: decimal comma or
point, thousands, percent, currency, dates, ranges, text codes, titles, merged headers, notes, rules in columns,
two sheets. Three verdicts, of 50 cases each, sampled at the known table's bounds:

    right     every decision is that of the known table, and nothing else is decided
    refused   an InputError of one line
    wrong     anything else: another decision, a field too many, a traceback

The table's meaning is computed here, not by the rule engine. Beside them stand texts with two meanings
(01/02/2024 by somebody in Boston or in Delhi): whoever reads one is wrong for somebody, so it must be refused.
"""

import argparse
import csv
import random
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal

import openpyxl
from openpyxl.utils import get_column_letter

from vertigym.core.errors import InputError
from vertigym.decisions.formats import read_model
from vertigym.decisions.jdm import identifier
from vertigym.decisions.model import CaseError

CASES = 50
Verdict = Literal["right", "refused", "wrong"]
Value = Any  # a number, text, date, truth value
Case = dict[str, Any]


# What a table means.


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
        tests = tuple(Test("any") if last else _test(random_, column) for column in conditions)
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


def _number(random_: random.Random, column: Column) -> float:
    if column.dress == "currency":
        return random_.choice([random_.randint(1, 40) * 250, random_.randint(100, 999900) / 100])
    if column.dress == "percent":
        return random_.choice([random_.randint(1, 60) / 100, random_.randint(1, 400) / 1000])
    return random_.choice([random_.randint(1, 120), random_.randint(1, 990) / 10])


def _test(random_: random.Random, column: Column) -> Test:
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
        ends = tuple(sorted((_number(random_, column), round(_number(random_, column) + 1, 6))))  # type: ignore[assignment]
    form = random_.choice(["<", "<=", ">", ">=", "range", "range"])
    if form == "range":
        return Test("range", ends)
    one = ends[0]
    return Test("range", (None, one) if "<" in form else (one, None), form == ">", form == "<")


def _outcome(random_: random.Random, column: Column) -> Value:
    return random_.choice(column.values) if column.kind == "text" else _number(random_, column)


# How it is written.


@dataclass(frozen=True, slots=True)
class Place:
    """How numbers, dates and headers are written somewhere."""

    name: str
    decimal: str
    group: str
    lakh: bool
    dates: str
    money: str  # how an amount is dressed
    percent: str
    delimiter: str
    headers: Mapping[str, Sequence[str]]
    notes: Sequence[str]
    numbers: Sequence[str]  # headers of rule numbers

    def plain(self, value: float, *, grouped: bool) -> str:
        """A number with as many digits as it has."""
        whole, _, rest = f"{value:.6f}".rstrip("0").rstrip(".").partition(".")
        if grouped and len(whole) > 3:
            head, tail = whole[:-3], whole[-3:]
            step = 2 if self.lakh else 3
            parts = [head[max(0, i - step) : i] for i in range(len(head), 0, -step)][::-1]
            whole = self.group.join([*parts, tail])
        return f"{whole}{self.decimal}{rest}" if rest else whole

    def day(self, value: date) -> str:
        """A date."""
        return f"{value:{self.dates}}"


_GERMAN = {
    "age": ["Alter", "Laufzeit"], "measure": ["Gewicht (kg)", "Strecke"],
    "amount": ["Betrag", "Umsatz", "Gebühr"], "rate": ["Quote", "Nachlass", "Auslastung"],
    "words": ["Sparte", "Kundengruppe"], "code": ["PLZ", "Tarifcode"], "day": ["Beginn", "Stichtag"],
    "flag": ["Neukunde"], "choice": ["Entscheidung", "Weg"],
}  # fmt: skip
_FRENCH = {
    "age": ["Âge", "Durée"], "measure": ["Poids", "Distance (km)"], "amount": ["Montant", "Chiffre", "Frais"],
    "rate": ["Taux", "Remise", "Part"], "words": ["Branche", "Segment"], "code": ["Code postal", "Tarif"],
    "day": ["Début", "Échéance"], "flag": ["Nouveau"], "choice": ["Décision", "Voie"],
}  # fmt: skip
_ENGLISH = {
    "age": ["Age", "Tenure"], "measure": ["Weight", "Distance"], "amount": ["Amount", "Turnover", "Fee"],
    "rate": ["Utilization", "Discount", "Share"], "words": ["Segment", "Category"],
    "code": ["Zip", "Plan code"], "day": ["Start", "Due date"], "flag": ["New customer"],
    "choice": ["Decision", "Route"],
}  # fmt: skip
_DMY, _MDY = "%d/%m/%Y", "%m/%d/%Y"
PLACES = (
    Place(
        "de", ",", ".", False, "%d.%m.%Y", "{} €", "{} %", ";", _GERMAN, ["Bemerkung", "Hinweis"],
        ["Nr.", "Regel"],
    ),
    Place(
        "fr", ",", "\u202f", False, _DMY, "{} €", "{} %", ";", _FRENCH, ["Remarques", "Commentaire"], ["N°"]
    ),
    Place(
        "en", ".", ",", False, _MDY, "${}", "{}%", ",", _ENGLISH, ["Remarks", "Notes", "Comment"], ["#", "Rule"]
    ),
    Place("in", ".", ",", True, _DMY, "₹ {}", "{}%", ",", _ENGLISH, ["Remarks", "Note"], ["S.No.", "Rule ID"]),
    Place(
        "ch", ".", "\u2019", False, "%d.%m.%Y", "CHF {}", "{}%", ";", _GERMAN, ["Bemerkungen", "Kommentar"],
        ["#", "Nr"],
    ),
)  # fmt: skip
WORDS = ["books", "music", "garden tools", "toys", "home", "car", "pets", "R2", "A-1", "gold", "basic"]
CHOICES = ["accept", "reject", "review", "store credit", "call back", "manual check"]
PHRASES = ["see § 4, no. 2", "agreed 2023", "> ask Jo first", "as before", "12", "new since May, check", "-"]
_DECLARED_DATES = {"%d/%m/%Y": "date d/m/y", "%m/%d/%Y": "date m/d/y", "%d.%m.%Y": "date"}


@dataclass(slots=True)
class Style:
    """One workbook's habits, drawn once: a writer does not change them from cell to cell."""

    place: Place
    random_: random.Random
    workbook: bool
    native: bool  # numbers and dates of a workbook as such, not as text
    grouped: bool
    titles: bool = False
    group_row: bool = False
    notes: bool = False
    numbered: bool = False
    transposed: bool = False
    declared: bool = False
    merged: bool = False
    marks: bool = True
    range_: str = "{}-{}"
    wildcards: Sequence[str] = ("",)

    def value(self, value: Value, column: Column, *, alone: bool = True) -> Value:
        """One value; a number that stands alone in a workbook may be a number."""
        if column.kind == "boolean":
            return bool(value) if self.workbook and self.native else ("true" if value else "false")
        if column.kind == "date":
            return value if alone and self.workbook and self.native else self.place.day(value)
        if column.kind in ("text", "code"):
            return value
        if alone and self.workbook and self.native:
            return value
        if column.dress == "percent":
            return self.place.percent.format(self.place.plain(round(value * 100, 6), grouped=False))
        plain = self.place.plain(value, grouped=self.grouped)
        return self.place.money.format(plain) if column.dress == "currency" and self.grouped else plain

    def cell(self, test: Test, column: Column) -> Value:
        """One condition."""
        if test.kind == "any":
            return self.random_.choice(self.wildcards)
        if test.kind in ("in", "not in"):
            if test.kind == "in" and len(test.values) == 1:
                return self.value(test.values[0], column)
            words = ("; " if self.random_.random() < 0.2 else ", ").join(
                str(self.value(value, column, alone=False)) for value in test.values
            )
            if test.kind == "in":
                return words
            return (
                f"not({words})" if len(test.values) > 1 else self.random_.choice(["≠ ", "<> ", "!= "]) + words
            )
        low, high = (None if v is None else self.value(v, column, alone=False) for v in test.values)
        if low is not None and high is not None:
            return self.range_.format(low, high)
        sign = (">" if test.open_low else self.random_.choice([">=", "≥"])) if high is None else (
            "<" if test.open_high else self.random_.choice(["<=", "≤"])
        )  # fmt: skip
        return f"{sign}{self.random_.choice(['', ' '])}{high if low is None else low}"


def style(random_: random.Random, place: Place, layout: str) -> Style:
    """A writer's habits for one layout."""
    workbook = layout in ("merged", "sheets") or random_.random() < 0.5
    found = Style(place, random_, workbook, native=random_.random() < 0.6, grouped=random_.random() < 0.6)
    found.range_ = random_.choice(["{}-{}", "{} - {}", "{} \u2013 {}", "{}\u2013{}", "[{}..{}]", "{}..{}"])
    found.wildcards = random_.choice([[""], ["", "-"], ["", "*"], ["any"], ["", "\u2013"], ["", "n/a"]])
    found.titles = layout in ("titled", "merged", "sheets") or random_.random() < 0.2
    found.group_row = layout == "merged"
    found.merged = layout == "merged"
    found.notes = layout == "titled" or random_.random() < 0.3
    found.numbered = layout == "titled" or random_.random() < 0.3
    found.transposed = layout == "transposed"
    found.declared = layout == "declared" or (layout == "dates" and random_.random() < 0.4)
    found.marks = layout != "plain"
    return found


def page(known: Known, how: Style) -> tuple[list[list[Value]], list[str]]:
    """The table's cells as written, and the ranges of them to merge."""
    random_, place = how.random_, how.place
    mark = random_.choice(["-> ", "→ ", "then "])
    outcomes = known.outcomes if how.marks else known.outcomes[-1:]
    grid: list[list[Value]] = [
        [*(c.name for c in known.conditions), *((mark if how.marks else "") + c.name for c in outcomes)]
    ]
    width = len(grid[0])
    if how.declared:
        roles = [("condition", column) for column in known.conditions] + [("outcome", c) for c in outcomes]
        grid.append([_declared(role, column, place) for role, column in roles])
    for tests, values in known.rules:
        cells = [how.cell(test, column) for test, column in zip(tests, known.conditions, strict=True)]
        kept = list(zip(values, known.outcomes, strict=True))[-len(outcomes) :]
        grid.append([*cells, *(how.value(value, column) for value, column in kept)])
    if how.notes:
        grid[0].append(random_.choice(place.notes))
        for number, row in enumerate(grid[1:]):
            row.append("annotation" if how.declared and number == 0 else random_.choice(PHRASES))
    if how.numbered:
        grid[0].insert(0, random_.choice(place.numbers))
        form = random_.choice(["{}", "R{}"])
        body = grid[2:] if how.declared else grid[1:]
        if how.declared:
            grid[1].insert(0, "annotation")
        for number, row in enumerate(body, 1):
            row.insert(0, number if form == "{}" else form.format(number))
    merges = []
    if how.group_row:
        offset = int(how.numbered)
        words = random_.choice([("If", "Then"), ("Conditions", "Actions"), ("Inputs", "Outputs")])
        above: list[Value] = [""] * len(grid[0])
        above[offset], above[offset + len(known.conditions)] = words
        grid.insert(0, above)
        merges.append((0, offset, 0, offset + len(known.conditions) - 1))
        merges.append((0, offset + len(known.conditions), 0, offset + width - 1))
    if how.merged:
        merges += _runs(2 + how.declared, int(how.numbered), known)
    if how.transposed:
        label = random_.choice(["Rule {}", "R{}", "{}"])
        labels = ["", *(label.format(number) for number in range(1, len(known.rules) + 1))]
        grid = [list(column) for column in zip(*grid, strict=True)]
        if not how.numbered:
            grid.insert(0, labels)
    if how.titles:
        head: list[list[Value]] = [[known.title]]
        if random_.random() < 0.5:
            head.append(["Version 3, valid from May"])
        if random_.random() < 0.7:
            head.append([])
        merges = [(a + len(head), b, c + len(head), d) for a, b, c, d in merges]
        if how.workbook and random_.random() < 0.5:
            merges.append((0, 0, 0, width - 1))
        grid = head + grid
    return grid, [f"{_letter(b)}{a + 1}:{_letter(d)}{c + 1}" for a, b, c, d in merges if (a, b) != (c, d)]


def _declared(role: str, column: Column, place: Place) -> str:
    if column.kind == "date":
        return f"{role} {_DECLARED_DATES[place.dates]}"
    number = f"number 1{place.decimal}5"
    return f"{role} {({'number': number, 'boolean': 'boolean'}).get(column.kind, 'text')}"


def _runs(top: int, left: int, known: Known) -> list[tuple[int, int, int, int]]:
    """Equal neighbours among the tests of the first condition, as merged cells."""
    same = [tests[0] for tests, _ in known.rules]
    found: list[tuple[int, int, int, int]] = []
    start = 0
    for at in range(1, len(same) + 1):
        if at == len(same) or same[at] != same[start] or same[start].kind == "any":
            if at - start > 1:
                found.append((top + start, left, top + at - 1, left))
            start = at
    return found


def _letter(place: int) -> str:
    return str(get_column_letter(place + 1))


def write(folder: Path, name: str, pages: Sequence[tuple[Known, Style]]) -> Path:
    """The file."""
    how = pages[0][1]
    if not how.workbook:
        file = folder / f"{name}.csv"
        grid, _ = page(*pages[0])
        with file.open("w", newline="", encoding="utf-8") as opened:
            csv.writer(opened, delimiter=how.place.delimiter).writerows(grid)
        return file
    book = openpyxl.Workbook()
    book.remove(book.active)
    for known, each in pages:
        target = book.create_sheet(known.title[:20])
        grid, merges = page(known, each)
        rates = {
            v
            for _, values in known.rules
            for v, c in zip(values, known.outcomes, strict=True)
            if c.dress == "percent"
        }
        for y, row in enumerate(grid, 1):
            for x, value in enumerate(row, 1):
                if value not in ("", None):
                    cell = target.cell(y, x, value)
                    if isinstance(value, str) and re.search(r"\d{5}", value):
                        cell.number_format = "@"
                    elif isinstance(value, float) and value in rates:
                        cell.number_format = "0.0%"
        for merged in merges:
            target.merge_cells(merged)
    if len(pages) > 1:
        readme = book.create_sheet("Read me", 0)
        readme["A1"] = "These tables belong to the sales desk."
    file = folder / f"{name}.xlsx"
    book.save(file)
    return file


LAYOUTS: Mapping[str, Sequence[str]] = {
    "plain": ("age", "words", "amount"),
    "titled": ("words", "measure", "flag"),
    "merged": ("words", "age", "amount"),
    "transposed": ("age", "words", "flag"),
    "money": ("amount", "rate", "words"),
    "dates": ("day", "words", "age"),
    "codes": ("code", "measure", "words"),
    "sheets": ("words", "amount", "age"),
    "declared": ("code", "amount", "day"),
}


def workbooks(folder: Path, seed: int, count: int) -> list[tuple[Path, list[Known], str]]:
    """`count` files: the places in turn, and of each the layouts in turn."""
    made = []
    for number in range(count):
        random_ = random.Random(f"{seed} {number}")
        place = PLACES[number % len(PLACES)]
        layout = list(LAYOUTS)[(number // len(PLACES) + seed) % len(LAYOUTS)]
        how = style(random_, place, layout)
        known = draw(random_, place.headers, "Rates", LAYOUTS[layout])
        if layout == "merged":  # runs of one test, as people merge them
            rules = list(known.rules)
            tests, values = rules[1]
            rules[1] = ((rules[0][0][0], *tests[1:]), values)
            known = replace(known, rules=tuple(rules))
        if not how.marks:
            known = replace(
                known, outcomes=known.outcomes[-1:], rules=tuple((t, v[-1:]) for t, v in known.rules)
            )
        tables = [known]
        if layout == "sheets":
            tables.append(_next(random_, known, place))
        made.append(
            (write(folder, f"{number:02d}-{place.name}-{layout}", [(k, how) for k in tables]), tables, layout)
        )
    return made


def _next(random_: random.Random, first: Known, place: Place) -> Known:
    """A second table, which takes an outcome of the first as a condition."""
    taken = first.outcomes[0]
    used = {column.name for column in (*first.conditions, *first.outcomes)}
    names = {kind: [n for n in found if n not in used] for kind, found in place.headers.items()}
    second = draw(
        random_, names | {"choice": ["Desk"], "amount": ["Cost"], "rate": ["Bonus"]}, "Routing", ["age"]
    )
    rules = []
    for tests, values in second.rules[:-1]:
        rules.append(((_test(random_, taken), *tests), values))
    rules.append(((Test("any"), Test("any")), second.rules[-1][1]))
    return replace(second, conditions=(taken, *second.conditions), rules=tuple(rules))


# The measure.


def judge(file: Path, tables: Sequence[Known], seed: int) -> tuple[Verdict, str]:
    """The verdict on one file, and a line that says why."""
    try:
        model = read_model(file)
    except InputError as error:
        return ("refused", str(error)) if "\n" not in str(error) else ("wrong", "a refusal of several lines")
    except Exception as error:  # a traceback is what this looks for
        return "wrong", f"{type(error).__name__}: {error}"
    outcomes = [column.name for known in tables for column in known.outcomes]
    wanted = {identifier(name) for name in outcomes}
    written = {name for node in model.nodes for name in node.outputs}
    if written != wanted:
        return "wrong", f"decides {sorted(written)}, not {sorted(wanted)}"
    random_ = random.Random(f"cases {seed} {file.name}")
    for _ in range(CASES):
        case = _case(random_, tables)
        expected = dict(case)
        for known in tables:
            expected |= known.decide(expected)
        given = {identifier(name): _plain(value) for name, value in case.items()}
        try:
            output = model.evaluate(given).output
        except CaseError as error:
            return "wrong", f"{given}: {error}"
        for name in outcomes:
            found = output.get(identifier(name))
            if not _same(found, expected[name]):
                return "wrong", f"{given}: {name} is {found!r}, not {expected[name]!r}"
    return "right", ""


def _case(random_: random.Random, tables: Sequence[Known]) -> Case:
    """Values at the bounds of one rule, or anywhere; what a table decides is no input of the next."""
    case: Case = {}
    decided = {column.name for known in tables for column in known.outcomes}
    for known in tables:
        rule = random_.choice(known.rules)[0]
        for place, column in enumerate(known.conditions):
            if column.name in decided or column.name in case:
                continue
            test = rule[place] if random_.random() < 0.8 else random_.choice(known.rules)[0][place]
            case[column.name] = _near(random_, column, test)
    return case


def _near(random_: random.Random, column: Column, test: Test) -> Value:
    if column.kind == "boolean":
        return random_.random() < 0.5
    if column.kind in ("text", "code"):
        return random_.choice([*test.values, *column.values, "other"])
    known = [value for value in test.values if value is not None]
    if column.kind == "date":
        return random_.choice(known or [date(2022, 5, 5)]) + timedelta(random_.choice([-40, -1, 0, 1, 40]))
    step = random_.choice([0, 0, 0.001, -0.001, 1, -1, 100])
    return round(random_.choice(known or [_number(random_, column)]) + step, 6)


def _plain(value: Value) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def _same(found: Any, expected: Any) -> bool:
    if isinstance(expected, float | int) and not isinstance(expected, bool):
        return isinstance(found, float | int) and not isinstance(found, bool) and abs(found - expected) < 1e-9
    return bool(found == expected)


AMBIGUOUS: Mapping[str, str] = {
    "day or month first": "due,-> fee\n>= 01/02/2024,5\n,1\n",
    "a day of two digits' year": "due,-> fee\n>= 01.02.24,5\n,1\n",
    "a thousand or one": 'amount,-> fee\n">= 1,000",5\n,1\n',
    "one and a half or fifteen hundred": "amount,-> fee\n>= 1.500,5\n,1\n",
    "one and a half or one and five": 'amount,-> fee\n"1,5",5\n,1\n',
    "not applicable": "segment,-> fee\nn/a,5\ngold,1\n",
    "percent beside plain": "rate,-> fee\n> 5%,5\n> 3,1\n",
    "two currencies": "amount,-> fee\n> € 500,5\n> $ 100,1\n",
    "text beside a number": "segment,-> fee\nred,5\n7,1\n",
    "a number or a text": "segment,-> fee\nred,12\nblue,review\n",
    "crosses": "member,age,-> fee\nx,> 5,3\nx,> 2,2\n,,1\n",
    "and or or": 'age,-> fee\n">= 5, <= 10",3\n,1\n',
    "from ten to five": "age,-> fee\n10-5,3\n,1\n",
    "in words": "age,-> fee\nunder 18,3\nover 65,1\n",
    "at least a code": "plan,-> fee\n>= 0123,3\n,1\n",
    "a slash": "region,-> fee\nEU,3\nUS,2\nEU/US,1\n",
    "an or": "region,-> fee\nEU or US,3\n,1\n",
    "a card's number": "card,-> fee\n4111111111111111222,3\n,1\n",
    "rules in columns": "age,< 18,> 65\nfee,5,3\n",
    "rules in columns, all words": "segment,gold,silver,basic\nroute,fast,normal,slow\n",
    "a key or a rule's number": "id,segment,-> fee\n7,gold,3\n7,silver,2\n9,,1\n",
    "the outcome or a note": "code,amount,description\nA,> 5,large\nB,> 2,small\n",
    "a name or a text": "segment,region,-> winner\ngold,EU,segment\n,,none\n",
    "two tables": "segment,fee\ngold,3\n\nregion,desk\nEU,Berlin\n",
    "a unit": "weight,-> fee\n> 5 kg,3\n,1\n",
    "a formula in an outcome": "amount,-> fee\n> 5,amount * rate\n,1\n",
    "a month's name": "due,-> fee\n1. März 2024,3\n,1\n",
}


def guesses(folder: Path) -> list[str]:
    """Which texts with two meanings are read as one of them."""
    found = []
    for name, text in AMBIGUOUS.items():
        file = folder / "two meanings.csv"
        file.write_text(text, encoding="utf-8")
        try:
            read_model(file)
        except InputError:
            continue
        except Exception as error:  # a traceback is what this looks for
            found.append(f"{name}: {type(error).__name__}: {error}")
            continue
        found.append(name)
    return found


def measure(seed: int, count: int, folder: Path) -> list[tuple[str, str, Verdict, str]]:
    """(file, layout, verdict, why) of each workbook of a seed."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        (file.name, layout, *judge(file, known, seed)) for file, known, layout in workbooks(folder, seed, count)
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--workbooks", type=int, default=40)
    parser.add_argument("--keep", type=Path, help="write the files here")
    parser.add_argument("--verbose", action="store_true", help="say why of each that is not right")
    arguments = parser.parse_args()
    total: Counter[str] = Counter()
    for seed in arguments.seed:
        with tempfile.TemporaryDirectory() as scratch:
            found = measure(seed, arguments.workbooks, arguments.keep or Path(scratch))
        counts = Counter(verdict for _, _, verdict, _ in found)
        total += counts
        print(
            f"seed {seed}: "
            + ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("right", "refused", "wrong"))
        )
        for name, _, verdict, why in found:
            if verdict != "right" and (arguments.verbose or verdict == "wrong"):
                print(f"  {verdict}  {name}: {why}")
    with tempfile.TemporaryDirectory() as scratch:
        guessed = guesses(Path(scratch))
    print(f"of {len(AMBIGUOUS)} texts with two meanings, read as one: {len(guessed)}")
    for name in guessed:
        print(f"  guessed  {name}")
    print("all:    " + ", ".join(f"{total[verdict]} {verdict}" for verdict in ("right", "refused", "wrong")))


if __name__ == "__main__":
    main()
