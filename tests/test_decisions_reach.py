"""Rules behind functions are reached: text, lists, dates, numbers computed through several nodes; in both
languages."""

import re
from pathlib import Path
from typing import Any

import pytest

from vertigym.decisions.findings import analyse
from vertigym.decisions.formats import read_model
from vertigym.decisions.model import DecisionModel
from vertigym.decisions.pattern_examples import examples
from vertigym.decisions.protocols import RuleModel
from vertigym.decisions.sampler import Sampler

from .test_decisions_dmn import document, table
from .test_decisions_dmn_graph import entry, file_of, item_definition, knowledge, literal, uses
from .test_envs_decision_dmn import CAMUNDA, column, rule
from .test_envs_decision_import import expression, graph
from .test_envs_decision_import import table as jdm_table


def missed(model: RuleModel) -> set[str]:
    """Rules that no case hits although nothing proves that none can."""
    known = analyse(model)
    hit = Sampler(model, 0, known=known).run(1000).hit
    return model.rules.keys() - known.unreachable - hit


def conditions(*texts: str, before: tuple[dict[str, Any], ...] = ()) -> str:
    """A JDM table with a rule for each condition and a last one for everything else."""
    rows = [[text, f"'{place}'"] for place, text in enumerate([*texts, ""])]
    return graph(*before, jdm_table("t", [""], ["out"], rows))


ZEN = {
    "lower case": ["contains(lower(model), 'pro')", "contains(lower(model), 'air')", "lower(model) == 'max'"],
    "starts and ends with": ["startsWith(iban, 'DE') and endsWith(iban, '77')", "startsWith(iban, 'AT')"],
    "a split number": [
        "number(split(fw, '.')[0]) >= 12", "number(split(fw, '.')[0]) == 11", "split(fw, '.')[1] == 'x'",
    ],
    "a pattern": [r"matches(code, '^[A-Z]{2}-[0-9]{3}$')", r"matches(code, '^(alpha|beta)[.]com$')"],
    "joined texts": ["region + '-' + tier == 'eu-gold'", "region + '-' + tier == 'us-silver'"],
    "a length": ["len(name) > 12", "len(name) == 3"],
    "a list's members": ["some(tags, # == 'vip')", "len(tags) > 3", "'new' in tags"],
    "every item": ["len(items) > 0 and all(items, #.qty >= 5)", "some(items, #.price > 100)"],
    "days between dates": ["date(end) - date(start) > 86400 * 30", "date(end) - date(start) == 86400 * 7"],
    "a part of a text": ["code[0:1] == 'DE'", "upper(code) == 'FR'"],
}  # fmt: skip


@pytest.mark.parametrize("kind", ZEN)
def test_a_rule_behind_a_function_is_reached(kind: str) -> None:
    assert not missed(DecisionModel(conditions(*ZEN[kind]), kind))


