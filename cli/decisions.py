"""`vertigym rules`: a file of rules by itself, for those who own it: shown, asked, tested, checked."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from vertigym.cli.console import Json, note, print_json, table
from vertigym.cli.envs import Column, Decision, Sheet, Trust, reading

File = Annotated[
    Path,
    typer.Argument(help="A decision model: JDM JSON, DMN 1.1-1.6, or a table in csv or xlsx.", metavar="FILE"),
]
Now = Annotated[
    str | None, typer.Option(help="Fix the clock of a model that reads it, for example 2026-01-31T12:00:00Z.")
]
app = typer.Typer(help="Rules: show, run, test, check a decision model.", no_args_is_help=True)


@app.command("show")
def rules_show(
    file: File,
    sheet: Sheet = "",
    column: Column = None,
    decision: Decision = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Show a decision model: what is given, what needs what, and its tables."""
    model = _model(file, sheet, column, decision, trust)
    if as_json:
        nodes = [dataclasses.asdict(node) for node in model.nodes]
        print_json({"inputs": model.schema, "nodes": nodes, "edges": model.edges})
        return
    for name, kind in _fields(model.schema):
        print(f"given:   {name}{f' ({kind})' if kind else ''}")
    names = {node.id: node.name for node in model.nodes}
    for node in model.in_order():
        needs = [names[source] for source, target, _ in model.edges if target == node.id and source in names]
        print(f"\n{node.name}  ({node.kind}{f', hit policy {node.hit_policy}' if node.rules else ''})", end="")
        print(f"  after {', '.join(dict.fromkeys(needs))}" if needs else "")
        _show_node(node)


