"""What continuous integration reads: a JUnit file and a Markdown summary."""

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from vertigym.evals.gate import Check, Decision
from vertigym.evals.report import Report
from vertigym.reports.tables import difference_cell, estimate_cells, number


def junit(decisions: Sequence[tuple[Decision, Report]]) -> str:
    """A JUnit document: a test suite for each eval suite, a case for each gate and each slice. A failed gate is
    a failure with its reason; slices carry their score and pass."""
    root = ET.Element("testsuites", name="vertigym eval")
    for decision, report in decisions:
        failures = sum(not check.passed for check in decision.checks)
        slices = [
            (f"{name}={value}", found) for name, of in report.slices.items() for value, found in of.items()
        ]
        suite = ET.SubElement(
            root,
            "testsuite",
            name=decision.suite,
            tests=str(len(decision.checks) + len(slices)),
            failures=str(failures),
            errors="0",
            time=f"{sum(sum(row.latency_s) for row in report.rows):.3f}",
        )
        properties = ET.SubElement(suite, "properties")
        for name in ("model", "champion", "suite_hash", "seed", "verdict", "reason"):
            ET.SubElement(properties, "property", name=name, value=_clean(str(getattr(decision, name))))
        for check in decision.checks:
            _gate_case(suite, decision, check)
        for label, found in slices:
            case = _case(suite, f"{decision.suite}.slices", label)
            mean, se, interval = estimate_cells(found)
            ET.SubElement(case, "system-out").text = f"score {mean} ± {se} ({interval}) on {found.tasks} tasks"
    return _document(root)


def tests_junit(name: str, results: Sequence[tuple[str, str]]) -> str:
    """A JUnit document of one test suite: tests by name, each with its fault or none."""
    root = ET.Element("testsuites", name="vertigym rules")
    failures = str(sum(bool(fault) for _, fault in results))
    suite = ET.SubElement(
        root, "testsuite", name=_clean(name), tests=str(len(results)), failures=failures, errors="0"
    )
    for test, fault in results:
        case = _case(suite, name, test)
        if fault:
            ET.SubElement(case, "failure", type="rules", message=_clean(fault))
    return _document(root)


def summary(decision: Decision, report: Report) -> str:
    """Markdown for a pull request: the verdict first, then a table of gates, then accuracy per rule."""
    mark = "✅" if decision.passed else "❌"
    lines = [
        f"## {mark} {decision.suite}: {decision.verdict}",
        "",
        _escape(decision.reason),
        "",
        f"`{decision.model}` against `{decision.champion or 'no baseline'}` on {report.tasks_text}, "
        f"{report.samples} samples, suite `{decision.suite_hash}`, seed {decision.seed}.",
        "",
        "| gate | | value | champion | difference |",
        "|---|---|---:|---:|---|",
    ]
    for check in decision.checks:
        cells = [
            _escape(check.gate),
            "passed" if check.passed else "**failed**",
            number(check.value),
            number(check.champion),
            difference_cell(check.difference),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if report.per_rule:
        lines += ["", "<details><summary>Score by rule</summary>", "", "| rule | tasks | score | ± se |"]
        lines += ["|---|---:|---:|---:|"]
        for rule, found in report.per_rule.items():
            lines.append(f"| {_escape(rule)} | {found.tasks} | {number(found.mean)} | {number(found.se)} |")
        lines += ["", "</details>"]
    return "\n".join(lines) + "\n"


def _gate_case(suite: ET.Element, decision: Decision, check: Check) -> None:
    case = _case(suite, f"{decision.suite}.gates", check.gate)
    if not check.passed:
        failure = ET.SubElement(case, "failure", type="gate", message=_clean(check.reason))
        failure.text = _clean(check.model_dump_json(indent=1))
    else:
        ET.SubElement(case, "system-out").text = _clean(check.reason)


def _document(root: ET.Element) -> str:
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _case(suite: ET.Element, group: str, name: str) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=_clean(group), name=_clean(name), time="0")


def _clean(text: str) -> str:
    """Without the characters XML 1.0 forbids."""
    return "".join(c for c in text if c in "\t\n" or 0x20 <= ord(c) < 0xD800 or 0xE000 <= ord(c) < 0xFFFE)


def _escape(text: str) -> str:
    """Plain text inside a Markdown table."""
    return text.replace("\n", " ").replace("|", "\\|").replace("<", "&lt;")
