"""Tests of a decision model that its owners wrote: a case and what must come out.

They stand in the model itself (JDM), in a test file of the DMN compliance kit (XML), or in JSON lines of
`{"name": …, "input": {…}, "output": {…}}`. A test looks at the fields that its output names, and numbers are
equal to a part in 10^8.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertigym.core.bounds import json_value
from vertigym.core.errors import DataError
from vertigym.core.files import read_text
from vertigym.decisions.model import Case, CaseError, DecisionError
from vertigym.decisions.protocols import RuleModel

_CLOSE = 1e-8


@dataclass(frozen=True, slots=True)
class RuleTest:
    """`decision` names the decision that is asked, empty for those that the model answers by itself."""

    name: str
    case: Case
    output: Any
    decision: str = ""


@dataclass(frozen=True, slots=True)
class RuleTestResult:
    """`fault` says what came instead, empty where the test passed."""

    name: str
    fault: str = ""


def own_tests(model: RuleModel) -> list[RuleTest]:
    """The tests in the model's own file; those without an output only show a case.

    Raises:
        DataError: it has none.
    """
    tests = [(case, output) for case, output in model.tests if output is not None]
    if not tests:
        raise DataError(
            f"{model.source}: holds no tests of its own; name a file of tests (XML of the kit, JSON lines)"
        )
    return [RuleTest(f"test {number}", case, output) for number, (case, output) in enumerate(tests, 1)]


def read_tests(file: Path) -> list[RuleTest]:
    """The tests in a file.

    Raises:
        DataError: it is missing, of another kind, a row of it is no test, or it has none.
    """
    if file.suffix.lower() == ".xml":
        from vertigym.decisions.dmn.kit_tests import read_kit_tests

        tests = [RuleTest(*parts) for parts in read_kit_tests(file)]
    else:
        lines = enumerate(read_text(file).splitlines(), 1)
        tests = [_test(line, f"{file}:{number}") for number, line in lines if line.strip()]
    if not tests:
        raise DataError(f"{file}: no test in it")
    return tests


def run_tests(tests: Iterable[RuleTest], model_of: Callable[[str], RuleModel]) -> Iterator[RuleTestResult]:
    """Decide each test's case; `model_of` gives the model that answers a decision."""
    models: dict[str, RuleModel] = {}
    for test in tests:
        try:
            model = models.setdefault(test.decision, models.get(test.decision) or model_of(test.decision))
            yield RuleTestResult(test.name, _difference(model.evaluate(test.case).output, test.output, ""))
        except (CaseError, DecisionError) as error:
            yield RuleTestResult(test.name, f"no answer: {error}")


def _test(line: str, where: str) -> RuleTest:
    try:
        row = json_value(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error})") from None
    if not isinstance(row, dict) or not isinstance(row.get("input"), dict) or "output" not in row:
        raise DataError(f'{where}: a test is {{"input": {{…}}, "output": …}}, also with "name" and "decision"')
    if unknown := sorted(row.keys() - {"name", "input", "output", "decision"}):
        raise DataError(f"{where}: unknown key {unknown[0]!r}; known: name, input, output, decision")
    return RuleTest(str(row.get("name") or where), row["input"], row["output"], str(row.get("decision") or ""))


def _difference(found: Any, wanted: Any, where: str) -> str:
    """Where two values first differ; a record at the top may hold more fields than are wanted."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        more = [] if not where else sorted(found.keys() - wanted.keys())
        if more:
            return f"{where}.{more[0]} is {found[more[0]]!r}, not there"
        parts = ((found.get(key), wanted[key], f"{where}.{key}".lstrip(".")) for key in wanted)
        return next((fault for part in parts if (fault := _difference(*part))), "")
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        items = ((a, b, f"{where}[{n}]") for n, (a, b) in enumerate(zip(found, wanted, strict=True)))
        return next((fault for item in items if (fault := _difference(*item))), "")
    if _is_number(wanted) and _is_number(found):
        same = found == wanted or math.isclose(found, wanted, rel_tol=_CLOSE, abs_tol=_CLOSE)
    else:
        same = type(wanted) is type(found) and bool(wanted == found)
    return "" if same else f"{where or 'the answer'} is {found!r}, not {wanted!r}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
