"""DMN beyond tables: boxed expressions, knowledge models, services, imports, types, and what is lost alone."""

from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest

from vertigym.decisions.dmn.dmn_model import DmnModel
from vertigym.decisions.dmn.graph import DecisionGraph
from vertigym.decisions.model import CaseError, DecisionError
from vertigym.feel import to_json

from .test_decisions_dmn import N, document, table

SPACE = "https://www.omg.org/spec/DMN/20230324/MODEL/"


def literal(text: str, more: str = "") -> str:
    return f"<literalExpression {more}><text>{escape(text)}</text></literalExpression>"


def entry(name: str, body: str, kind: str = "Any") -> str:
    variable = f'<variable name="{name}" typeRef="{kind}"/>' if name else ""
    return f"<contextEntry>{variable}{body}</contextEntry>"


def call(name: str, parameter: str, argument: str) -> str:
    binding = f'<binding><parameter name="{parameter}"/>{literal(argument)}</binding>'
    return f"<invocation>{literal(name)}{binding}</invocation>"


def loop(tag: str, over: str, part: str, text: str) -> str:
    return f'<{tag} iteratorVariable="i"><in>{literal(over)}</in><{part}>{literal(text)}</{part}></{tag}>'


FUNCTION = f'<functionDefinition><formalParameter name="v"/>{literal("v + n")}</functionDefinition>'


def knowledge(name: str, parameters: str, body: str, more: str = "") -> str:
    takes = "".join(f'<formalParameter name="{p}"/>' for p in parameters.split())
    return (
        f'<businessKnowledgeModel id="k_{name}" name="{name}"><variable name="{name}"/>{more}'
        f"<encapsulatedLogic>{takes}{body}</encapsulatedLogic></businessKnowledgeModel>"
    )


def uses(name: str) -> str:
    return f'<knowledgeRequirement><requiredKnowledge href="#k_{name}"/></knowledgeRequirement>'


def file_of(tmp_path: Path, content: str, name: str = "rules.dmn") -> Path:
    file = tmp_path / name
    file.write_text(content)
    return file


def answer(tmp_path: Path, body: str, case: dict[str, Any], more: str = "", kinds: str = "") -> Any:
    """What a decision D over the inputs n (number) and k (text) gives."""
    content = document(("D", body, ["n", "k"]), space=SPACE, more=more)
    content = content.replace(
        '<variable name="D"/>', f'<variable name="D" typeRef="{kinds}"/>' if kinds else ""
    )
    return DmnModel(file_of(tmp_path, content)).evaluate(case).output.get("D")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (f"<context>{entry('a', literal('n + 1'))}{entry('b c', literal('a * 2'))}</context>",
         {"a": 4, "b c": 8}),
        (f"<context>{entry('a', literal('n + 1'))}{entry('', literal('a * 10'))}</context>", 40),
        (f"<list>{literal('n')}{literal('k')}</list>", [3, "x"]),
        ('<relation><column name="p"/><column name="q"/>'
         f"<row>{literal('n')}{literal('1')}</row><row>{literal('2')}{literal('k')}</row></relation>",
         [{"p": 3, "q": 1}, {"p": 2, "q": "x"}]),
        (f"<conditional><if>{literal('n > 2')}</if><then>{literal('1')}</then><else>{literal('2')}</else>"
         "</conditional>", 1),
        (f"<conditional><if>{literal('k')}</if><then>{literal('1')}</then><else>{literal('2')}</else>"
         "</conditional>", None),
        (f"<filter><in>{literal('[1, 2, n, 5]')}</in><match>{literal('item > 2')}</match></filter>", [3, 5]),
        (f"<filter><in>{literal('[{a: 1}, {a: n}]')}</in><match>{literal('a = n')}</match></filter>",
         [{"a": 3}]),
        (f"<filter><in>{literal('[1, 2]')}</in><match>{literal('k')}</match></filter>", None),
        (loop("for", "[1, 2, 3]", "return", "i * n"), [3, 6, 9]),
        (loop("for", "[1, 2, 3]", "return", "count(partial) + i"), [1, 3, 5]),
        (loop("for", "null", "return", "i"), None),
        (loop("some", "[1, n]", "satisfies", "i > 2"), True),
        (loop("every", "[1, n]", "satisfies", "i > 2"), False),
        (loop("every", "[4, k]", "satisfies", "i > 2"), None),
        (f"<context>{entry('f', FUNCTION)}{entry('', literal('f(4)'))}</context>", 7),
        (literal("[n]", 'typeRef="number"'), 3),
        (literal("k", 'typeRef="number"'), None),
    ],
)  # fmt: skip
def test_each_boxed_expression(tmp_path: Path, body: str, expected: Any) -> None:
    assert answer(tmp_path, body, {"n": 3, "k": "x"}) == expected


