"""What a person sees of a run while it goes on: a progress bar, and a line for each eval. Goes to stderr; under
continuous integration (`CI` is set) there is no bar."""

import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from vertigym.reports.run_summary import gated_metrics, mean_and_error
from vertigym.trainer.gatekeeper import CheckpointEvaluation
from vertigym.trainer.loop import Progress as Watch

_SHOWN = ("loss", "groups_with_variance")
_HEIGHTS = "▁▂▃▄▅▆▇█"
_BAR = 20  # its width
_BESIDE = _BAR + 18  # with the word step, the time left, and the gaps


@contextmanager
def watched(steps: int, stage: str = "") -> Iterator[Watch]:
    """Callbacks for `train` that draw a bar of `steps` and print each verdict above it."""
    columns = (
        TextColumn(f"{stage} step".lstrip(), markup=False),
        MofNCompleteColumn(),
        BarColumn(_BAR),
        TimeRemainingColumn(),
        TextColumn("{task.fields[now]}", markup=False),
    )
    bar = Progress(*columns, console=Console(stderr=True), disable=bool(os.environ.get("CI")))
    row = bar.add_task("train", total=steps, now="")
    rewards: deque[float] = deque(maxlen=8)
    gate = ""

    def on_step(step: int, metrics: dict[str, float]) -> None:
        bar.start()  # not before: an error in opening the run is to stand alone
        if "reward" in metrics:
            rewards.append(metrics["reward"])
        room = bar.console.width - len(f"{stage}{steps}/{steps}") - _BESIDE
        bar.update(row, completed=step, now=_fitting(_parts(metrics, rewards, gate), room))

    def on_eval(found: CheckpointEvaluation) -> None:
        scores = "  ".join(
            f"{report.suite}: {name} {mean_and_error(score)}"
            for report in found.reports
            for name, score in gated_metrics(report).items()
        )
        nonlocal gate
        verdict = f"  {found.verdict}: {found.reason}" if found.verdict else ""
        gate = f"{found.verdict} at {found.step}" if found.verdict else ""
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


def _fitting(parts: Iterator[str], room: int) -> str:
    """The first of the parts, as many as there is room for."""
    text = ""
    for part in parts:
        if len(text) + 2 + len(part) > room:
            break
        text += f"  {part}"
    return text[2:]


def _parts(metrics: Mapping[str, float], rewards: Sequence[float], gate: str) -> Iterator[str]:
    """The figures of a step and the last gate, the most important first."""
    if "reward" in metrics:
        yield f"reward {metrics['reward']:.3f} {sparkline(rewards)}"
    if gate:
        yield gate
    yield from (f"{name} {metrics[name]:.3f}" for name in _SHOWN if name in metrics)
    if "tokens_per_second_sampling" in metrics:
        yield f"{metrics['tokens_per_second_sampling']:,.0f} tokens/s"


def sparkline(values: Sequence[float]) -> str:
    """A bar a value, from the lowest to the highest of them."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(_HEIGHTS[round(7 * (value - low) / span)] for value in values)
