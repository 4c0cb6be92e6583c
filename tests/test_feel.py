"""FEEL's grammar and evaluation: each expression with what the standard says it is worth."""

import pytest

from vertigym.feel import FeelError, Value, evaluate, number, parse, text
from vertigym.feel.syntax import Binary, Path, Variable


def worth(expression: str, scope: dict[str, Value] | None = None) -> str:
    """An expression's value as FEEL writes it."""
    scope = scope or {}
    return text(evaluate(parse(expression, scope), scope))


def why(expression: str) -> str:
    """Why an expression is null: all its reasons."""
    reasons: list[str] = []
    assert evaluate(parse(expression), {}, reasons=reasons) is None
    return "; ".join(reasons)


ARITHMETIC = [
    ("1 + 2 * 3", "7"),
    ("(1 + 2) * 3", "9"),
    ("10 - 2 - 3", "5"),
    ("2 ** 3 ** 2", "64"),  # from the left
    ("-2 ** 2", "4"),  # the minus sign binds tighter
    ("2 ** -1", "0.5"),
    ("--3", "3"),
    ("-(1 + 1)", "-2"),
    ("0.1 + 0.2 = 0.3", "true"),
    ("1/3", "0.3333333333333333333333333333333333"),  # 34 digits
    (".5 + 1e2", "100.5"),
    ("1.50", "1.5"),
    ("7 / 0", "null"),
    ("10 ** 9999", "null"),
    ('"a" + "b"', "ab"),
    ('"a" + 1', "null"),
    ("1 + null", "null"),
    ("true * 2", "null"),
    ("[1] + [2]", "null"),
]
LOGIC = [
    ("true and true", "true"),
    ("true and null", "null"),
    ("null and false", "false"),
    ("null or true", "true"),
    ("false or null", "null"),
    ('true and "x"', "null"),
    ('false and "x"', "false"),
    ("not(null)", "null"),
    ("1 < 2 and 2 <= 2 and 3 > 2 and 3 >= 3 and 1 != 2", "true"),
    ('"a" < "b"', "true"),
    ('1 < "b"', "null"),
    ("1 < null", "null"),
    ("null = null", "true"),
    ("null != 1", "true"),
    ('1 = "1"', "null"),
    ("[1, [2]] = [1.0, [2]]", "true"),
    ('[1] = ["1"]', "false"),
    ("{a: 1, b: 2} = {b: 2, a: 1}", "true"),
    ("{a: 1} = {a: null}", "false"),
    ("[1..2] = [1..2]", "true"),
    ("[1..2] = [1..2)", "false"),
    ("5 between 1 and 5", "true"),
    ("6 between 1 and 5 or true", "true"),
    ("9 between null and 5", "false"),
    ("1 between null and 5", "null"),
]
CONDITIONALS = [
    ('if 1 > 0 then "a" else "b"', "a"),
    ('if null then "a" else "b"', "b"),
    ('if "x" then "a" else "b"', "null"),
    ("if false then 1 else if false then 2 else 3", "3"),
    ("if true then if false then 1 else 2 else 3", "2"),
    ("for x in [1, 2], y in [x, 10] return x * y", "[1, 10, 4, 20]"),
    ("for i in 3..1 return i", "[3, 2, 1]"),
    ("for i in (1..4) return i", "[2, 3]"),
    ("for i in 0..4 return if i = 0 then 1 else i * partial[-1]", "[1, 1, 2, 6, 24]"),
    ("for i in 1..3 return count(partial)", "[0, 1, 2]"),
    ("for i in 7 return i", "[7]"),
    ('for i in 1.."a" return i', "null"),
    ("for i in null return i", "null"),
    ("some x in [1, 2] satisfies x > 1", "true"),
    ("some x in [1, null] satisfies x > 1", "null"),
    ("some x in [] satisfies x", "false"),
    ("every x in [] satisfies x", "true"),
    ("every x in [1, 2], y in [2, 3] satisfies x <= y", "true"),
    ("every x in [0, null] satisfies x > 1", "false"),
]
LISTS = [
    ("[1, 2, 3][2]", "2"),
    ("[1, 2, 3][-1]", "3"),
    ("[1, 2, 3][4]", "null"),
    ("[1, 2, 3][0]", "null"),
    ("[][1]", "null"),
    ("[][item > 1]", "[]"),
    ("7[1]", "7"),
    ("null[1]", "null"),
    ("[1, 2, 3][item > 1]", "[2, 3]"),
    ("[1, 2, 3][> 1]", "[2, 3]"),
    ('[1, 2]["x"]', "null"),
    ("[1, null, 3][item > 1]", "[3]"),
    ("[{x: 1, y: 2}, {x: 2, y: 3}][x = 2].y", "[3]"),
    ("[{item: 1}, {item: 2}][item = 2]", "[{item: 2}]"),
    ("[{a: 1}, {b: 2}].a", "[1, null]"),
    ("[[1, 2], [3]][1][2]", "2"),
    ("{a: 1, b: a + 1, c: {d: a + b}}.c.d", "3"),
    ('{"a b": 1, c: a b + 1}.c', "2"),
    ("{a-b: 3, c: a-b + 1}.c", "4"),
    ("{a: 1, a: 2}", "null"),
    ("{a: 1}.b", "null"),
    ('"abc".b', "null"),
    ("[{first name: 1}, {first name: 2}][first name = 2].first name", "[2]"),
]
RANGES = [
    ("2 in [1..2]", "true"),
    ("2 in [1..2)", "false"),
    ("1 in (1..2]", "false"),
    ("1 in ]1..2]", "false"),
    ("2 in [1..2[", "false"),
    ("2 in [1..2[ or true", "true"),
    ("count([[1..2[, 3])", "2"),
    ("5 in (> 3)", "true"),
    ("5 in <= 4", "false"),
    ("5 in (1, 2, > 4)", "true"),
    ("5 in !=5", "false"),
    ("5 in [4, 5]", "true"),
    ("5 in [[1..2], [4..6]]", "true"),
    ('"b" in ["a".."c"]', "true"),
    ('5 in "a"', "false"),
    ("null in [1..2]", "null"),
    ("1 in [1..null]", "null"),
    ("5 in (null..10]", "null"),
    ("(null..10] = (<= 10)", "true"),
    ("{r: (null..10], found: 5 in r}.found", "true"),
    ("(null..null)", "null"),
    ("1 in (2)[1] or 1 in [1]", "true"),
    ("1 + 1 in [2..3]", "true"),
    ("(< 5).end", "5"),
    ("(< 5).start", "null"),
    ("(<= 5).end included", "true"),
    ("(= 5)", "[5..5]"),
    ("[1..2].start included", "true"),
    ("[1..2).end included", "false"),
    ('[1.."a"]', "null"),
]
FUNCTIONS = [
    ("(function(x) x + 1)(2)", "3"),
    ("{f: function(n) if n <= 1 then 1 else n * f(n - 1), r: f(20)}.r", "2432902008176640000"),
    ("{a: 2, f: function(x) x * a, r: f(5)}.r", "10"),
    ("(function(x: number) x)([5])", "5"),  # the only item of a list
    ("(function(x: number) x)([5, 6])", "null"),
    ("(function(x: list<number>) x)(5)", "[5]"),
    ('(function(x: date and time) x)(@"2024-01-01")', "2024-01-01T00:00:00Z"),
    ('(function(x: number) x)("a")', "null"),
    ("(function(x) x)(1, 2)", "null"),
    ("(function(x, y) x - y)(y: 1, x: 3)", "2"),
    ("(function(x) x)(z: 1)", "null"),
    ("(function(first name) first name)(1)", "1"),
    ("1(2)", "null"),
    ("unknown(1)", "null"),
    ("abs(n: -1)", "1"),
    ("abs(x: -1)", "null"),
    ('substring(start position: 2, string: "abc")', "bc"),
    ("{abs: function(x) 0, r: abs(-3)}.r", "0"),  # a scope's names come first
    ("[abs][1](-3)", "3"),
    ('(function(x) external {java: {class: "C"}})(1)', "null"),
]
TYPES = [
    ("1 instance of number", "true"),
    ("-1 instance of number", "true"),
    ("null instance of Null", "true"),
    ("null instance of number", "false"),
    ("1 instance of Any", "true"),
    ("[1, 2] instance of list<number>", "true"),
    ('[1, "a"] instance of list<number>', "false"),
    ("{a: 1, b: 2} instance of context<a: number>", "true"),
    ("{b: 2} instance of context<a: number>", "false"),
    ("[1..2] instance of range<number>", "true"),
    ('["a".."b"] instance of range<number>', "false"),
    ("(function(a: number) a) instance of function<number> -> Any", "true"),
    ("(function(a: number) a) instance of function<string> -> Any", "false"),
    ('@"P1Y" instance of years and months duration', "true"),
    ('@"P1D" instance of years and months duration', "false"),
    ('@"2024-01-01" instance of date and time', "false"),
    ("[[1]] instance of list<list<number>>", "true"),
]
TEXTS = [
    (r'"a\tb\n\"\\"', 'a\tb\n"\\'),
    (r'"\u0041\U01F40E\uD83D\uDCA9"', "A\U0001f40e\U0001f4a9"),
    (r'"\d"', r"\d"),  # a backslash that escapes nothing stays: patterns
    ("1 /* + 1 */ + // and\n 2", "3"),
    ('{\U0001f40e: "x"}.\U0001f40e', "x"),
    ('string({a: "x", "b c": [1, null, true]})', '{a: "x", "b c": [1, null, true]}'),
]


