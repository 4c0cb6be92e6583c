"""TensorBoard files that TensorBoard reads, services that are only as present as their packages, and rollouts
chosen to be looked at."""

import math
import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vertigym.core.config import parse
from vertigym.core.errors import ConfigError, MissingDependencyError, RunError
from vertigym.trainer.rollout_samples import RolloutSample, pick_samples, samples_table
from vertigym.trainer.trackers import TensorBoard, TrackingConfig, open_trackers


class Service:
    """Stands for wandb or trackio, and remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.fails = False

    def init(self, **about: Any) -> Any:
        print("chatter")
        self.told.append(("init", about))
        return SimpleNamespace(log=self.log, finish=lambda: self.told.append(("finish",)))

    def log(self, row: dict[str, Any], step: int) -> None:
        if self.fails:
            raise ConnectionError("no route")
        self.told.append((step, row))

    def Table(self, columns: list[str], data: list[list[Any]]) -> Any:
        return columns, data


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    fake = Service()
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, fake)
    return fake


def opened(folder: Path, *to: str, notes: list[str] | None = None) -> Any:
    config = parse(TrackingConfig, {"to": to, "project": "loans"}, source="test")
    note = (notes if notes is not None else []).append
    return open_trackers(config, "run", folder, {"seed": 1}, on_note=note)


SAMPLE = RolloutSample("t1", 1.0, 0.5, 7, "stop", "how much?", "5")


def test_wandb_gets_rows_samples_and_its_own_id_again_on_resuming(service: Service, tmp_path: Path) -> None:
    for _ in range(2):
        trackers = opened(tmp_path, "wandb")
        trackers.log_rollouts(3, [SAMPLE])
        trackers.log(3, {"reward": 0.5, "loss": math.nan})
        trackers.close()
    (_, first), table, row, end, (_, again), *_ = service.told
    assert first["id"] == again["id"] == (tmp_path / "wandb-id").read_text()
    assert (first["project"], first["name"], first["resume"], first["config"]) == (
        *("loans", "run", "allow"),
        {"seed": 1},
    )
    assert row == (3, {"reward": 0.5}), "a service need not know what to do with NaN"
    assert table[1]["rollouts"][1] == [["t1", 1.0, 0.5, 7, "stop", "how much?", "5"]]
    assert end == ("finish",)


def test_trackio_gets_rows_and_what_it_prints_is_kept_off_standard_output(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trackers = opened(tmp_path, "trackio")
    trackers.log_rollouts(1, [SAMPLE])
    trackers.log(1, {"reward": 0.5})
    trackers.close()
    assert [told[0] for told in service.told] == ["init", 1, "finish"]
    assert capsys.readouterr() == ("", "chatter\n")


def test_a_service_that_fails_is_left_out_with_one_note(service: Service, tmp_path: Path) -> None:
    notes: list[str] = []
    trackers = opened(tmp_path, "wandb", notes=notes)
    service.fails = True
    for step in (1, 2):
        trackers.log(step, {"reward": 0.5})
    trackers.close()
    assert notes == ["wandb is left out from here on: ConnectionError: no route"]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1, "TensorBoard goes on"


def test_a_missing_package_a_closed_service_and_an_unknown_one_are_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(
        MissingDependencyError, match=r"tracking.to trackio needs.*pip install 'vertigym\[trackio\]'"
    ):
        opened(tmp_path, "trackio")
    with pytest.raises(ConfigError, match="'wandb' or 'trackio'"):
        opened(tmp_path, "mlflow")

    def refuse(**_: Any) -> None:
        raise ValueError("no API key")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refuse))
    with pytest.raises(RunError, match=r"wandb cannot be opened \(ValueError: no API key\); log in"):
        opened(tmp_path, "wandb")


def test_tensorboard_reads_what_was_written_and_a_resumed_run_voids_it(tmp_path: Path) -> None:
    reader: Any = import_module("tensorboard.backend.event_processing.event_accumulator")

    before = TensorBoard(tmp_path)
    for step in (1, 2, 3):
        before.log(step, {"reward": step / 10})
    before.close()
    after = TensorBoard(tmp_path)
    for step in (2, 3):
        after.log(step, {"reward": step / 5})
    after.close()
    read = reader.EventAccumulator(str(tmp_path), purge_orphaned_data=True).Reload()
    rows = [(row.step, row.value) for row in read.Scalars("reward")]
    assert rows == [(1, pytest.approx(0.1)), (2, pytest.approx(0.4)), (3, pytest.approx(0.6))]


def rollout(task: str, value: float | None, advantage: float, *turns: str) -> dict[str, Any]:
    messages = [
        {"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, turns, strict=False)
    ]
    score: dict[str, Any] = {"value": value, "parts": {}, "evidence": {}}
    return {
        "task_id": task, "score": score, "advantage": advantage, "messages": messages,
        "completion_tokens": 3, "stop_reason": "stop",
    }  # fmt: skip


def test_samples_are_the_best_the_worst_and_some_between() -> None:
    rows = [rollout(f"t{i}", i / 10, 0.0, "q", f"a{i}") for i in range(11)]
    assert [row.task for row in pick_samples(rows)] == ["t10", "t6", "t3", "t0"]
    assert [row.task for row in pick_samples(rows[:2])] == ["t1", "t0"]
    (failed,) = pick_samples([rollout("t", None, 0.0, "first", "ask", "x" * 400, "done")])
    assert (failed.asked, failed.wrote, failed.reward) == ("…" + "x" * 300, "done", None)
    (silent,) = pick_samples([rollout("t", 0.0, 0.0)])
    assert (silent.asked, silent.wrote) == ("", "")


def test_samples_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    Console(width=90).print(samples_table([SAMPLE, RolloutSample("t2", None, 0.0, 1, "error", "[b]x[/b]", "")]))
    out = capsys.readouterr().out
    assert "reward 1.00, advantage +0.50, 7 tokens, stop, task t1" in out
    assert "[b]x[/b]" in out
    assert "not scored" in out
