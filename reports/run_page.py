"""The page of a training run, finished or not, from the files of its folder; and a server that keeps it live.

Read are `promoted.json`, `gates.jsonl`, `metrics.jsonl`, `evals/SUITE/step-*.json` and the last of
`rollouts/step-*.jsonl`. A file that a run has not written yet is simply not on the page.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from vertigym.core.errors import ConfigError, DataError
from vertigym.core.files import jsonable
from vertigym.evals.gate import Decision
from vertigym.evals.report import Report
from vertigym.reports.before_after import gain_text, rule_table
from vertigym.reports.page import (
    facts,
    gate_row,
    heat,
    mean_and_interval,
    metric_table,
    render,
    report_page,
    verdict_of,
)
from vertigym.reports.rollout_view import Rollouts, calibration, from_run, lengths, tokenizer_of
from vertigym.reports.run_summary import gated_metrics
from vertigym.trainer.explained_run import ExplainedRun, explain, first_stage
from vertigym.trainer.run_files import RunFiles, is_run, read_rows, step_of

Json = dict[str, Any]
_LOCAL_NAMES = ("127.0.0.1", "localhost")  # a page elsewhere that gives itself this address has another name


def run_page(folder: Path) -> str:
    """The page of the run in `folder`.

    Raises:
        DataError: it holds no run, or one of its files is malformed.
    """
    return render(run_data(folder))


def page_of(path: Path, baseline: Path | None = None) -> str:
    """The page of whatever `path` is: a run's folder, an eval's folder (with its samples), or a report file.

    Raises:
        DataError: it is none of these. ConfigError: the baseline's report is of another suite.
    """
    if is_run(path):
        return run_page(path)
    samples = path / "samples.jsonl"
    return report_page(
        Report.load(path),
        baseline=Report.load(baseline) if baseline else None,
        samples=samples if samples.is_file() else None,
    )


def run_data(folder: Path, *, live: bool = False) -> Json:
    """What the page of a run shows; `live` pages ask for it again."""
    run = RunFiles.open(folder)
    suites = {
        name: {step: Report.load(file) for step, file in files.items()}
        for name, files in run.eval_files().items()
    }
    metrics, gates, promoted = run.metrics(), run.gates(), run.promotion()
    rollouts, explained = _rollouts(run), explain(run)
    last = [reports[max(reports)] for reports in suites.values()]
    ships = [reports.get(promoted["step"] if promoted else max(reports)) for reports in suites.values()]
    pairs = [(_start_of(run, name), after) for name, after in zip(suites, ships, strict=True) if after]
    rules = [rule_table(before, after, explained.rules) for before, after in pairs]
    return {
        "title": f"run {folder.name}",
        "verdict": _verdict(promoted, gates, suites),
        "top": _top(run, explained, promoted, pairs),
        "facts": [("run", str(folder)), ("steps", str(len(metrics)))]
        + [fact for report in last[:1] for fact in facts(report, None)],
        "rules": [table for table in rules if table],
        "tables": [metric_table(report) | {"title": f"Last eval on {report.suite}"} for report in last],
        "curves": _eval_curves(suites, {row["step"] for row in gates if row["verdict"] == "promoted"})
        + _metric_curves(metrics),
        "gates": [
            gate_row(_decision(decision, folder), row["step"], row["verdict"])
            for row in gates
            for decision in row["decisions"]
        ],
        "heat": [found for reports in suites.values() for found in _heat(reports, promoted, explained.rules)],
        "calibration": calibration(rollouts.all),
        "lengths": lengths(rollouts.all),
        "rollouts": rollouts.shown(answers=explained.answers({one.task for one in rollouts.all})),
        "rollouts_in_all": len(rollouts.all),
        "live": live,
    }


def _decision(value: Any, folder: Path) -> Decision:
    try:
        return Decision.model_validate(value)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise DataError(f"{folder / 'gates.jsonl'}: not a decision of this version ({where})") from None


def serve(folder: Path, port: int = 8000) -> ThreadingHTTPServer:
    """A server on 127.0.0.1 that makes the page anew for each request; call its `serve_forever`. Port 0 takes a
    free one. The page asks for `data.json` every few seconds and redraws itself.

    Raises:
        DataError: `folder` holds no run. ConfigError: the port is taken.
    """
    run_data(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if urlsplit(f"//{self.headers.get('Host', '')}").hostname not in _LOCAL_NAMES:
                self.send_error(403, "ask for 127.0.0.1 or localhost")
                return
            if self.path not in ("/", "/data.json"):
                self.send_error(404)
                return
            try:
                data = run_data(folder, live=True)
            except DataError as error:  # a file is being written: the page asks again
                self.send_error(503, str(error).encode("ascii", "replace").decode()[:200])
                return
            if self.path == "/":
                self._send("text/html", render(data))
            else:
                self._send("application/json", json.dumps(jsonable(data), allow_nan=False))

        def _send(self, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(200)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
            """Nothing: the terminal belongs to the run."""

    try:
        return ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        raise ConfigError(f"port {port}: {error.strerror}: name another with --port, or 0 for any") from None


def _verdict(
    promoted: Mapping[str, Any] | None, gates: Sequence[Json], suites: Mapping[str, Mapping[int, Report]]
) -> Json:
    """The newest promotion, or why there is none."""
    if promoted:
        return verdict_of(True, "promoted", f"{promoted['checkpoint']}: {promoted['reason']}")
    if gates:
        return verdict_of(False, "nothing promoted", f"step {gates[-1]['step']}: {gates[-1]['reason']}")
    first = [f"{name} {mean_and_interval(reports[min(reports)].score)}" for name, reports in suites.items()]
    return verdict_of(None, "no decision yet", "; ".join(first))


def _start_of(run: RunFiles, suite: str) -> Report | None:
    """The suite's report on what the whole recipe started from, if it was measured on the same tasks."""
    own, first = (one.eval_file(suite, 0) for one in (run, first_stage(run)))
    found = [Report.load(file) for file in (first, own) if file.exists()]
    same = [report for report in found if report.suite_hash == found[-1].suite_hash]
    return same[0] if same else None


