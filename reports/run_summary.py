"""A run in one page of text: its checkpoints with their evals and verdicts, and what ships."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field
from rich.console import Group
from rich.table import Table
from rich.text import Text

from vertigym.core.config import Config
from vertigym.core.files import read_jsonl
from vertigym.evals.report import Report, estimate_metric, select
from vertigym.evals.statistics import Estimate
from vertigym.trainer.rollout_samples import RolloutSample, pick_samples, samples_table
from vertigym.trainer.run_files import RunFiles


class Checkpoint(Config):
    """One row: a step, an estimate for each suite's metric, and the decision."""

    step: int
    scores: dict[str, Estimate]
    verdict: str
    reason: str


class Summary(Config):
    """What a run came to."""

    run: str
    steps: int = Field(description="steps logged")
    checkpoints: tuple[Checkpoint, ...]
    promoted: str | None
    reason: str
    samples: tuple[RolloutSample, ...] = Field((), description="some of the last rollouts saved")


def summarize(folder: Path) -> Summary:
    """Read a run folder.

    Raises:
        DataError: it holds no run.
    """
    run = RunFiles.open(folder)
    decisions = {row["step"]: row for row in run.gates()}
    suites = run.eval_files()
    steps = sorted({step for by_step in suites.values() for step in by_step})
    rows = tuple(_checkpoint(suites, step, decisions.get(step, {})) for step in steps)
    promoted = run.promoted()
    rollouts = run.rollout_files()
    reason = next((row.reason for row in reversed(rows) if row.verdict == "promoted"), "")
    return Summary(
        run=str(folder),
        steps=sum(1 for _ in run.iter_metrics()),
        checkpoints=rows,
        promoted=str(promoted) if promoted else None,
        reason=reason,
        samples=tuple(pick_samples(read_jsonl(rollouts[-1]))) if rollouts else (),
    )


def checkpoint_table() -> Table:
    """An empty table of checkpoints; fill it with `checkpoint_row`."""
    table = Table(box=None, pad_edge=False)
    table.add_column("step", justify="right")
    for name in ("held-out (± s.e.)", "verdict", "reason"):
        table.add_column(name, overflow="fold")
    return table


def checkpoint_row(row: Checkpoint) -> tuple[str, str, str, str]:
    """The cells of one checkpoint."""
    scores = "\n".join(f"{name} {mean_and_error(score)}" for name, score in row.scores.items())
    return str(row.step), scores, row.verdict or "start", row.reason


def render(summary: Summary) -> Group:
    """The summary for a terminal."""
    table = checkpoint_table()
    for row in summary.checkpoints:
        table.add_row(*map(Text, checkpoint_row(row)))
    ships = f"promoted: {summary.promoted}" if summary.promoted else "promoted: none; the champion stays"
    parts = [f"{summary.run}: {summary.steps} steps", table if summary.checkpoints else "no evals", ships]
    if summary.samples:
        parts += ["", "some of the last rollouts saved:", samples_table(summary.samples)]
    return Group(*parts)


def mean_and_error(score: Estimate) -> str:
    """`0.803 ± 0.041`, without the error where it is undefined."""
    if score.mean is None:
        return "not scored"
    return f"{score.mean:.3f}" + (f" ± {score.se:.3f}" if score.se is not None else "")


def per_rule(report: Report, metric: str) -> dict[str, Estimate]:
    """The metric by rule, over the tasks whose case hits the rule; fewest tasks last."""
    rules = sorted(report.per_rule, key=lambda rule: -(report.per_rule[rule].tasks or 0))
    return {
        rule: estimate_metric(
            select(report.rows, slice_=f"rule={rule}"),
            metric,
            report.confidence,
            report.price,
            report.limits(metric),
        )
        for rule in rules
    }


def gated_metrics(report: Report) -> dict[str, Estimate]:
    """The suite's own metrics over all its environments; the score where it names none."""
    named = {name: found["all"] for name, found in report.metrics.items() if name != "score"}
    return named or {"score": report.score}


def _checkpoint(suites: Mapping[str, Mapping[int, Path]], step: int, decision: Mapping[str, Any]) -> Checkpoint:
    scores: dict[str, Estimate] = {}
    for by_step in suites.values():
        if step not in by_step:
            continue
        report = Report.load(by_step[step], rows=False)
        scores |= {f"{report.suite}: {name}": score for name, score in gated_metrics(report).items()}
    return Checkpoint(
        step=step, scores=scores, verdict=decision.get("verdict", ""), reason=decision.get("reason", "")
    )