def test_a_knowledge_model_is_invoked_by_name_by_boxes_and_by_itself(tmp_path: Path) -> None:
    grade = knowledge(
        "grade of", "points", table([("points", "number")], [["< 10", '"low"'], [">= 10", '"high"']])
    )
    steps = knowledge("steps", "m", literal("if m <= 0 then 0 else 1 + steps(m - 1)"), uses("steps"))
    boxed = (
        f"{uses('grade of')}{uses('steps')}<context>{entry('plain', literal('grade of(n)'))}"
        f"{entry('named', literal('grade of(points: 12)'))}{entry('count', literal('steps(n)'))}"
        f"{entry('boxed', call('grade of', 'points', 'n * 4'))}{entry('wrong', call('grade of', 'other', '1'))}"
        "</context>"
    )
    model = DmnModel(file_of(tmp_path, document(("D", boxed, ["n"]), more=grade + steps)))
    found = model.evaluate({"n": 3})
    assert found.output["D"] == {"plain": "low", "named": "high", "count": 3, "boxed": "high", "wrong": None}
    assert set(model.rules) == {"grade of:1", "grade of:2"}
    assert set(found.rules) == {"grade of:1", "grade of:2"}


def test_endless_invocation_is_refused(tmp_path: Path) -> None:
    endless = knowledge("f", "m", literal("f(m + 1)"), uses("f"))
    content = document(("D", uses("f") + literal("f(n)"), ["n"]), more=endless)
    with pytest.raises(CaseError, match="cannot be evaluated"):
        DmnModel(file_of(tmp_path, content)).evaluate({"n": 1})


def test_a_decision_service_takes_its_inputs_then_its_input_decisions(tmp_path: Path) -> None:
    service = (
        '<decisionService id="k_S" name="S"><variable name="S"/><outputDecision href="#d_Out"/>'
        '<inputDecision href="#d_Given"/><inputData href="#i_n"/></decisionService>'
    )
    content = document(
        ("Given", literal('"own"'), []),
        ("Out", literal("string(n) + Given"), ["n", "Given"]),
        ("D", uses("S") + literal('[S(1, "a"), S(Given: "b", n: 2), S("a"), S("a", 1)]'), ["n"]),
        more=service,
    )
    graph = DecisionGraph(file_of(tmp_path, content))
    assert DmnModel(file_of(tmp_path, content), ["D"]).evaluate({"n": 9}).output == {
        "D": ["1a", "2b", None, None]
    }
    found = graph.invoke(graph.find("S", "decisionService"), {"Given": "c"})
    assert to_json(found) is None  # n is missing, and a text plus null is null


def item_definition(name: str, kind: str, allowed: str) -> str:
    limits = f"<allowedValues><text>{escape(allowed)}</text></allowedValues>"
    return f'<itemDefinition name="{name}"><typeRef>{kind}</typeRef>{limits}</itemDefinition>'


def imported(space: str = "urn:lib") -> str:
    item = item_definition("tAge", "number", "[0..120]")
    made = document(("Rate", literal("n * 2"), ["n"]), more=item + knowledge("twice", "v", literal("v * 2")))
    return made.replace('namespace="y"', f'namespace="{space}"')


