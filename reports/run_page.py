"""The page of a training run, finished or not, from the files of its folder.

Read are `promoted.json`, `gates.jsonl`, `metrics.jsonl`, `evals/SUITE/step-*.json` and the last of
`rollouts/step-*.jsonl`. A file that a run has not written yet is simply not on the page. What was read of a
file is kept until it changes, so that a page can be made again and again while the run goes on.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from vertigym.core.errors import DataError
from vertigym.evals.gate import Decision
from vertigym.evals.report import Report
from vertigym.reports.before_after import answer_classes, gain_text, rule_table
from vertigym.reports.mistakes import class_confusions, field_confusions
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
from vertigym.reports.rollout_view import BUDGET, Rollouts, calibration, from_run, lengths, tokenizer_of
from vertigym.reports.run_curves import MetricColumns, eval_curves, some_steps
from vertigym.trainer.explained_run import ExplainedRun, explain, first_stage
from vertigym.trainer.run_files import RunFiles, is_run, read_rows, step_of

Json = dict[str, Any]
T = TypeVar("T")
_LIVE_BUDGET = BUDGET // 10  # a page that is sent again and again


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
    return RunPage(folder).data(live=live)


class RunPage:
    """A run to be shown many times: only what has changed is read again.

    Raises:
        DataError: the folder holds no run.
    """

    def __init__(self, folder: Path) -> None:
        self.run = RunFiles.open(folder)
        self.metrics = MetricColumns(folder / "metrics.jsonl")
        self._kept: dict[str, tuple[Any, Any]] = {}  # stamps and values
        self._used: set[str] = set()

    def state(self) -> str:
        """Another text whenever a file that the page shows has changed."""
        names = ("metrics.jsonl", "gates.jsonl", "promoted.json")
        evals = [file for by_step in self.run.eval_files().values() for file in by_step.values()]
        files = [*(self.run.folder / name for name in names), *evals, *self.run.rollout_files()[-1:]]
        return f"{hash(tuple((str(file), _stamp(file)) for file in files)):x}"

    def data(self, *, live: bool = False) -> Json:
        """What the page shows; `live` pages ask for it again.

        Raises:
            DataError: one of its files is malformed.
        """
        self._used.clear()
        data = self._data(live)
        self._kept = {name: self._kept[name] for name in self._used}
        return data

    def _data(self, live: bool) -> Json:
        run = self.run
        self.metrics.read_on()
        files = run.eval_files()
        suites = {
            name: {step: self._keep(file, lambda f: Report.load(f, rows=False)) for step, file in of.items()}
            for name, of in files.items()
        }
        gates, promoted, explained = run.gates(), run.promotion(), explain(run)
        shipped = promoted["step"] if promoted else None
        marked = {row["step"] for row in gates if row["verdict"] == "promoted"}
        marked |= {promoted["step"]} if promoted else set()  # 0: an earlier stage's champion
        last = [self._whole(of[max(of)]) for of in files.values()]
        shown = {name: of.get(max(of) if shipped is None else shipped) for name, of in files.items()}
        ships = {name: self._whole(file) for name, file in shown.items() if file}
        pairs = [(self._start(name), after) for name, after in ships.items()]
        rules = [rule_table(before, after, explained.rules) for before, after in pairs]
        return {
            "title": f"run {run.folder.resolve().name}",
            "verdict": _verdict(promoted, gates, suites),
            "top": _top(run, explained, promoted, pairs),
            "facts": [("run", str(run.folder)), ("steps", f"{self.metrics.rows:,}")]
            + [fact for report in last[:1] for fact in facts(report, None)],
            "rules": [table for table in rules if table],
            "rule_texts": dict(explained.rules),
            "tables": [metric_table(report) | {"title": f"Last eval on {report.suite}"} for report in last],
            "confusions": [table for report in ships.values() for table in class_confusions(report)],
            "curves": eval_curves(suites, marked) + self.metrics.curves(),
            "gates": [
                gate_row(_decision(decision, run.folder), row["step"], row["verdict"])
                for row in gates
                for decision in row["decisions"]
            ],
            "heat": [found for of in suites.values() for found in _heat(of, shipped, explained.rules)],
            "live": live,
        } | self._rollouts(explained, _LIVE_BUDGET if live else BUDGET)

    def _rollouts(self, explained: ExplainedRun, budget: int) -> Json:
        """What the page shows of the last rollouts there are; their right answers give a confusion table."""
        files = self.run.rollout_files()
        if not files:
            return {"rollouts": [], "rollouts_in_all": 0, "calibration": [], "lengths": None}
        return self._keep(files[-1], lambda file: _rollout_data(self.run, file, explained, budget))

    def _whole(self, file: Path) -> Report:
        return self._keep(file, Report.load, "whole")

    def _start(self, suite: str) -> Report | None:
        """The suite's report on what the whole recipe started from, if it was measured on the same tasks."""
        own, first = (one.eval_file(suite, 0) for one in (self.run, first_stage(self.run)))
        found = [self._whole(file) for file in (first, own) if file.exists()]
        same = [report for report in found if report.suite_hash == found[-1].suite_hash]
        return same[0] if same else None

    def _keep(self, file: Path, read: Callable[[Path], T], kind: str = "") -> T:
        """What `read` makes of a file, kept until the file changes or is not asked for."""
        stamp, name = _stamp(file), f"{file} {kind}"
        self._used.add(name)
        if self._kept.get(name, (None, None))[0] != stamp:
            self._kept[name] = stamp, read(file)
        kept: T = self._kept[name][1]
        return kept


def _stamp(file: Path) -> tuple[int, int, int] | None:
    """What changes with the file; None where there is none."""
    try:
        about = file.stat()
    except FileNotFoundError:
        return None
    return about.st_ino, about.st_size, about.st_mtime_ns


def _rollout_data(run: RunFiles, file: Path, explained: ExplainedRun, budget: int) -> Json:
    rows = read_rows(file)
    tasks = {row["task_id"] for row in rows}
    answers = explained.answers(tasks)
    models = [*reversed(run.checkpoints()), run.folder / "model"]
    tokenizer = next((tokenizer for model in models if (tokenizer := tokenizer_of(model))), None)
    rollouts = Rollouts(from_run(rows, step_of(file), explained.task_rules(tasks)), tokenizer)
    fields = [
        answer_classes(one.messages[-1]["content"], answers[one.task], one.score)
        for one in rollouts.all
        if one.task in answers and one.messages
    ]
    return {
        "calibration": calibration(rollouts.all),
        "lengths": lengths(rollouts.all),
        "rollouts": rollouts.shown(budget, answers),
        "rollouts_in_all": len(rollouts.all),
        "field_confusions": [
            table | {"title": f"{table['title']} · rollouts of step {step_of(file)}"}
            for table in field_confusions(fields)
        ],
    }


def _decision(value: Any, folder: Path) -> Decision:
    try:
        return Decision.model_validate(value)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise DataError(f"{folder / 'gates.jsonl'}: not a decision of this version ({where})") from None


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


def _heat(reports: Mapping[int, Report], shipped: int | None, rules: Mapping[str, str]) -> list[Json]:
    """The score by slice and step; of many steps some, the shipped one among them."""
    steps = some_steps(sorted(reports), shipped)
    marked = steps.index(shipped) if shipped in steps else None
    return heat([reports[step] for step in steps], [str(step) for step in steps], marked, rules)
