"""How much of DMN is right: the OMG's compliance kit (dmn-tck), result by result, and public files, file by
file.

    python benchmarks/dmn_tck.py ../shared/data/dmn/tck        a table by level and by folder (feature)
    python benchmarks/dmn_tck.py --docs ../shared/data/dmn/tck by feature, as in the docs

A result is *right*, *refused* (an error names what is not supported) or *wrong* (another value, in silence). A
refusal is right where the kit expects an error (`errorResult`). Numbers are compared to a part in 10^8, as the
kit's own runner does.
"""

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from defusedxml.ElementTree import parse as parse_xml

from vertigym.core.errors import DataError
from vertigym.decisions.dmn.elements import child, children, local
from vertigym.decisions.dmn.graph import DecisionGraph
from vertigym.decisions.dmn.kit_tests import kit_value
from vertigym.decisions.dmn.running import Evaluator
from vertigym.feel import Value

_KINDS = {"decision": "decision", "decisionService": "decisionService", "bkm": "businessKnowledgeModel"}


@dataclass(slots=True)
class TckResult:
    """One expected result: of which test, `verdict`, and what came instead."""

    folder: str
    test: str
    verdict: str
    note: str = ""


@dataclass(slots=True)
class TckTally:
    """Counts of verdicts."""

    counts: Counter[str] = field(default_factory=Counter)
    folders: set[str] = field(default_factory=set)

    @property
    def row(self) -> tuple[int, int, int, int, str]:
        """Results, right, refused, wrong, share right."""
        total = sum(self.counts.values())
        right, refused, wrong = (self.counts[v] for v in ("right", "refused", "wrong"))
        return total, right, refused, wrong, f"{right / total:.1%}" if total else "-"


def run_folder(folder: Path) -> Iterator[TckResult]:
    """The results of all tests in one folder of the kit."""
    for file in sorted(folder.glob("*.xml")):
        root = parse_xml(file).getroot()
        if local(root) != "testCases":
            continue
        model = child(root, "modelName")
        path = folder / (model.text.strip() if model is not None else f"{folder.name}.dmn")
        path = path if path.is_file() else path.with_suffix(".dmn")
        try:
            graph: DecisionGraph | DataError = DecisionGraph(path)
        except DataError as error:
            graph = error
        for case in children(root, "testCase"):
            for result in children(case, "resultNode"):
                name = f"{file.stem} {case.get('id')} {result.get('name')}"
                verdict, note = _judged(graph, case, result)
                yield TckResult(folder.name, name, verdict, note)


def _judged(graph: DecisionGraph | DataError, case: Any, result: Any) -> tuple[str, str]:
    expected = kit_value(child(result, "expected"))
    try:
        if isinstance(graph, DataError):
            raise graph
        found = _found(graph, case, result)
    except DataError as error:
        return ("right" if result.get("errorResult") == "true" else "refused"), str(error)
    if same(found, expected):
        return "right", ""
    return "wrong", f"{found!r} instead of {expected!r}"


def _found(graph: DecisionGraph, case: Any, result: Any) -> Value:
    given = {e.get("name"): kit_value(e) for e in children(case, "inputNode")}
    name = result.get("name")
    kind = result.get("type") or case.get("type") or "decision"
    invoked = case.get("invocableName")
    if invoked:
        made = graph.invoke(graph.find(invoked, _KINDS[case.get("type") or "decisionService"]), given)
        service = graph.find(invoked, "decisionService") if case.get("type") == "decisionService" else None
        several = service is not None and len(service.outputs) > 1
        return made.get(name) if several and isinstance(made, dict) else made
    if kind != "decision":
        return graph.invoke(graph.find(name, _KINDS[kind]), given)
    return graph.decide(graph.find(name), _evaluation(graph, given))


def _evaluation(graph: DecisionGraph, given: dict[str, Value]) -> Evaluator:
    """The inputs by key; a decision that is given is not decided."""
    inputs = {name: value for name, value in given.items() if name in graph.implied}
    inputs |= {
        e.key: given[e.name] for e in graph.elements.values() if e.kind == "inputData" and e.name in given
    }
    run = graph.run(inputs)
    run.values |= {
        e.key: given[e.name] for e in graph.elements.values() if e.kind == "decision" and e.name in given
    }
    return run


def same(one: Value, other: Value) -> bool:
    """Whether two values are equal, numbers to a part in 10^8."""
    if isinstance(one, Decimal) and isinstance(other, Decimal):
        return abs(one - other) <= Decimal("1e-8") * max(Decimal(1), abs(other))
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return type(one) is type(other) and one == other


_FEATURES = {
    "tables and hit policies": r"hitpolicy|simpletable|dt-on|multioutput",
    "functions in Java": r"external",
    "services, knowledge models, invocations, imports": r"services|import|invocation|user-defined|bkm|drg",
    "boxed expressions": r"boxed|listgen|iteration|filter$|some-every|no-decision-logic|nested",
    "inputs, types, conversions": r"input-data|coercion|conversion|structure",
    "built-in functions": r"functions?$|concatenate|is-function",
    "whole models": r"lending|vacation|chapter",
}


def tallies(results: list[TckResult], *, by_feature: bool = False) -> dict[str, TckTally]:
    """Verdicts by folder, or by the feature that the folder is about."""
    found: dict[str, TckTally] = defaultdict(TckTally)
    for result in results:
        name = result.folder
        if by_feature:
            patterns = ((f, p) for f, p in _FEATURES.items() if re.search(p, name, re.IGNORECASE))
            name = next(patterns, ("FEEL: operators, literals, names", ""))[0]
        found[name].counts[result.verdict] += 1
        found[name].folders.add(result.folder)
    return found


def main() -> None:
    """Print the tables."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("kit", type=Path)
    arguments.add_argument("--docs", action="store_true")
    arguments.add_argument("--only", default="")
    arguments.add_argument("--notes", action="store_true", help="say what came instead")
    options = arguments.parse_args()
    for level in sorted(p for p in options.kit.iterdir() if p.is_dir()):
        folders = sorted(p for p in level.iterdir() if p.is_dir() and options.only in p.name)
        results = [result for folder in folders for result in run_folder(folder)]
        whole = TckTally(Counter(result.verdict for result in results))
        print(f"\n| {level.name} | results | right | refused | wrong | |\n|---|---|---|---|---|---|")
        for name, tally in tallies(results, by_feature=options.docs).items():
            print(f"| {name} | " + " | ".join(map(str, tally.row)) + " |")
        print("| **all** | " + " | ".join(map(str, whole.row)) + " |")
        for result in results if options.notes else ():
            if result.verdict != "right":
                print(f"{result.verdict:8} {result.folder}: {result.test}: {result.note[:300]}")


if __name__ == "__main__":
    main()
