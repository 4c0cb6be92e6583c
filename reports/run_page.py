"""The page of a training run, finished or not, from the files of its folder; and a server that keeps it live.

Read are `promoted.json`, `gates.jsonl`, `metrics.jsonl`, `evals/SUITE/step-*.json` and the last of
`rollouts/step-*.jsonl`. A file that a run has not written yet is simply not on the page.
"""

import json
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from vertigym.core.errors import ConfigError, DataError
from vertigym.core.files import jsonable
from vertigym.evals.gate import Decision
from vertigym.evals.report import Report
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
from vertigym.trainer.run import Run, is_run, read_rows, step_of

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
    run = Run.open(folder)
    suites = {
        name: {step: Report.load(file) for step, file in files.items()}
        for name, files in run.eval_files().items()
    }
    metrics, gates, promoted = run.metrics(), run.gates(), run.promotion()
    rollouts = _rollouts(run)
    last = [reports[max(reports)] for reports in suites.values()]
    return {
        "title": f"run {folder.name}",
        "verdict": _verdict(promoted, gates, suites),
        "facts": [("run", str(folder)), ("steps", str(len(metrics)))]
        + [fact for report in last[:1] for fact in facts(report, None)],
        "tables": [metric_table(report) | {"title": f"Last eval on {report.suite}"} for report in last],
        "curves": _eval_curves(suites) + _metric_curves(metrics),
        "gates": [
            gate_row(_decision(decision, folder), row["step"], row["verdict"])
            for row in gates
            for decision in row["decisions"]
        ],
        "heat": [found for reports in suites.values() for found in _heat(reports, promoted)],
        "calibration": calibration(rollouts.all),
        "lengths": lengths(rollouts.all),
        "rollouts": rollouts.shown(),
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


def _eval_curves(suites: Mapping[str, Mapping[int, Report]]) -> list[Json]:
    """Each suite's score over the steps, with its interval."""
    return [
        {
            "name": f"{name}: score",
            "points": [
                [step, report.score.mean, report.score.low, report.score.high]
                for step, report in sorted(reports.items())
                if report.score.mean is not None
            ],
            "eval": True,
        }
        for name, reports in suites.items()
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


def _heat(reports: Mapping[int, Report], promoted: Mapping[str, Any] | None) -> list[Json]:
    steps = sorted(reports)
    shipped = promoted["step"] if promoted else None
    marked = steps.index(shipped) if shipped in steps else None
    return heat([reports[step] for step in steps], [str(step) for step in steps], marked)


def _rollouts(run: Run) -> Rollouts:
    """The rollouts of the last step that has any, and the newest checkpoint's tokenizer."""
    files = run.rollout_files()
    if not files:
        return Rollouts([], None)
    models = [*reversed(run.checkpoints()), run.folder / "model"]
    found = next((tokenizer for model in models if (tokenizer := tokenizer_of(model))), None)
    return Rollouts(from_run(read_rows(files[-1]), step_of(files[-1])), found)
