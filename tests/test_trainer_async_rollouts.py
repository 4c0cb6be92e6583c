"""Rollouts sampled ahead of training: as old as the config says, the same with and without overlap, and part of
what a resumed run takes up."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from vertigym.core.config import parse
from vertigym.core.errors import ConfigError
from vertigym.core.files import read_jsonl, sha256
from vertigym.core.types import Message, Prompt, Sampling, Score, Segment, Trajectory
from vertigym.learner.clock import repeatable
from vertigym.policies.model_folder import load_model
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.trainer.async_rollouts import BoundedAsyncRollouts, FixedLagRollouts
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import Progress, RunOutcome, train
from vertigym.trainer.policy_gradient import PolicyGradient
from vertigym.trainer.setup import fits_several_ranks

EXAMPLE = Path(__file__).parents[1] / "examples" / "ask_first"
TASK: list[Message] = [{"role": "user", "content": "?"}]


@pytest.fixture(scope="module", autouse=True)
def on_the_path() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLE))
        torch.set_num_threads(1)
        yield


def config(output: Path, **changes: Any) -> RunConfig:
    table: dict[str, Any] = {
        "name": "run", "env": "ask_first", "model": "tiny", "algorithm": "grpo", "steps": 5, "seed": 0,
        "tiny": {"hidden": 32, "layers": 1, "heads": 2, "key_heads": 2, "ffn": 48}, "output": str(output),
        "rollout": {"tasks": 6, "group_size": 2, "max_tokens": 8, "save_every": 1, "staleness": 2},
        "policy": {"advantage": "reinforce++", "entropy": 0.5},  # what moves the weights: nothing is earned yet
        "optimizer": {"lr": 1e-2}, "checkpoint": {"every": 1, "keep": 9},
    }  # fmt: skip
    return parse(RunConfig, table | changes, source="test")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    return train(config(tmp_path_factory.mktemp("ahead")))


def metrics(outcome: RunOutcome) -> list[dict[str, float]]:
    return [repeatable(row) for row in read_jsonl(outcome.run.folder / "metrics.jsonl")]


def rollouts(outcome: RunOutcome) -> list[Any]:
    files = sorted((outcome.run.folder / "rollouts").iterdir())
    return [{**row, "latency_s": 0} for file in files for row in read_jsonl(file)]


def test_rollouts_are_as_old_as_the_config_says(done: RunOutcome) -> None:
    assert [row["staleness"] for row in metrics(done)] == [0, 1, 2, 2, 2]
    for step in range(5):
        rows = read_jsonl(done.run.folder / "rollouts" / f"step-{step + 1:06d}.jsonl")
        assert {row["policy_version"] for row in rows} == {max(0, step - 2)}


def test_what_was_sampled_came_from_the_weights_of_its_version(done: RunOutcome) -> None:
    (row, *_) = read_jsonl(done.run.folder / "rollouts" / "step-000005.jsonl")
    (segment, *_) = row["segments"]
    start = segment["loss_mask"].index(1)
    old, new = (
        TransformersEngine.load(done.run.checkpoint(step)).generate(
            [Prompt(TASK, segment["token_ids"][:start], seed=0)], Sampling(max_tokens=1)
        )
        for step in (2, 4)
    )
    assert old[0].logprobs != new[0].logprobs, "the weights must have moved for this to mean anything"
    model, _ = load_model(done.run.checkpoint(2))
    with torch.no_grad():
        logp_V = torch.log_softmax(model(torch.tensor([segment["token_ids"][:start]])).logits[0, -1], -1)
    assert segment["logprobs"][start] == pytest.approx(float(logp_V[segment["token_ids"][start]]), abs=1e-4)


def test_sampling_beside_training_changes_nothing(
    done: RunOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[str] = set()
    step = PolicyGradient.step
    request = TransformersEngine.request

    def spied(self: Any, *args: Any) -> Any:
        threads.add(threading.current_thread().name.partition("_")[0])
        return request(self, *args)

    monkeypatch.setattr(TransformersEngine, "request", spied)
    train(config(tmp_path / "beside", steps=4))
    assert threads == {"MainThread", "sampling"}
    threads.clear()

    def alone(self: Any, number: int) -> Any:
        self.rollouts._thread = None
        return step(self, number)

    monkeypatch.setattr(PolicyGradient, "step", alone)
    again = train(config(tmp_path / "alone"))
    assert threads == {"MainThread"}
    assert metrics(again) == metrics(done)
    assert rollouts(again) == rollouts(done)


@pytest.mark.parametrize("stop_at", [1, 3])
def test_a_resumed_run_takes_up_what_was_sampled_ahead(done: RunOutcome, tmp_path: Path, stop_at: int) -> None:
    def stop(step: int, _: object) -> None:
        if step == stop_at + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path), progress=Progress(on_step=stop))
    waiting = read_jsonl(
        tmp_path / "run" / f"checkpoints/step-{stop_at:06d}" / "trainer/rollouts/rollouts.jsonl"
    )
    assert {row["step"] for row in waiting} == {stop_at, stop_at + 1}
    resumed = train(config(tmp_path), resume=True)
    assert metrics(resumed) == metrics(done)
    assert rollouts(resumed) == rollouts(done)
    assert sha256(resumed.last / "model.safetensors") == sha256(done.last / "model.safetensors")


def test_a_failure_while_sampling_ahead_ends_the_step(tmp_path: Path) -> None:
    def sample(step: int) -> Any:
        if step == 2:
            raise RuntimeError("the judge is down")
        return [[]]

    ahead = FixedLagRollouts(sample, staleness=1, steps=5)
    ahead.take(0)
    ahead.wait()
    ahead.take(1)
    with pytest.raises(RuntimeError, match="the judge is down"):
        ahead.wait()


def test_nothing_is_sampled_for_steps_after_the_last() -> None:
    asked: list[int] = []

    def sample(step: int) -> Any:
        asked.append(step)
        return [[]]

    ahead = FixedLagRollouts(sample, staleness=3, steps=4)
    for step in range(4):
        ahead.take(step)
        ahead.wait()
    assert asked == [0, 1, 2, 3]


def test_waiting_rollouts_come_back_from_a_file_as_they_were(tmp_path: Path) -> None:
    segment = Segment([1, 2, 3], [0, 1, 1], [0.0, -0.1234567890123456789, -1e-9])
    scored = Trajectory("a", TASK, Score(0.1 + 0.2, {"x": 1 / 3}, {"why": "so"}), [segment], turn_rewards=[0.5])
    failed = replace(scored, score=Score.unscored("down"), turn_rewards=[float("nan")], seed=2**63)
    rounds = {0: [[scored], [failed, scored]], 1: [[failed]]}
    ahead = FixedLagRollouts(lambda step: rounds[step], staleness=2, steps=2, overlap=False)
    ahead._ready = dict(rounds)
    ahead.save_state(tmp_path)
    back = FixedLagRollouts(lambda step: rounds[step], staleness=2, steps=2, overlap=False)
    back.load_state(tmp_path)
    back.save_state(tmp_path / "again")
    assert (tmp_path / "again/rollouts.jsonl").read_text() == (tmp_path / "rollouts.jsonl").read_text()
    first, second = back._ready[0]
    assert (first[0].score, first[0].segments[0].logprobs) == (scored.score, segment.logprobs)
    assert [t.score.value for t in second] == [None, 0.1 + 0.2]


@pytest.mark.parametrize("decodes", [True, False])
def test_an_engine_with_a_copy_does_not_see_the_model_change(
    decodes: bool, done: RunOutcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not decodes:  # it then samples with the model's own forward pass
        monkeypatch.setattr("vertigym.policies.transformers_engine.supports", lambda _: False)
    for copy in (True, False):
        engine = TransformersEngine(*load_model(done.last), copy=copy)
        prompts = [Prompt(TASK, seed=i) for i in range(4)]
        before = engine.generate(prompts, Sampling(max_tokens=8))
        with torch.no_grad():
            for weight in engine.model.parameters():
                weight.mul_(-1.5)
        after = engine.generate(prompts, Sampling(max_tokens=8))
        assert ([c.logprobs for c in before] == [c.logprobs for c in after]) == copy
        engine.refresh(1)
        assert engine.generate(prompts, Sampling(max_tokens=8)) != before


# BoundedAsyncRollouts: a bound only.


def until(condition: Callable[[], bool]) -> None:
    """Poll; a broken sampler never gets there."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_sampler_goes_on_while_weights_change_and_waits_at_the_bound() -> None:
    asked: list[int] = []
    gate = threading.Event()

    def sample(step: int) -> Any:
        asked.append(step)
        if step == 1:
            gate.wait(60)
        return [[]]

    flow = BoundedAsyncRollouts(sample, staleness=2, steps=9)
    flow.take(0)
    until(lambda: asked == [0, 1])
    changed: list[int] = []
    flow.advance(changed.append, 1)  # does not wait for step 1, which is being sampled
    assert changed == [1]
    gate.set()
    until(lambda: asked == [0, 1, 2, 3])
    time.sleep(0.1)
    assert asked == [0, 1, 2, 3], "step 4 of the weights before step 1 would be 3 old"
    flow.take(1)
    time.sleep(0.1)
    assert asked == [0, 1, 2, 3], "training does not make rollouts newer, new weights do"
    flow.advance(changed.append, 2)
    until(lambda: asked == [0, 1, 2, 3, 4])
    flow.close()
    flow.advance(changed.append, 3)
    assert asked == [0, 1, 2, 3, 4]
    assert flow._sampler
    assert not flow._sampler.is_alive()