def importing(location: str = "", space: str = "urn:lib") -> str:
    where = f' locationURI="{location}"' if location else ""
    line = f'<import name="the lib" namespace="{space}"{where} importType="{SPACE}"/>'
    needs = (
        f'<informationRequirement><requiredDecision href="{space}#d_Rate"/></informationRequirement>'
        f'<knowledgeRequirement><requiredKnowledge href="{space}#k_twice"/></knowledgeRequirement>'
    )
    return document(
        ("D", needs + literal("the lib.Rate + the lib.twice(age)"), ["age"]),
        ("E", literal("age + 1"), ["age"]),
        inputs=[("age", "the lib.tAge")],
        more=line,
    )


@pytest.mark.parametrize("location", ["", "sub/lib.dmn"])
def test_imports_are_found_beside_the_file(tmp_path: Path, location: str) -> None:
    (tmp_path / "sub").mkdir()
    file_of(tmp_path, imported(), location or "lib.dmn")
    model = DmnModel(file_of(tmp_path, importing(location)), ["D"])
    assert model.evaluate({"age": 30, "n": 5}).output == {"D": 70}
    with pytest.raises(CaseError, match="age is 130, which is not tAge"):
        model.evaluate({"age": 130, "n": 5})
    assert set(model.files) == {"decision.dmn", location or "lib.dmn"}


def test_an_import_outside_the_folder_is_refused_and_a_missing_one_loses_what_needs_it(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    file_of(tmp_path, imported(), "lib.dmn")
    with pytest.raises(DecisionError, match="outside the file's folder"):
        DmnModel(file_of(inner, importing("../lib.dmn")))
    content = importing("gone.dmn").replace("the lib.tAge", "number")
    model = DmnModel(file_of(inner, content))
    assert model.evaluate({"age": 1}).output == {"E": 2}
    assert "needs the import 'the lib'" in model.lost["D"]
    assert "decision 'D' cannot be used" in model.notes[0]


TYPES = (
    '<itemDefinition name="tNames" isCollection="true"><typeRef>string</typeRef></itemDefinition>'
    '<itemDefinition name="tPoint"><itemComponent name="x"><typeRef>number</typeRef></itemComponent>'
    '<itemComponent name="y"><typeRef>number</typeRef></itemComponent></itemDefinition>'
    '<itemDefinition name="tGrade"><typeRef>string</typeRef>'
    '<allowedValues><text>"a", "b"</text></allowedValues></itemDefinition>'
    '<itemDefinition name="tFew" isCollection="true"><typeRef>tGrade</typeRef>'
    "<typeConstraint><text>count(?) &lt; 3</text></typeConstraint></itemDefinition>"
)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("tNames", '"one"', ["one"]),
        ("tNames", '["one", 2]', None),
        ("string", '["one"]', "one"),
        ("string", '["one", "two"]', None),
        ("string", "[[1]]", None),
        ("date and time", 'date("2024-02-01")', "2024-02-01T00:00:00Z"),
        ("date", 'date and time("2024-02-01T10:00:00")', None),
        ("tPoint", "{x: 1, y: 2, z: 3}", {"x": 1, "y": 2, "z": 3}),
        ("tPoint", "{x: 1}", None),
        ("tGrade", '"a"', "a"),
        ("tGrade", '"c"', None),
        ("tFew", '["a", "b"]', ["a", "b"]),
        ("tFew", '["a", "b", "a"]', None),
        ("tFew", '["a", "c"]', None),
        ("integer", "2.5", None),
        ("double", "2.5", 2.5),
    ],
)
def test_a_result_has_its_declared_type_or_is_null(tmp_path: Path, kind: str, text: str, expected: Any) -> None:
    assert answer(tmp_path, literal(text), {"n": 1, "k": "x"}, TYPES, kind) == expected


