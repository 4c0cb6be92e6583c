"""DMN: each hit policy and form of test gives the expected outputs; what is unsafe or unknown is refused."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest

from vertigym.core.types import Split
from vertigym.decisions.findings import analyse
from vertigym.decisions.formats import ReadOptions, read_model
from vertigym.decisions.model import CaseError, DecisionError
from vertigym.decisions.protocols import RuleModel
from vertigym.envs.decision.importer import import_decision

LOAN = Path(__file__).parent / "dmn" / "loan.dmn"
SPACE = "https://www.omg.org/spec/DMN/20191111/MODEL/"


def text(tag: str, content: str) -> str:
    return f"<{tag}><text>{escape(content)}</text></{tag}>"


def table(
    columns: Sequence[tuple[str, str]],
    rows: Sequence[Sequence[str]],
    policy: str = "",
    outputs: Sequence[str] = ("<output/>",),
) -> str:
    """A decision table; a column is (expression, type), a row its tests, then its results."""
    inputs = "".join(
        f"<input><inputExpression typeRef={kind!r}><text>{escape(e)}</text></inputExpression></input>"
        for e, kind in columns
    )
    rules = "".join(
        "<rule>"
        + "".join(text("inputEntry", cell) for cell in row[: len(columns)])
        + "".join(text("outputEntry", cell) for cell in row[len(columns) :])
        + "</rule>"
        for row in rows
    )
    return f"<decisionTable {policy}>{inputs}{''.join(outputs)}{rules}</decisionTable>"


def document(
    *decisions: tuple[str, str, Sequence[str]],
    inputs: Sequence[tuple[str, str]] = (("n", "number"), ("k", "string")),
    space: str = SPACE,
    more: str = "",
) -> str:
    """A file; a decision is (name, body, names required)."""
    names = {name for name, _ in inputs}
    parts = [
        f'<inputData id="i_{n}" name="{n}"><variable name="{n}" typeRef="{t}"/></inputData>' for n, t in inputs
    ]
    for name, body, needs in decisions:
        required = "".join(
            f"<informationRequirement><required{'Input' if need in names else 'Decision'} "
            f'href="#{"i" if need in names else "d"}_{need}"/></informationRequirement>'
            for need in needs
        )
        parts.append(
            f'<decision id="d_{name}" name="{name}"><variable name="{name}"/>{required}{body}</decision>'
        )
    head = f'<?xml version="1.0"?><definitions xmlns="{space}" id="x" name="x" namespace="y">'
    return f"{head}{more}{''.join(parts)}</definitions>"


def model(tmp_path: Path, content: str, *decisions: str) -> RuleModel:
    file = tmp_path / "rules.dmn"
    file.write_text(content)
    return read_model(file, ReadOptions(decisions=tuple(decisions)))


def decided(tmp_path: Path, content: str, *cases: dict[str, Any], field: str = "D") -> list[Any]:
    """What the decision is in each case; "refused" where the case has no answer."""
    read, found = model(tmp_path, content, field), []
    for case in cases:
        try:
            found.append(read.evaluate(case).output.get(field))
        except CaseError:
            found.append("refused")
    return found


RULES = [["< 10", '"low"'], ["[10..20]", '"mid"'], ["> 20", '"high"']]
CROSSING = [["> 5", "1"], ["> 10", "2"], ["> 20", "4"]]
N = [("n", "number")]
CASES: list[dict[str, Any]] = [{"n": 3}, {"n": 7}, {"n": 15}, {"n": 30}, {"n": None}, {}]
VALUES = ['<output><outputValues><text>"c","a","b"</text></outputValues></output>']
LETTERS = [["> 5", '"a"'], ["> 10", '"b"'], ["> 20", '"c"']]


@pytest.mark.parametrize(
    ("policy", "rows", "outputs", "expected"),
    [
        ("", RULES, ["<output/>"], ["low", "low", "mid", "high", None, None]),
        ("hitPolicy='UNIQUE'", CROSSING, ["<output/>"], [None, 1, "refused", "refused", None, None]),
        ("hitPolicy='ANY'", [["> 5", "1"], ["> 10", "1"], ["> 20", "2"]], ["<output/>"],
         [None, 1, 1, "refused", None, None]),
        ("hitPolicy='ANY'", [["> 5", "1"], ["> 10", "1"]], ["<output/>"], [None, 1, 1, 1, None, None]),
        ("hitPolicy='PRIORITY'", LETTERS, VALUES, [None, "a", "a", "c", None, None]),
        ("hitPolicy='FIRST'", CROSSING, ["<output/>"], [None, 1, 1, 1, None, None]),
        ("hitPolicy='RULE ORDER'", CROSSING, ["<output/>"], [[], [1], [1, 2], [1, 2, 4], [], []]),
        ("hitPolicy='OUTPUT ORDER'", LETTERS, VALUES, [[], ["a"], ["a", "b"], ["c", "a", "b"], [], []]),
        ("hitPolicy='COLLECT'", CROSSING, ["<output/>"], [[], [1], [1, 2], [1, 2, 4], [], []]),
        ("hitPolicy='COLLECT' aggregation='SUM'", CROSSING, ["<output/>"], [None, 1, 3, 7, None, None]),
        ("hitPolicy='COLLECT' aggregation='MIN'", CROSSING, ["<output/>"], [None, 1, 1, 1, None, None]),
        ("hitPolicy='COLLECT' aggregation='MAX'", CROSSING, ["<output/>"], [None, 1, 2, 4, None, None]),
        ("hitPolicy='COLLECT' aggregation='COUNT'", CROSSING, ["<output/>"], [0, 1, 2, 3, 0, 0]),
    ],
)  # fmt: skip
def test_each_hit_policy(
    tmp_path: Path, policy: str, rows: list[list[str]], outputs: list[str], expected: list[Any]
) -> None:
    content = document(("D", table(N, rows, policy, outputs), ["n"]))
    assert decided(tmp_path, content, *CASES) == expected


def test_defaults_stand_where_no_rule_matches(tmp_path: Path) -> None:
    default = ["<output><defaultOutputEntry><text>0</text></defaultOutputEntry></output>"]
    for policy, expected in (
        ("UNIQUE", [0, 1, "refused"]), ("FIRST", [0, 1, 1]), ("RULE ORDER", [[0], [1], [1, 2]]),
        ("COLLECT' aggregation='SUM", [0, 1, 3]),
    ):  # fmt: skip
        content = document(("D", table(N, CROSSING[:2], f"hitPolicy='{policy}'", default), ["n"]))
        assert decided(tmp_path, content, *CASES[:3]) == expected


def test_several_outputs_are_parts_of_the_decision(tmp_path: Path) -> None:
    outputs = ['<output name="grade"/>', '<output name="the fee"/>']
    rows = [["< 10", '"low"', "n * 2"], [">= 10", '"high"', "n + 0.5"]]
    assert decided(tmp_path, document(("D", table(N, rows, "", outputs), ["n"])), {"n": 4}, {"n": 12}) == [
        {"grade": "low", "the fee": 8}, {"grade": "high", "the fee": 12.5},
    ]  # fmt: skip
    listed = document(
        ("D", table(N, [["> 1", '"a"', "1"], ["> 2", '"b"', "2"]], "hitPolicy='COLLECT'", outputs), ["n"])
    )
    assert decided(tmp_path, listed, {"n": 3}) == [[{"grade": "a", "the fee": 1}, {"grade": "b", "the fee": 2}]]


def test_decisions_that_depend_on_each_other_with_dates_types_and_priorities(tmp_path: Path) -> None:
    loan = read_model(LOAN, ReadOptions(decisions=("Risk", "Approval")))
    for age, income, since, expected in (
        (20, 90000, "2010-01-01", ("high", "no")),
        (30, 30000, "2021-01-01", ("medium", "yes")),
        (30, 18000, "2019-12-31", ("low", "ask")),
        (30, 24012, "2020-01-01", ("medium", "yes")),
        (30, 4000, "2020-01-01", ("medium", None)),
    ):
        output = loan.evaluate({"Applicant Age": age, "Income": income, "Member Since": since}).output
        assert (output["Risk"], output.get("Approval")) == expected
    with pytest.raises(CaseError):
        loan.evaluate({"Applicant Age": "old"})
    sizes: dict[Split, int] = {"train": 60, "eval": 20, "test": 20}
    report = import_decision(
        LOAN, "acme/Loan-v0", tmp_path / "out", sizes=sizes, how=ReadOptions(decisions=("Risk", "Approval"))
    )
    assert report.coverage == 1.0
    assert report.outputs == ("Risk", "Approval")
    assert (report.adjacent_shown, report.adjacent) == (6, 6)


def test_a_literal_expression_is_null_where_something_is_missing(tmp_path: Path) -> None:
    literal = "<literalExpression><text>(n - 2) / 4 ** 2</text></literalExpression>"
    chained = document(
        ("D", table([("E", "number")], [["<= 1", "E"], ["> 1", '"much"']]), ["E"]), ("E", literal, ["n"])
    )
    assert decided(tmp_path, chained, {"n": 18}, {"n": 34}, {}) == [1, "much", None]
    assert decided(tmp_path, chained, {"n": 18}, {"n": 34}, {}, field="E") == [1, 2, None]


def test_item_definitions_give_components_allowed_values_and_types(tmp_path: Path) -> None:
    items = (
        '<itemDefinition name="tOrder"><itemComponent name="ship date"><typeRef>date</typeRef></itemComponent>'
        '<itemComponent name="kind"><typeRef>tKind</typeRef></itemComponent></itemDefinition>'
        '<itemDefinition name="tKind"><typeRef>string</typeRef>'
        '<allowedValues><text>"a","b"</text></allowedValues>'
        "</itemDefinition>"
    )
    columns = [("order.ship date", "date"), ("order.kind", "string")]
    rows = [['< date("2024-02-01")', '"a"', "1"], ["-", 'not("a")', "2"]]
    content = document(
        ("D", table(columns, rows, "hitPolicy='FIRST'"), ["order"]), inputs=[("order", "tOrder")], more=items
    )
    dated = [("2024-01-31", "a"), ("2024-02-01", "a"), ("2024-02-01", "b"), ("soon", "a"), ("2024-01-31", "c")]
    cases: list[dict[str, Any]] = [{"order": {"ship date": day, "kind": kind}} for day, kind in dated]
    assert decided(tmp_path, content, *cases) == [1, None, 2, "refused", "refused"]


@pytest.mark.parametrize(
    ("column", "cell", "yes", "no"),
    [
        ("number", "5", [5, 5.0], [4, None]),
        ("number", "-1.5", [-1.5], [1.5]),
        ("number", "< 5", [4.9], [5, None]),
        ("number", ">= m", [3, 4], [2.9, None]),
        ("number", "[1..3]", [1, 3], [0.9, 3.1, None]),
        ("number", "(1..3)", [2], [1, 3]),
        ("number", "]1..3]", [3], [1]),
        ("number", "[1..3[", [1], [3]),
        ("number", "[m..9]", [3, 9], [2]),
        ("number", "1, 2, > 8", [1, 2, 9], [3, 8, None]),
        ("number", "m, 7", [3, 7], [4]),
        ("number", "not(1, 2)", [3, None], [1, 2]),
        ("number", "not(< 2, [5..6])", [2, 7], [1, 5, None]),
        ("number", "not(m)", [2], [3]),
        ("number", "null", [None], [0]),
        ("number", "not(null)", [0], [None]),
        ("string", '"a"', ["a"], ["b", None]),
        ("string", '"a", "it\'s"', ["a", "it's"], ["its"]),
        ("string", 'not("a")', ["b", None], ["a"]),
        ("boolean", "true", [True], [False, None]),
        ("boolean", "not(true)", [False], [True]),
        ("date", 'date("2024-02-29")', ["2024-02-29"], ["2024-02-28", None]),
        ("date", '> @"2024-02-29"', ["2024-03-01"], ["2024-02-29", None]),
        ("date", '[date("2024-01-01")..date("2024-12-31")]', ["2024-12-31"], ["2025-01-01"]),
        ("date", 'not(date("2024-01-01"))', ["2024-01-02"], ["2024-01-01"]),
        ("dateTime", '>= date and time("2024-01-01T10:00:00Z")',
         ["2024-01-01T10:00:00Z"], ["2024-01-01T11:00:00+02:00"]),
        ("time", '< time("12:00:00")', ["11:59:59"], ["12:00:00", None]),
        ("number", "-", [1, None], []),
    ],
)  # fmt: skip
def test_each_form_of_unary_test(tmp_path: Path, column: str, cell: str, yes: list[Any], no: list[Any]) -> None:
    inputs = [("x", column), ("m", "number")]
    body = table([("x", column)], [[cell, "true"]], "hitPolicy='FIRST'")
    cases = [{"x": value, "m": 3} for value in (*yes, *no)]
    content = document(("D", body, ["x", "m"]), inputs=inputs)
    assert decided(tmp_path, content, *cases) == [True] * len(yes) + [None] * len(no)


def test_rules_of_a_unique_table_that_overlap_are_reported(tmp_path: Path) -> None:
    found = analyse(model(tmp_path, document(("D", table(N, CROSSING), ["n"])))).findings
    assert [(f.kind, f.rule, f.by) for f in found if f.kind == "overlap"] == [
        ("overlap", "D:2", ("D:1",)), ("overlap", "D:3", ("D:1",)), ("overlap", "D:3", ("D:2",)),
    ]  # fmt: skip
    assert {(f.rule, f.by) for f in found if f.kind == "shadowed"} == {
        ("D:2", ("D:1",)), ("D:3", ("D:1",)),
    }  # fmt: skip
    assert next(f for f in found if f.kind == "overlap").reason.startswith("overlaps with D:1 (n = ")
    assert not analyse(model(tmp_path, document(("D", table(N, RULES), ["n"])))).findings


ONE = table(N, RULES)
SELF = '<itemDefinition name="tA"><typeRef>tA</typeRef></itemDefinition>'
GROOVY = "<literalExpression expressionLanguage='groovy'><text>a.b(1)</text></literalExpression>"
KNOWLEDGE = '<knowledgeRequirement><requiredKnowledge href="#gone"/></knowledgeRequirement>'
JAVA = "<functionDefinition kind='Java'><context/></functionDefinition>"
FEEL_JAVA = "<literalExpression><text>function(x) external {java: {class: 1}}</text></literalExpression>"
BOMB = (
    '<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {chr(98 + i)} "{f"&{chr(97 + i)};" * 10}">' for i in range(9))
    + f']><definitions xmlns="{SPACE}"><decision name="&j;"/></definitions>'
)
OUTSIDE = (
    f'<!DOCTYPE x [<!ENTITY p SYSTEM "file:///etc/passwd">]><definitions xmlns="{SPACE}">&p;</definitions>'
)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "not XML"),
        ("<definitions", "not XML"),
        ("<a/>", "not DMN 1.1 to 1.6"),
        (document(("D", ONE, ["n"]), space="http://www.omg.org/spec/DMN/20990101/dmn.xsd"), "not DMN"),
        (document(("D", ONE, ["n"]), space="http://example.org/spec/DMN/20151101/dmn.xsd"), "not DMN"),
        (BOMB, "document type or entities"),
        (OUTSIDE, "document type or entities"),
        ("<a>" * 5000, "not XML|not DMN"),
        (document(), "no decision"),
        (document(("A", ONE, ["n", "B"]), ("B", ONE, ["n", "A"])), "in a circle: A -> B -> A"),
        (document(("A", ONE, ["A", "n"])), "in a circle: A -> A"),
        (document(("A", ONE, ["gone"])), "requires #d_gone, which is not there"),
        (document(("A", "<invocation/>", ["n"])), "an invocation without the name"),
        (document(("A", ONE + ONE, ["n"])), "has 2 expressions"),
        (document(("A", "", ["n"])), "no decision has any logic"),
        (document(("A", KNOWLEDGE + ONE, ["n"])), "requires #gone, which is not there"),
        (document(("A", JAVA, ["n"])), "a Java function is not supported"),
        (document(("A", FEEL_JAVA, ["n"])), "in Java or PMML is not supported"),
        (document(("A", ONE, ["n"]), inputs=[("n", "tMoney")]), "type 'tMoney' is not defined"),
        (document(("A", ONE, ["n"]), inputs=[("n", "tA")], more=SELF),
         "defined by itself"),
        (document(("A", ONE, [])), "unknown name 'n'"),
        (document(("n", ONE, ["n"])), "two things are called 'n'"),
        (document(("A", table(N, RULES, "hitPolicy='BEST'"), ["n"])), "hit policy 'BEST'"),
        (document(("A", table(N, RULES, "hitPolicy='PRIORITY'"), ["n"])), "needs output values"),
        (document(("A", table(N, RULES, "hitPolicy='PRIORITY'", VALUES), ["n"])),
         "not among the output values"),
        (document(("A", table(N, [["1"]]), ["n"])), "1 input and 0 output entries"),
        (document(("A", table(N, [["best(1)", "1"]]), ["n"])), "decision 'A': unknown function 'best'"),
        (document(("A", table(N, [["> 1,", "1"]]), ["n"])), "rule 1: input 1: '> 1,': not FEEL"),
        (document(("A", GROOVY, ["n"])),
         "'groovy' is not supported"),
    ],
)  # fmt: skip
def test_what_is_unsafe_malformed_or_unsupported_is_refused_in_one_line(
    tmp_path: Path, content: str, says: str
) -> None:
    with pytest.raises(DecisionError, match=says) as caught:
        model(tmp_path, content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "space",
    [
        "http://www.omg.org/spec/DMN/20151101/dmn.xsd",
        "http://www.omg.org/spec/DMN/20151101",
        "http://www.omg.org/spec/DMN/20180521/MODEL/",
        "https://www.omg.org/spec/DMN/20191111/MODEL/",
        "https://www.omg.org/spec/DMN/20211108/MODEL/",
        "https://www.omg.org/spec/DMN/20230324/MODEL/",
        "https://www.omg.org/spec/DMN/20240513/MODEL/",
    ],
)
def test_versions_1_1_to_1_6(tmp_path: Path, space: str) -> None:
    content = document(("D", ONE, ["n"]), space=space)
    assert decided(tmp_path, content, {"n": 12}) == ["mid"]