def test_a_failure_of_the_sampler_is_raised_where_its_rollouts_are_missed() -> None:
    def sample(step: int) -> Any:
        if step == 1:
            raise RuntimeError("the judge is down")
        return [[]]

    flow = BoundedAsyncRollouts(sample, staleness=1, steps=5)
    assert flow.take(0) == [[]]
    with pytest.raises(RuntimeError, match="the judge is down"):
        flow.take(1)
    flow.close()


UNORDERED = {
    "tasks": 6,
    "group_size": 2,
    "max_tokens": 8,
    "save_every": 1,
    "staleness": 2,
    "deterministic": False,
}


def ages(outcome: RunOutcome) -> list[set[int]]:
    """How old each step's rollouts were."""
    files = sorted((outcome.run.folder / "rollouts").iterdir())
    return [{step - row["policy_version"] for row in read_jsonl(file)} for step, file in enumerate(files)]


def test_an_unordered_run_stays_within_its_bound_and_can_be_resumed(tmp_path: Path) -> None:
    def stop(step: int, _: object) -> None:
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(tmp_path, rollout=UNORDERED), progress=Progress(on_step=stop))
    assert not [t for t in threading.enumerate() if t.name.startswith("sampling")], "it has ended with the run"
    resumed = train(config(tmp_path, rollout=UNORDERED), resume=True)
    assert len(ages(resumed)) == 5
    for step, found in enumerate(ages(resumed)):
        assert found <= set(range(min(step, 2) + 1))
    assert all(len(read_jsonl(f)) == 12 for f in (resumed.run.folder / "rollouts").iterdir())


def test_without_a_bound_it_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rollout\.staleness = 1, or more"):
        config(Path(), rollout=UNORDERED | {"staleness": 0})


def test_several_ranks_keep_their_order() -> None:
    with pytest.raises(ConfigError, match="several ranks must take them together"):
        fits_several_ranks(config(Path(), rollout=UNORDERED))
