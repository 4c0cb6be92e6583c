"""FEEL at its edges: cells of decision tables, functions and types of the caller, JSON."""

from decimal import Decimal

import pytest

from vertigym.feel import (
    FeelError,
    FeelType,
    Function,
    NoValue,
    Value,
    conforms,
    evaluate,
    from_json,
    number,
    parse,
    parse_type,
    parse_unary_tests,
    satisfies,
    to_json,
)
from vertigym.feel.syntax import CompareNode, Constant, RangeNode, Variable

from .test_feel import worth

CELLS: list[tuple[str, Value, bool | None]] = [
    ("-", None, True),
    ("", number(1), True),
    ("5", number(5), True),
    ("< 5", number(5), False),
    ("< 5", None, None),
    ('< "b"', number(1), None),
    ("[1..5]", number(5), True),
    ("1, 2, > 7", number(8), True),
    ("not(1, 2)", number(2), False),
    ("not(1, 2)", number(3), True),
    ("not(< 2)", None, None),
    ("null", None, True),
    ("not(null)", None, False),
    ("? > 3 and ? < 6", number(4), True),
    ("? > 3", None, None),
    ('contains(?, "a")', "cat", True),
    ("x * 2", number(6), True),
    ("xs", number(2), True),
    ("x = 3", number(99), True),  # a test that holds, whatever the input is
    ("true", True, True),
    ("true", None, False),
    ("x = 4", True, False),
    ("[1, 2], [3]", number(3), True),
    ("!= 3", None, True),
    ('not(x = 3) or ? = "a"', "a", True),
    ("-3", number(-3), True),
    ('@"2024-01-01"', from_json("2024-01-01"), False),
]


@pytest.mark.parametrize(("cell", "value", "expected"), CELLS)
def test_cells_of_a_decision_table(cell: str, value: Value, expected: bool | None) -> None:
    scope: dict[str, Value] = {"x": number(3), "xs": [number(1), number(2)]}
    assert satisfies(parse_unary_tests(cell), value, scope) is expected


def test_a_cell_has_a_tree_to_walk() -> None:
    tests = parse_unary_tests("not([1..x), < 5)")
    assert tests.negated
    assert tests.tests == (
        RangeNode(Constant(number(1)), Variable("x"), True, False),
        CompareNode("<", Constant(number(5))),
    )
    names = [each.name for each in parse("a + f(b)[c.d]").walk() if isinstance(each, Variable)]
    assert names == ["a", "f", "b", "c"]


def test_functions_of_the_caller() -> None:
    def halved(n: Decimal) -> Value:
        if n < 0:
            raise NoValue("only of numbers above 0")
        return n / 2

    scope: dict[str, Value] = {
        "half of": Function("half of", ("n",), halved, (FeelType("number"),)),
    }
    assert worth("half of(4) + half of(n: 2)", scope) == "3"
    assert worth('half of("a")', scope) == "null"
    assert worth("for x in [2, 4] return half of(x)", scope) == "[1, 2]"
    reasons: list[str] = []
    assert evaluate(parse("half of(-1)", scope), scope, reasons=reasons) is None
    assert reasons == ["only of numbers above 0"]


def test_types_of_the_caller() -> None:
    types = {"tAges": parse_type("list<tAge>"), "tAge": parse_type("number")}
    assert evaluate(parse("[1, 2] instance of tAges"), {}, types=types) is True
    assert evaluate(parse('["a"] instance of tAges'), {}, types=types) is False
    assert conforms(number(1), parse_type("tAge"), types)
    assert str(parse_type("function<list<number>, string> -> context<a: Any>")) == (
        "function<list<number>, string> -> context<a: Any>"
    )
    with pytest.raises(FeelError):
        parse_type("list<number")


def test_json_goes_in_and_comes_out() -> None:
    case = {"n": 0.1, "whole": 3, "text": "007", "list": [None, True], "big": 10**20}
    assert to_json(from_json(case)) == case
    assert from_json(0.1) == Decimal("0.1")
    found = evaluate(parse('{d: @"2024-01-01", t: @"PT90M", r: [1..2)}'), {})
    assert to_json(found) == {"d": "2024-01-01", "t": "PT1H30M", "r": "[1..2)"}
    for bad in (float("inf"), float("nan"), object()):
        with pytest.raises(NoValue):
            from_json(bad)
