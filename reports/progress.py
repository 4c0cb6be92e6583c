"""What a person sees of a run while it goes on: a progress bar, and a line for each eval. Goes to stderr."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vertigym.reports.run_summary import gated_metrics, mean_and_error
from vertigym.trainer.gatekeeper import CheckpointEvaluation
from vertigym.trainer.loop import Progress as Watch

_SHOWN = ("reward", "loss", "entropy", "groups_with_variance")


@contextmanager
def watched(steps: int, stage: str = "") -> Iterator[Watch]:
    """Callbacks for `train` that draw a bar of `steps` and print each verdict above it."""
    columns = (
        TextColumn(f"{stage} step".lstrip(), markup=False),
        MofNCompleteColumn(),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[now]}", markup=False),
    )
    bar = Progress(*columns, console=Console(stderr=True))
    row = bar.add_task("train", total=steps, now="")

    def on_step(step: int, metrics: dict[str, float]) -> None:
        bar.start()  # not before: an error in opening the run is to stand alone
        now = "  ".join(f"{name} {metrics[name]:.3f}" for name in _SHOWN if name in metrics)
        bar.update(row, completed=step, now=now)

    def on_eval(found: CheckpointEvaluation) -> None:
        scores = "  ".join(
            f"{report.suite}: {name} {mean_and_error(score)}"
            for report in found.reports
            for name, score in gated_metrics(report).items()
        )
        verdict = f"  {found.verdict}: {found.reason}" if found.verdict else ""
        bar.console.print(
            f"{stage} step {found.step}  {scores}{verdict}".lstrip(), markup=False, highlight=False
        )

    def on_note(text: str) -> None:
        bar.console.print(text, markup=False, highlight=False)

    try:
        yield Watch(on_step=on_step, on_eval=on_eval, on_note=on_note)
    finally:
        if bar.live.is_started:
            bar.stop()