@pytest.mark.parametrize(
    ("expression", "expected"),
    ARITHMETIC + LOGIC + CONDITIONALS + LISTS + RANGES + FUNCTIONS + TYPES + TEXTS,
)
def test_worth(expression: str, expected: str) -> None:
    assert worth(expression) == expected


def test_names_hold_spaces_operators_and_words_of_the_grammar() -> None:
    scope: dict[str, Value] = {
        "Applicant Age": number(20),
        "Applicant": number(1),
        "a-b": number(7),
        "a": number(10),
        "b": number(4),
        "Terms and Conditions": True,
        "Loan 2nd": number(2),
        "Person's Age": number(3),
        "b//c": number(99),  # no text can spell it, nor does it hide `b`
        "m": {"Greet the Person": "hi"},
    }
    assert worth("Applicant Age + 1", scope) == "21"
    assert worth("Applicant   Age - Applicant", scope) == "19"
    assert worth("a-b", scope) == "7"
    assert worth("(a)-(b)", scope) == "6"
    assert worth("Terms and Conditions and true", scope) == "true"
    assert worth("Loan 2nd * Person's Age", scope) == "6"
    assert worth("m.Greet the Person", scope) == "hi"  # words beside each other are one name


def test_the_longest_name_is_taken_where_two_fit() -> None:
    tree = parse("Loan Amount + Loan", ["Loan", "Loan Amount"])
    assert tree == Binary("+", Variable("Loan Amount"), Variable("Loan"))
    assert parse("x.a-b", ["a-b"]) == Path(Variable("x"), "a-b")


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ('10 + "x"', '10 + "x": not for number and string'),
        ("missing + 1", "there is no 'missing' here"),
        ("{a: 1}.b", "no entry 'b'"),
        ('abs("x")', "abs(string) does not fit abs(n: number)"),
        ("[1][7]", "there is no item 7 in a list of 1"),
        ('date("2024-02-30")', "'2024-02-30' is no date"),
        ('@"2024-02-30"', "'2024-02-30' is no date"),
        ("1 / 0", "there is no such number"),
        ('1 < "a"', "cannot be compared"),
        ("(1 + null) * 2", "1 + null: not for number and null"),
        ("(function(x) x)()", "takes 1 arguments; got 0"),
        ("now()", "no clock was given"),
        ('matches("a", "(")', "pattern '('"),
    ],
)
def test_a_null_says_why(expression: str, reason: str) -> None:
    assert reason in why(expression)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 +", "the text ends"),
        ("(1", "the text ends, expected ')'"),
        ("1 2", "unexpected '2' at character 3"),
        ("if true then 1", "expected 'else'"),
        ("for x [1] return x", "expected 'in'"),
        ("{a 1}", "expected ':'"),
        ('"abc', "does not end"),
        ("/* abc", "does not end"),
        ("a b % 2", "unexpected '%'"),
        ("f(a: 1, 2)", "either all arguments have names or none"),
        ("[1..2", "the text ends"),
        ("1e99999", "a number out of range"),
        ("x instance of list<>", "a type is expected"),
        ("@5", "in quotes"),
        ("", "the text ends"),
    ],
)
def test_what_is_no_feel_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(FeelError, match="not FEEL") as error:
        parse(text)
    assert message in str(error.value)