def test_one_decision_that_cannot_be_used_loses_only_itself_and_what_needs_it(tmp_path: Path) -> None:
    content = document(
        ("Bad", literal("1 +"), ["n"]),
        ("Needs", literal("Bad + 1"), ["Bad"]),
        ("Null", literal("10 + null"), ["n"]),
        ("Good", literal("n + 1"), ["n"]),
    )
    file = file_of(tmp_path, content)
    model = DmnModel(file)
    assert model.evaluate({"n": 1}).output == {"Null": None, "Good": 2}
    assert set(model.lost) == {"Bad", "Needs"}
    assert "needs 'Bad', which cannot be used" in model.lost["Needs"]
    with pytest.raises(DecisionError, match="decision 'Bad': '1 \\+'"):
        DmnModel(file, ["Bad"])
    with pytest.raises(DecisionError, match="no decision 'Gone'; there are: Null, Good"):
        DmnModel(file, ["Gone"])


def test_the_decisions_that_no_other_requires_are_asked_for_by_default(tmp_path: Path) -> None:
    content = document(
        ("A", literal("n + 1"), ["n"]), ("B", literal("A * 2"), ["A"]), ("C", literal("k"), ["k"])
    )
    file = file_of(tmp_path, content)
    assert DmnModel(file).evaluate({"n": 1, "k": "x"}).output == {"B": 4, "C": "x"}
    model = DmnModel(file, ["A"])
    assert model.evaluate({"n": 1}).output == {"A": 2}
    assert set(model.inputs) == {"n"}


def test_a_table_without_a_rule_gives_its_default(tmp_path: Path) -> None:
    default = ["<output><defaultOutputEntry><text>7</text></defaultOutputEntry></output>"]
    assert answer(tmp_path, table(N, [], "", default), {"n": 1}) == 7
    assert answer(tmp_path, table(N, []), {"n": 1}) is None


def test_a_decision_without_logic_is_given_its_value(tmp_path: Path) -> None:
    content = document(("Given", "", []), ("D", literal("Given + n"), ["Given", "n"]))
    assert DmnModel(file_of(tmp_path, content)).evaluate({"Given": 2, "n": 1}).output == {"D": 3}


def test_a_case_outside_what_its_type_or_column_allows_has_no_answer(tmp_path: Path) -> None:
    limited = table(N, [["> 50", "1"], ["<= 50", "2"]]).replace(
        "</inputExpression>", "</inputExpression><inputValues><text>[0..100]</text></inputValues>"
    )
    model = DmnModel(file_of(tmp_path, document(("D", limited, ["n"]))))
    assert model.schema["properties"]["n"] == {"type": ["number", "null"], "minimum": 0, "maximum": 100}
    assert [model.evaluate({"n": n}).output.get("D") for n in (0, 100, None)] == [2, 1, None]
    for wrong in (-1, 100.5, "ten"):
        with pytest.raises(CaseError, match="which is not number"):
            model.evaluate({"n": wrong})


def test_a_model_that_reads_the_clock_says_so_and_runs_at_a_moment(tmp_path: Path) -> None:
    content = document(("D", literal("today() > date(k)"), ["k"]))
    model = DmnModel(file_of(tmp_path, content))
    assert model.clock_readers() == ["D"]
    with pytest.raises(CaseError, match="reads the clock"):
        model.evaluate({"k": "2024-01-01"})
    stopped = model.at("2024-06-01T00:00:00+00:00")
    assert not stopped.clock_readers()
    assert [stopped.evaluate({"k": day}).output["D"] for day in ("2024-01-01", "2025-01-01")] == [True, False]


def test_a_knowledge_model_that_is_only_drawn_loses_what_invokes_it(tmp_path: Path) -> None:
    drawn = '<businessKnowledgeModel id="k_f" name="f"><variable name="f"/></businessKnowledgeModel>'
    content = document(
        ("D", uses("f") + literal("n + 1"), ["n"]), ("E", uses("f") + literal("f(n)"), ["n"]), more=drawn
    )
    model = DmnModel(file_of(tmp_path, content))
    assert model.evaluate({"n": 1}).output == {"D": 2}
    assert "unknown function 'f'" in model.lost["E"]
