"""Decision tables compiled from XML: each fault names its column, or its rule and cell."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from functools import reduce

from vertigym.decisions.dmn.boxed import Compiler
from vertigym.decisions.dmn.decision_tables import (
    AGGREGATES,
    POLICIES,
    ClosedCell,
    Column,
    DecisionTable,
    OutputClause,
    TableRule,
    spans_of,
)
from vertigym.decisions.dmn.elements import Element, child, children, inner_text
from vertigym.decisions.dmn.names import called_names, free_names
from vertigym.decisions.model import DecisionError
from vertigym.feel import UnaryTests
from vertigym.feel.syntax import CompareNode, Constant, RangeNode


def compiled_table(element: Element, compiler: Compiler) -> DecisionTable:
    """A `decisionTable` element compiled.

    Raises:
        DecisionError: its policy, a column or a cell cannot be used; the rule is named.
    """
    policy, aggregate = _policy(element, compiler.where)
    inputs, rows = children(element, "input"), children(element, "rule")
    columns = [
        _column(e, [inner_text(c) for c in _cells(rows, n)], compiler.at(f"input {n + 1}"))
        for n, e in enumerate(inputs)
    ]
    clauses = children(element, "output")
    if not clauses:
        raise DecisionError(f"{compiler.where}: a decision table without an output")
    outputs = [_output(e, len(clauses), compiler.at(f"output {n}")) for n, e in enumerate(clauses, 1)]
    if aggregate and len(outputs) > 1:
        raise DecisionError(f"{compiler.where}: {aggregate} over several outputs has no meaning in DMN")
    if policy in ("PRIORITY", "OUTPUT ORDER") and not any(output.order for output in outputs):
        raise DecisionError(f"{compiler.where}: hit policy {policy} needs output values in order of priority")
    rules = [
        _rule(e, number, len(columns), len(outputs), compiler.at(f"rule {number}"))
        for number, e in enumerate(rows, 1)
    ]
    if policy in ("PRIORITY", "OUTPUT ORDER"):
        _check_ranked(rules, outputs, compiler.where)
    for place, column in enumerate(columns if compiler.tool else ()):
        if column.type.name == "string" and _compares_numbers([rule.tests[place] for rule in rules]):
            column.type = compiler.types.named("number")
            compiler.notes.append(
                f"{compiler.where}: column {column.text!r} says string and compares numbers: read as number"
            )
    table = DecisionTable(compiler.place, policy, aggregate, columns, outputs, rules, dict(compiler.feel_types))
    for place in range(len(columns)):
        cells: dict[str, ClosedCell] = {}
        for index, rule in enumerate(rules):
            if _is_closed(rule.tests[place], compiler):
                text, tests = rule.cells[place], rule.tests[place]
                cells.setdefault(text, ClosedCell(tests, spans_of(tests))).rules |= 1 << index
        table.closed.append(reduce(int.__or__, (cell.rules for cell in cells.values()), 0))
        table.closed_cells.append(list(cells.values()))
    compiler.tables.append(table)
    return table


def _compares_numbers(cells: Sequence[UnaryTests]) -> bool:
    """Whether the cells of a column order its value among numbers, and do nothing else: `string` is what the
    tools write where nobody chose a type."""
    tests = [test for cell in cells for test in cell.tests]
    bounds = [part for test in tests for part in test.children()]
    return (
        bool(tests)
        and all(isinstance(test, CompareNode | RangeNode) for test in tests)
        and all(isinstance(bound, Constant) and isinstance(bound.value, Decimal) for bound in bounds)
    )


def _check_ranked(rules: Sequence[TableRule], outputs: Sequence[OutputClause], where: str) -> None:
    """
    Raises:
        DecisionError: a rule's literal is not among the output values, so it has no priority.
    """
    for rule in rules:
        for tree, text, output in zip(rule.trees, rule.results, outputs, strict=True):
            if output.order and isinstance(tree, Constant) and tree not in output.order:
                raise DecisionError(
                    f"{where}: rule {rule.number}: {text} is not among the output values "
                    f"{output.limit_text}, so it has no priority"
                )


def _is_closed(tests: UnaryTests, compiler: Compiler) -> bool:
    calls = set(called_names(tests))
    return not (calls & {"now", "today", *compiler.known}) and not any(free_names(tests))


def _policy(element: Element, where: str) -> tuple[str, str]:
    policy = str(element.get("hitPolicy") or "UNIQUE").upper().strip()
    aggregate = str(element.get("aggregation") or "").upper().strip()
    if policy not in POLICIES or (aggregate and aggregate not in AGGREGATES):
        raise DecisionError(f"{where}: hit policy {policy!r} {aggregate} is not one of {', '.join(POLICIES)}")
    return policy, aggregate if policy == "COLLECT" else ""


def _cells(rows: Sequence[Element], place: int) -> Iterator[Element]:
    """A column's cells."""
    for row in rows:
        yield from children(row, "inputEntry")[place : place + 1]


def _column(element: Element, cells: Sequence[str], compiler: Compiler) -> Column:
    """A column. Modellers leave its expression away where its label says what it is, or where its cells are
    conditions of their own."""
    inner = child(element, "inputExpression")
    text = inner_text(inner)
    if not text and any(cell not in ("", "-") and not cell.startswith(("${", "#{")) for cell in cells):
        text = " ".join((element.get("label") or "").split())
        if not text.isidentifier():
            raise DecisionError(f"{compiler.where}: an input column without an expression")
        compiler.notes.append(f"{compiler.where} has no expression: its label {text!r} is taken as a name")
    text = text or "null"
    limit_text = inner_text(child(element, "inputValues"))
    language = (inner.get("expressionLanguage") if inner is not None else "") or ""
    return Column(
        text,
        compiler.expression(text, language),
        compiler.types.of(inner),
        compiler.at("input values").tests(limit_text) if limit_text else None,
        limit_text,
    )


def _output(element: Element, count: int, compiler: Compiler) -> OutputClause:
    name = " ".join((element.get("name") or "").split())
    if count > 1 and not name:
        raise DecisionError(f"{compiler.where} has no name")
    values, default = child(element, "outputValues"), child(element, "defaultOutputEntry")
    kind = compiler.types.of(element)
    limit_text = inner_text(values) or next(iter(kind.limit_texts), "")
    order = compiler.at("output values").tests(limit_text).tests if limit_text else ()
    text = inner_text(default)
    return OutputClause(
        name, kind, order, compiler.at("default").expression(text) if text else None, limit_text, text
    )


def _rule(element: Element, number: int, inputs: int, outputs: int, compiler: Compiler) -> TableRule:
    tests, results = children(element, "inputEntry"), children(element, "outputEntry")
    if len(tests) != inputs or len(results) != outputs:
        raise DecisionError(
            f"{compiler.where}: {len(tests)} input and {len(results)} output entries for {inputs} and "
            f"{outputs} columns"
        )
    cells = tuple(inner_text(e) for e in tests)
    texts = tuple(inner_text(e) for e in results)
    return TableRule(
        number,
        cells,
        tuple(
            compiler.at(f"input {n}").tests(text, e.get("expressionLanguage") or "")
            for n, (text, e) in enumerate(zip(cells, tests, strict=True), 1)
        ),
        texts,
        tuple(
            None
            if text in ("", "-")
            else compiler.at(f"output {n}").expression(text, e.get("expressionLanguage") or "")
            for n, (text, e) in enumerate(zip(texts, results, strict=True), 1)
        ),
    )
