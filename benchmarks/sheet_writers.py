"""A known table written down as somebody in one of five places would: decimal comma or point, thousands,
percent, currency, dates, ranges, text codes, titles, merged headers, notes, rules in columns, two sheets.
"""

import csv
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import openpyxl
from openpyxl.utils import get_column_letter

from vertigym.benchmarks.known_tables import Column, Known, Test, Value, draw, draw_test


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
        rules.append(((draw_test(random_, taken), *tests), values))
    rules.append(((Test("any"), Test("any")), second.rules[-1][1]))
    return replace(second, conditions=(taken, *second.conditions), rules=tuple(rules))
