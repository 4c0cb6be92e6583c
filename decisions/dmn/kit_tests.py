"""Test files of the DMN compliance kit (dmn-tck): input values by name, expected values by decision."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vertigym.core.errors import DataError
from vertigym.decisions.dmn.elements import child, children, local, read_xml
from vertigym.feel import Value, evaluate, number, parse, to_json

_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
_NIL = "{http://www.w3.org/2001/XMLSchema-instance}nil"
_CALLS = {"date": "date", "time": "time", "dateTime": "date and time", "duration": "duration"}


def read_kit_tests(file: Path) -> Iterator[tuple[str, dict[str, Any], Any, str]]:
    """`(name, case, output, decision)` of each expected result.

    Raises:
        DataError: no test file of the kit, or it tests what is no decision.
    """
    root = read_xml(file)
    if local(root) != "testCases":
        raise DataError(
            f"{file}: no test file of the DMN compliance kit: its root is <{local(root)}>, not <testCases>"
        )
    for case in children(root, "testCase"):
        given = {e.get("name"): to_json(kit_value(e)) for e in children(case, "inputNode")}
        for result in children(case, "resultNode"):
            kind, name = result.get("type") or case.get("type") or "decision", str(result.get("name"))
            if kind != "decision" or case.get("invocableName"):
                raise DataError(
                    f"{file}: test {case.get('id')}: it tests a {kind}; only decisions are tested here"
                )
            yield f"{case.get('id')} {name}", given, {name: to_json(kit_value(child(result, "expected")))}, name


def kit_value(element: Any) -> Value:
    """The value that an element of a test holds."""
    if element is None or element.get(_NIL) == "true":
        return None
    if (items := child(element, "list")) is not None:
        return None if items.get(_NIL) == "true" else [kit_value(item) for item in children(items, "item")]
    if parts := children(element, "component"):
        return {part.get("name"): kit_value(part) for part in parts}
    value = child(element, "value")
    if value is None or value.get(_NIL) == "true":
        return None
    text, kind = value.text or "", (value.get(_TYPE) or "").rpartition(":")[2]
    match kind:
        case "decimal" | "double" | "integer" | "float" | "long" | "int":
            return number(text.strip())
        case "boolean":
            return text.strip() in ("true", "1")
        case "date" | "time" | "dateTime" | "duration":
            return evaluate(parse(f"{_CALLS[kind]}(text)", ["text"]), {"text": text.strip()})
    return text
