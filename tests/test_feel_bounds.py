"""No text makes FEEL hang, fill the memory or end with an error of Python's own."""

from itertools import chain, product

import pytest

from vertigym.feel import FeelError, evaluate, evaluation, parse, parse_unary_tests, patterns, to_json
from vertigym.feel.signatures import BUILT_INS

DOUBLED = ", ".join(["a0: [1]"] + [f"a{i}: [a{i - 1}, a{i - 1}]" for i in range(1, 60)])
TOO_MUCH = [
    "(" * 5000 + "1" + ")" * 5000,
    "-" * 5000 + "1",
    "[" * 5000,
    "{a: " * 5000,
    "function(a) " * 5000 + "1",
    "x instance of " + "list<" * 5000,
    "1" + " + 1" * 5000,
    "a" + ".b" * 5000,
    "if true then " * 5000,
    "if false then 1 else " * 5000 + "1",
    "1 in (" * 60 + "1" + ")[1]" * 60,
    '"' + "x" * 200_000 + '"',
    "for i in 1..1000000 return i",
    "for i in 1e6000..1e6001 return i",
    "for i in 1..1000, j in 1..1000 return 1",
    "every i in 1..100000 satisfies (some j in 1..100000 satisfies true)",
    "for i in 1..60 return partial",
    f"{{{DOUBLED}}}",
    f"{{{DOUBLED}, r: string(a59)}}.r",
    f"{{{DOUBLED}, r: a59 = a58}}.r",
    f"{{{DOUBLED}, r: flatten(a59)}}.r",
    f"{{{DOUBLED}, r: count(distinct values(a59))}}.r",
    '{a0: "xxxxxxxxxx", ' + ", ".join(f"a{i}: a{i - 1} + a{i - 1}" for i in range(1, 60)) + "}",
    'for i in 1..100000 return "' + "x" * 10_000 + '" + string(i)',
    'string join(for i in 1..100000 return "x", "' + "y" * 1000 + '")',
    'replace("' + "a" * 5000 + '", "a", "' + "b" * 5000 + '")',
    "{f: function(n) f(n + 1), r: f(1)}",
    "(function(f) f(f))(function(f) f(f))",
    "{f: function(n) if n = 0 then 1 else f(n - 1) + f(n - 1), r: f(40)}",
]


@pytest.mark.parametrize("text", TOO_MUCH, ids=range(len(TOO_MUCH)))
def test_too_much_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "MOST_STEPS", 100_000)  # a tenth: the test shall be quick
    with pytest.raises(FeelError):
        evaluate(parse(text), {})


@pytest.mark.parametrize(
    "text",
    [
        "10 ** 99999999",
        "0 ** -1",
        "sqrt([null])",
        "9 ** 9 ** 9 ** 9 ** 9",
        "exp(1e6000)",
        "stddev([1e6000, -1e6000])",
        '@"P999999999999999999Y" * 1e300',
        '@"2020-01-01" + @"P999999999999999D"',
        "date(1e6000, 1, 1)",
        "time(1e6000, 1, 1)",
        'substring("abc", 1e6000)',
        "[1][1e6000]",
        "sublist([1], -1e6000)",
        'number("1e9999")',
        'matches("a", "((((a{9999}){9999}){9999}){9999})")',
        'date("' + "9" * 50_000 + '-01-01")',
    ],
)
def test_numbers_beyond_all_sizes_are_null(text: str) -> None:
    assert evaluate(parse(text), {}) is None


def test_a_pattern_that_backtracks_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 0.01)
    with pytest.raises(FeelError, match="regular expression"):
        evaluate(parse('matches(s, "^(a|aa|aaa)+$")'), {"s": "a" * 5000 + "b"})


ODD = [
    "null",
    "-1",
    "1.5",
    "1e6000",
    '""',
    "true",
    "[]",
    "[null]",
    "[1, 2]",
    "{a: 1}",
    "[1..2]",
    "(< 5)",
    "function(x, y) x",
    "abs",
    '@"2024-01-01"',
    '@"10:00:00Z"',
    '@"999999999-12-31T23:59:59@Europe/Paris"',
    '@"P1M"',
    '@"P1D"',
]


@pytest.mark.parametrize("name", sorted(BUILT_INS))
def test_no_function_ends_with_an_error_of_pythons_own(name: str) -> None:
    for arguments in chain([()], product(ODD), product(ODD, ODD)):
        reasons: list[str] = []
        found = evaluate(parse(f"{name}({', '.join(arguments)})"), {}, reasons=reasons)
        assert found is not None or reasons or "null" in arguments, arguments


@pytest.mark.parametrize(
    "operator", ["+", "-", "*", "/", "**", "=", "<", ">=", "in", "and", "or", "between 1 and"]
)
def test_no_operator_ends_with_an_error_of_pythons_own(operator: str) -> None:
    for left, right in product(ODD, ODD):
        reasons: list[str] = []
        found = evaluate(parse(f"({left}) {operator} {right}"), {}, reasons=reasons)
        assert found is not None or reasons or "null" in (left, right), (left, right)


def test_long_chains_that_people_write_are_read() -> None:
    tests = " or ".join(f"x = {i}" for i in range(200))
    assert evaluate(parse(tests), {"x": None}) is False
    chain = " else ".join(f"if x = {i} then {i}" for i in range(200)) + " else null"
    assert evaluate(parse(chain), {"x": None}) is None
    assert len(parse_unary_tests(", ".join(map(str, range(5000)))).tests) == 5000


def test_functions_call_each_other_to_a_fixed_depth() -> None:
    def sum_to(n: int) -> object:
        return evaluate(parse(f"{{f: function(n) if n <= 1 then 1 else n + f(n - 1), r: f({n})}}.r"), {})

    assert sum_to(50) == 1275
    with pytest.raises(FeelError, match="50 levels"):
        sum_to(51)


def test_what_json_does_not_hold_is_refused() -> None:
    with pytest.raises(FeelError, match="too large for JSON"):
        to_json(evaluate(parse("1e6000"), {}))