def _top(
    run: RunFiles,
    explained: ExplainedRun,
    promoted: Mapping[str, Any] | None,
    pairs: Sequence[tuple[Report | None, Report]],
) -> list[tuple[str, str]]:
    """What a reader wants to know first, by name and value."""
    gains = "; ".join(gain_text(before, after) for before, after in pairs if before)
    rows = [
        ("environment", explained.env),
        ("started from", explained.model),
        ("date", pairs[0][1].started[:10] if pairs else ""),
        ("ships", str(run.folder / promoted["checkpoint"]) if promoted else "nothing: the champion stays"),
        ("start → shipped" if promoted else "start → last", gains),
        ("next", f"vertigym serve {run.folder}" if promoted else ""),
    ]
    return [(name, value) for name, value in rows if value]


def _eval_curves(suites: Mapping[str, Mapping[int, Report]], promoted: Collection[int]) -> list[Json]:
    """What each suite's gates are on, over the steps, with its interval; promoted steps are marked."""
    return [
        {
            "name": f"{name}: {metric}",
            "points": [
                [step, found.mean, found.low, found.high]
                for step, report in sorted(reports.items())
                if (found := gated_metrics(report)[metric]).mean is not None
            ],
            "eval": True,
            "marked": sorted(promoted),
        }
        for name, reports in suites.items()
        for metric in gated_metrics(next(iter(reports.values())))
    ]


def _metric_curves(rows: Sequence[Json]) -> list[Json]:
    """Every number that training logged."""
    names = dict.fromkeys(name for row in rows for name in row if name != "step")
    return [
        {
            "name": name,
            "points": [
                [row["step"], row[name], None, None] for row in rows if isinstance(row.get(name), int | float)
            ],
            "eval": False,
        }
        for name in names
    ]


def _heat(
    reports: Mapping[int, Report], promoted: Mapping[str, Any] | None, rules: Mapping[str, str]
) -> list[Json]:
    steps = sorted(reports)
    shipped = promoted["step"] if promoted else None
    marked = steps.index(shipped) if shipped in steps else None
    found = heat([reports[step] for step in steps], [str(step) for step in steps], marked)
    for row in (row for one in found for row in one["rows"]):
        row["label"] = rules.get(row["label"], row["label"])
    return found


def _rollouts(run: RunFiles) -> Rollouts:
    """The rollouts of the last step that has any, and the newest checkpoint's tokenizer."""
    files = run.rollout_files()
    if not files:
        return Rollouts([], None)
    models = [*reversed(run.checkpoints()), run.folder / "model"]
    found = next((tokenizer for model in models if (tokenizer := tokenizer_of(model))), None)
    return Rollouts(from_run(read_rows(files[-1]), step_of(files[-1])), found)
