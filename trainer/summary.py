"""A run in one page of text: its checkpoints with their evals and verdicts, and what ships."""

from pathlib import Path
from typing import Any

from pydantic import Field
from rich.console import Group
from rich.table import Table
from rich.text import Text

from vertigym.core.config import Config
from vertigym.core.errors import DataError
from vertigym.core.files import read_jsonl
from vertigym.evals.report import Report, estimate_metric, select
from vertigym.evals.statistics import Estimate
from vertigym.trainer.run import Run
from vertigym.trainer.samples import Shown, choose, samples_table


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
    samples: tuple[Shown, ...] = Field((), description="some of the last rollouts saved")


def summarize(folder: Path) -> Summary:
    """Read a run folder.

    Raises:
        DataError: it holds no run.
    """
    if not (folder / "config.toml").is_file():
        raise DataError(f"{folder}: no config.toml there; give a run's folder, for example runs/loan")
    run = Run(folder)
    decisions = {row["step"]: row for row in run.gates()}
    steps = sorted({int(file.stem.removeprefix("step-")) for file in folder.glob("evals/*/step-*.json")})
    rows = tuple(_checkpoint(folder, step, decisions.get(step, {})) for step in steps)
    promoted = run.promoted()
    rollouts = sorted(folder.glob("rollouts/step-*.jsonl"))
    reason = next((row.reason for row in reversed(rows) if row.verdict == "promoted"), "")
    return Summary(
        run=str(folder),
        steps=len(run.metrics()),
        checkpoints=rows,
        promoted=str(promoted) if promoted else None,
        reason=reason,
        samples=tuple(choose(read_jsonl(rollouts[-1]))) if rollouts else (),
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
    scores = "\n".join(f"{name} {spoken(score)}" for name, score in row.scores.items())
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


def spoken(score: Estimate) -> str:
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


def _checkpoint(folder: Path, step: int, decision: dict[str, Any]) -> Checkpoint:
    scores: dict[str, Estimate] = {}
    for file in sorted(folder.glob(f"evals/*/step-{step:06d}.json")):
        report = Report.load(file)
        scores |= {f"{report.suite}: {name}": score for name, score in gated_metrics(report).items()}
    return Checkpoint(
        step=step, scores=scores, verdict=decision.get("verdict", ""), reason=decision.get("reason", "")
    )