# What nodes compute of a field, and what a table then asks of it; no tests say of what type the field is.
COMPUTED = {
    "a version's parts": (
        {"major": 'number(split(os.version, ".")[0])', "minor": 'number(split(os.version, ".")[1])'},
        ["major >= 16", "major >= 14 and minor > 2", "major >= 14 and minor <= 2", "major == 9 and minor == 4"],
    ),
    "another case": ({"os": "lower(device.os)"}, ["os == 'ios'", "os == 'android'"]),
    "through more nodes": ({"a": "trim(code)", "b": "upper(a)"}, ["b == 'DE'", "startsWith(b, 'FR')"]),
    "a length": ({"n": "len(name)"}, ["n > 40", "n == 7"]),
    "a year": ({"year": "d(released).year()"}, ["year == 2031", "year < 1995"]),
    "versions beside each other": (
        {"needs": 'map(split(app.version, "."), number(#))', "has": 'map(split(os.version, "."), number(#))'},
        ["has[0] > needs[0]", "has[0] == needs[0] and has[1] >= needs[1]"],
    ),
    "what is lacking": (
        {"lacking": "filter(app.needs, not(# in device.features))", "count": "len(lacking)"},
        ["count > 2", "count == 1", "len(app.needs) > 0"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", COMPUTED)
def test_a_rule_on_what_nodes_compute_is_reached(kind: str) -> None:
    computed, rules = COMPUTED[kind]
    nodes = (expression(name, {name: text}) for name, text in computed.items())
    assert not missed(DecisionModel(conditions(*rules, before=tuple(nodes)), kind))


# As a checker of devices may be written: what is computed, the columns of the table behind it, and its rules.
DEVICES: dict[str, tuple[dict[str, str], list[str], list[str]]] = {
    "system": (
        {
            "major": 'number(split(device.version, ".")[0])',
            "minor": 'number(split(device.version, ".")[1])',
            "os": "lower(device.os)",
            "nfc": 'contains(device.features, "nfc")',
            "features": "len(device.features)",
        },
        ["os", "major", "minor", "device.ram", "nfc", "features"],
        [
            '"ios" | >= 16 | | >= 4 | true | >= 3',
            '"ios" | [14..16) | > 2 | >= 3 | |',
            '"ios" | [14..16) | <= 2 | | |',
            '"ios" | < 14 | | | |',
            '"android" | >= 12 | | >= 6 | true |',
            '"android" | >= 12 | | >= 6 | false |',
            '"android" | [9..12) | | >= 4 | | >= 2',
            '"android" | | | < 2 | |',
            '"harmony" | | | | |',
            "| | | | |",
        ],
    ),
    "model": (
        {},
        ["device.model", "", "device.features"],
        [
            'startsWith($, "SM-") | device.version == "14.2.1" | contains($, "5g")',
            'startsWith($, "SM-") | number(split(device.version, ".")[0]) >= 12 | some($, # == "nfc")',
            'matches($, "^Pixel [6-9]( Pro)?$") | | len($) > 3',
            'endsWith($, "Pro Max") | | not(contains($, "esim"))',
            'contains(lower($), "iphone") | d(device.released).year() >= 2020 |',
            "len($) > 12 | | all($, len(#) > 2)",
            '| len(split(device.version, ".")) == 3 |',
            "| |",
        ],
    ),
    "room": (
        {"free": "storage.total - storage.used", "share": "storage.used / storage.total * 100"},
        ["cores", "ramMb", "free", "share"],
        [
            ">= 8 | >= 8192 | >= 10 | < 90",
            ">= 8 | >= 8192 | >= 10 | >= 90",
            "[4..8) | >= 4096 | >= 5 |",
            "< 4 | | |",
            "| < 2048 | |",
            "| | |",
        ],
    ),
    "application": (
        {
            "needs": 'map(split(app.version, "."), number(#))',
            "has": 'map(split(device.version, "."), number(#))',
            "lacking": "filter(app.features, not(# in device.features))",
            "newer": "has[0] > needs[0] or (has[0] == needs[0] and has[1] >= needs[1])",
            "count": "len(lacking)",
        },
        ["newer", "count", "device.type"],
        [
            'true | 0 | "phone","tablet"',
            'true | 0 | "watch"',
            "true | [1..2] |",
            "true | > 2 |",
            "false | 0 |",
            'false | | "tv"',
            "| |",
        ],
    ),
}


@pytest.mark.parametrize("kind", DEVICES)
def test_every_rule_of_a_checker_of_devices_is_reached(kind: str) -> None:
    computed, columns, rules = DEVICES[kind]
    nodes = [expression(name, {name: text}) for name, text in computed.items()]
    rows = [[*(cell.strip() for cell in text.split("|")), f"'{place}'"] for place, text in enumerate(rules)]
    assert not missed(DecisionModel(graph(*nodes, jdm_table("t", columns, ["out"], rows)), kind))


@pytest.mark.parametrize(
    ("computed", "cells"),
    [
        ("lower case(x)", ['"ios"', '"android"']),
        ('number(split(x, "-")[1])', [">= 16", "[14..16)", "9"]),
        ('substring after(upper case(x), "/")', ['"PDF"', '"PNG"']),
        ("string length(x)", ["> 40", "7"]),
    ],
)
def test_a_rule_on_what_a_decision_computes_is_reached(computed: str, cells: list[str], tmp_path: Path) -> None:
    rules = "".join(rule(cell, f'"{n}"') for n, cell in enumerate([*cells, "-"]))
    asked = f'{column("X", "Any")}<output name="o" typeRef="string"/>{rules}'
    text = f"""{CAMUNDA} id="x" name="x">
<inputData id="x" name="x"><variable name="x" typeRef="string"/></inputData>
<decision id="X" name="X"><variable name="X"/>
<informationRequirement><requiredInput href="#x"/></informationRequirement>
{literal(computed)}</decision>
<decision id="t" name="T"><informationRequirement><requiredDecision href="#X"/></informationRequirement>
<decisionTable hitPolicy="FIRST">{asked}</decisionTable></decision></definitions>"""
    assert not missed(read_model(file_of(tmp_path, text)))


FEEL = {
    "text": (
        'contains(upper case(model), "PRO")', 'starts with(model, "DE") and ends with(model, "77")',
        'string length(model) > 12', 'substring before(model, "@") = "info"', 'lower case(model) = "max"',
    ),
    "split": (
        'number(split(fw, "\\.")[1]) >= 12', 'number(split(fw, "\\.")[1]) = 11', 'split(fw, "\\.")[2] = "x"',
    ),
    "a pattern": ('matches(code, "^[A-Z]{2}-[0-9]{3}$")', 'matches(code, "^(alpha|beta)[.]com$")'),
    "joined": ('region + "-" + tier = "eu-gold"', 'region + "-" + tier = "us-silver"'),
    "lists": (
        'list contains(tags, "vip")', 'count(tags) > 3', 'some t in tags satisfies t = "new"',
        'every t in tags satisfies t = "old"',
    ),
    "records": (
        'some i in items satisfies i.qty > 5', 'sum(items.price) > 1000', 'count(items[price > 100]) >= 2',
    ),
    "dates": (
        'years and months duration(date(start), date(end)).years >= 18',
        'date(start) + duration("P30D") < date(end)', 'date(end) - date(start) = duration("P7D")',
        'date(end).month = 12',
        'day of week(date(end)) = "Sunday"',
    ),
    "numbers": (
        'a * b > 1000 and a < 20', 'floor(a / 7) = 3', 'modulo(a, 7) = 3 and b > 50',
        'abs(a - b) < 0.5 and a > 40',
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FEEL)
def test_a_rule_behind_a_feel_function_is_reached(kind: str, tmp_path: Path) -> None:
    rules = "".join(rule(text, f'"{place}"') for place, text in enumerate([*FEEL[kind], "-"]))
    rules = rules.replace("<inputEntry><text>", "<inputEntry><text>? = 1 and ").replace("? = 1 and -", "-")
    text = (
        f'{CAMUNDA} id="x" name="x"><decision id="d" name="D"><decisionTable hitPolicy="FIRST">'
        f'{column("1", "number")}<output name="o" typeRef="string"/>{rules}'
        "</decisionTable></decision></definitions>"
    )
    assert not missed(read_model(file_of(tmp_path, text)))


LIMITED = table([("x", "number")], [["> 150", '"a"'], ["> 105", '"b"'], ["-", '"c"']], 'hitPolicy="FIRST"')
SHADOWED = document(
    ("D", f"<context>{entry('x', literal('x + 100'))}{entry('', LIMITED)}</context>", ["x"]),
    inputs=[("x", "lim")],
    more=item_definition("lim", "number", "[0..60]"),
)
X_OF_A = (
    f'{column("n", "number", "[0..5]")}<output name="x" typeRef="number"/>{rule("> 3", "50")}{rule("-", "7")}'
)
X_GIVEN = f'{column("x", "number")}<output name="y"/>{rule("> 40", "1")}{rule("-", "2")}'
X_INPUT = f'{column("x", "number", "[0..20]")}<output name="z"/>{rule("> 15", "1")}{rule("-", "2")}'
FIRST = '<decisionTable hitPolicy="FIRST">'
HANDED_ON = f"""{CAMUNDA} id="x" name="x"><decision id="a" name="A">{FIRST}{X_OF_A}</decisionTable></decision>
<decision id="b" name="B"><informationRequirement><requiredDecision href="#a"/></informationRequirement>
{FIRST}{X_GIVEN}</decisionTable></decision>
<decision id="c" name="C">{FIRST}{X_INPUT}</decisionTable></decision></definitions>"""
ARGUMENT = document(
    ("D", literal("f(x + 100)"), ["x"]),
    inputs=[("x", "lim")],
    more=item_definition("lim", "number", "[0..60]") + knowledge("f", "x", LIMITED),
).replace("<literalExpression", f"{uses('f')}<literalExpression", 1)


@pytest.mark.parametrize("content", [SHADOWED, HANDED_ON, ARGUMENT], ids=["entry", "output", "parameter"])
def test_a_name_that_is_also_an_inputs_is_not_taken_for_it(content: str, tmp_path: Path) -> None:
    model = read_model(file_of(tmp_path, content))
    assert not analyse(model).findings
    assert Sampler(model, 0).run(1000).hit == model.rules.keys()


def test_a_number_computed_through_several_nodes_meets_narrow_limits() -> None:
    chain = (
        expression("a", {"debt": "loans + 12 * rent"}),
        expression("b", {"ratio": "debt / income"}),
        expression("c", {"score": "600 - 200 * ratio + 3 * years"}),
    )
    cells = ["> 640", "[600..605]", "[500..501]", "< 100", ""]
    table = jdm_table("t", ["score"], ["out"], [[cell, f"'{n}'"] for n, cell in enumerate(cells)])
    assert not missed(DecisionModel(graph(*chain, table), "chain"))


def test_examples_of_a_pattern_match_it() -> None:
    for pattern in (
        r"^[A-Z]{2}\d{3,5}$",
        r"^(DE|AT)-\d+$",
        r"^[^@]+@[a-z]+\.com$",
        r"^(?:ab?)+c*$",
        r"^\w\s\S.$",
    ):
        found = list(examples(pattern))
        assert found, pattern
        assert all(re.search(pattern, text) for text in found), (pattern, found)
    assert not list(examples("("))