@app.command("run")
def rules_run(
    file: File,
    case: Annotated[
        str, typer.Option(help="The case: a record of the inputs, as JSON or in a JSON file.", metavar="CASE")
    ],
    sheet: Sheet = "",
    column: Column = None,
    decision: Decision = None,
    now: Now = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Decide one case: the answer, the rules hit, and why each other rule was not."""
    from vertigym.core.bounds import json_value
    from vertigym.core.errors import DataError
    from vertigym.core.files import read_json
    from vertigym.decisions.explanations import explain
    from vertigym.decisions.model import CaseError

    try:
        given = json_value(case) if case.lstrip().startswith("{") else read_json(Path(case))
    except ValueError as error:
        raise DataError(f"--case {case}: not JSON ({error})") from None
    if not isinstance(given, dict):
        raise DataError(f"{case}: a case is a JSON record of the inputs")
    model = _model(file, sheet, column, decision, trust, now)
    inputs = model.schema.get("properties", {})
    if unread := sorted(given.keys() - inputs.keys()) if inputs else ():
        note(f"{case}: not read: {', '.join(unread)}; the inputs are {', '.join(inputs)}")
    try:
        evaluation, lines = explain(model, given)
    except CaseError as error:
        raise DataError(f"{file}: cannot decide this case: {error}") from None
    if as_json:
        print_json({"answer": evaluation.output, "rules": [dataclasses.asdict(line) for line in lines]})
        return
    print_json(evaluation.output)
    table(
        None, ("", "rule", "", "why not"), [("hit" if x.hit else "", x.rule, x.text, x.reason) for x in lines]
    )


@app.command("test")
def rules_test(
    file: File,
    tests: Annotated[
        Path | None,
        typer.Argument(
            help="A file of tests: XML of the DMN compliance kit, or JSON lines with input and output (name, "
            "decision). Default: the model's own tests.",
            metavar="[TESTS]",
        ),
    ] = None,
    sheet: Sheet = "",
    column: Column = None,
    now: Now = None,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit file.", metavar="FILE")] = None,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Run tests of a decision model; a test looks at the fields its output names. Exits 1 when one fails."""
    from vertigym.core.files import write_text
    from vertigym.decisions.rule_tests import own_tests, read_tests, run_tests
    from vertigym.reports.ci import tests_junit

    def model_of(name: str) -> Any:
        return _model(file, sheet, column, [name] if name else None, trust, now)

    wanted = read_tests(tests) if tests else own_tests(model_of(""))
    results = list(run_tests(wanted, model_of))
    if junit:
        write_text(junit, tests_junit(file.name, [(result.name, result.fault) for result in results]))
    failed = [result for result in results if result.fault]
    if as_json:
        print_json([dataclasses.asdict(result) for result in results])
    else:
        for result in failed:
            print(f"failed  {result.name}: {result.fault}")
        print(f"{len(results) - len(failed)} of {len(results)} tests pass")
    raise typer.Exit(bool(failed))


@app.command("check")
def rules_check(
    file: File,
    sheet: Sheet = "",
    column: Column = None,
    decision: Decision = None,
    now: Now = None,
    seed: Annotated[int, typer.Option(help="Seed of the sampled cases.")] = 0,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Look for faults in the rules (proven; exits 1) and for rules that no sampled case hits."""
    from vertigym.core.errors import DataError
    from vertigym.decisions.findings import analyse
    from vertigym.decisions.sampler import Sampler

    model = _model(file, sheet, column, decision, trust, now)
    if readers := model.clock_readers():
        raise DataError(f"{file}: {readers[0]!r} reads the clock: give --now 2026-01-31T12:00:00Z")
    found = analyse(model)
    sampled = Sampler(model, seed, known=found).run(1000)
    if not sampled.samples:
        raise DataError(f"{file}: no sampled case can be decided: {sampled.refusal or 'it has no inputs'}")
    not_hit = [r for r in model.rules.values() if r.id not in sampled.hit | found.unreachable]
    if as_json:
        faults = [dataclasses.asdict(f) | {"reason": f.reason} for f in found.findings]
        hit = {"rules": len(model.rules), "hit": sorted(sampled.hit), "not_hit": [r.id for r in not_hit]}
        print_json({"faults": faults, "cases": len(sampled.samples), "refused": sampled.refused} | hit)
    else:
        for finding in found.findings:
            print(f"{finding.kind}  {finding.rule}: {finding.text}: {finding.reason}")
        for rule in not_hit:
            print(f"not hit, not proven unreachable  {rule.id}: {rule.text}")
        if sampled.refused:
            print(f"refused  {sampled.refused} of {sampled.evaluations} sampled cases: {sampled.refusal}")
        rules = f"{len(sampled.hit)} of {len(model.rules)} rules hit" if model.rules else "no rules in it"
        print(f"{rules} by {len(sampled.samples)} cases; {len(found.findings)} faults")
    raise typer.Exit(bool(found.findings))


def _model(
    file: Path,
    sheet: str,
    columns: Sequence[str] | None,
    decisions: Sequence[str] | None,
    trust: bool,
    now: str | None = None,
) -> Any:
    from vertigym.decisions.formats import read_model

    model = read_model(file, reading(sheet, columns, decisions, trust=trust))
    for text in model.notes:
        note(text)
    return model.at(now) if now else model


def _fields(schema: dict[str, Any], path: str = "") -> list[tuple[str, str]]:
    """Names and types of the inputs."""
    found = []
    for name, part in schema.get("properties", {}).items():
        whole = f"{path}.{name}".lstrip(".")
        if isinstance(part, dict) and part.get("properties"):
            found += _fields(part, whole)
        else:
            kinds = part.get("enum") or part.get("type", "") if isinstance(part, dict) else ""
            found.append((whole, ", ".join(map(str, kinds)) if isinstance(kinds, list) else str(kinds)))
    return found


def _show_node(node: Any) -> None:
    if node.kind == "table" or (node.rules and node.columns):
        head = (
            "",
            *(column or "condition" for column in node.columns),
            *(f"→ {name}" for name in node.outputs),
        )
        rows = [
            (str(rule.index + 1), *(cell for _, cell in (*rule.cells, *rule.outcome))) for rule in node.rules
        ]
        table(None, head, rows)
        return
    for rule in node.rules:
        print(f"  {rule.index + 1}  {rule.text}")
    for key, value in node.expressions:
        print(f"  {key} = {' '.join(value.split())}")
    if node.source and not node.rules:
        print("  " + "\n  ".join(node.source.strip().splitlines()))
