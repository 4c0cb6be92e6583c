"""Real vLLM, on a CPU, beside the transformers engine: same log-probs, same greedy tokens."""

import json
import shutil
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from vertigym.core.config import parse
from vertigym.core.errors import ConfigError, EngineError
from vertigym.core.files import read_jsonl
from vertigym.core.types import Completion, Message, Prompt, Sampling, Score, StopReason, Task
from vertigym.envs.decision.builtin import RETURNS
from vertigym.envs.env import Env, Turn
from vertigym.envs.tasks import GeneratedTasks
from vertigym.learner.config import OptimizerConfig
from vertigym.learner.learner import Learner
from vertigym.learner.samples import TrainingSample
from vertigym.policies import tiny
from vertigym.policies.load import load_policy
from vertigym.policies.lora import LoRAConfig, add_lora, merged_state
from vertigym.policies.model_folder import load_model
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.policies.vllm_backend import VLLMConfig
from vertigym.policies.vllm_engine import VLLMEngine, open_vllm
from vertigym.rollouts.rollout import Episode, rollout
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed here: make test-vllm"),
    pytest.mark.filterwarnings("ignore"),  # vLLM and what it brings warn a lot
]

TEXTS = ['{"days": 12, "tier": "gold"}', "approve or reject the return of 40 items"] * 3
SIZE = tiny.TinySize(hidden=64, layers=2, heads=2, key_heads=1, ffn=96, context=256, init_std=0.2)
SHARED = [7 + i % 90 for i in range(100)]  # longer than a block of vLLM's prefix cache
ROWS = [[5, 6, 7], [9, 8, 7, 6, 5, 4], [11], [5, 6, 7], [*SHARED, 3], [*SHARED, 4, 5], SHARED * 2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny.build(TEXTS, path, size=SIZE)
    return path


@pytest.fixture(scope="module")
def pair(folder: Path) -> Iterator[tuple[TransformersEngine, VLLMEngine]]:
    """The two engines, following one model."""
    ours = TransformersEngine.load(folder)
    theirs = open_vllm(folder, dtype="float32", weights=lambda: merged_state(ours.model))
    yield ours, theirs
    theirs.close()


def prompts(rows: Sequence[Sequence[int]] = ROWS, seed: int = 0) -> list[Prompt]:
    return [Prompt((), token_ids=row, seed=seed + i) for i, row in enumerate(rows)]


@torch.no_grad()
def gaps(model: torch.nn.Module, written: Sequence[Completion], temperature: float) -> torch.Tensor:
    """|vLLM's log-probs - the model's own forward pass|, a token."""
    found = []
    for one in written:
        ids = torch.tensor([[*one.prompt_ids, *one.token_ids]])
        logits = model(ids).logits[0, len(one.prompt_ids) - 1 : -1].float() / temperature
        logp = torch.log_softmax(logits, -1).gather(1, torch.tensor(one.token_ids)[:, None])[:, 0]
        found.append((logp - torch.tensor(one.logprobs)).abs())
    return torch.cat(found)


def test_log_probs_and_greedy_tokens_agree_before_and_after_each_of_twenty_updates(
    pair: tuple[TransformersEngine, VLLMEngine],
) -> None:
    ours, theirs = pair
    learner = Learner(ours.model, OptimizerConfig(lr=5e-4), total_steps=20)
    many = ROWS * 4
    for version in range(21):
        for temperature in (1.0, 0.7):
            written = theirs.generate(
                prompts(many, seed=version), Sampling(temperature=temperature, max_tokens=24)
            )
            assert {one.policy_version for one in written} == {version}
            assert float(gaps(ours.model, written, temperature).mean()) < 1e-4
        greedy = Sampling(temperature=0, max_tokens=24)
        expected, got = ours.generate(prompts(), greedy), theirs.generate(prompts(), greedy)
        assert [list(one.token_ids) for one in got] == [list(one.token_ids) for one in expected]
        assert [one.text for one in got] == [one.text for one in expected]
        # Learn to repeat what was just sampled: every weight moves.
        before = [one.logprobs for one in got]
        learner.forward_backward(
            [TrainingSample.of(one) for one in written], lambda logp, _, __: (-logp.sum(), {})
        )
        learner.optim_step()
        ours.refresh(version + 1)
        theirs.refresh(version + 1)
        after = [one.logprobs for one in theirs.generate(prompts(), greedy)]
        assert after != before, "the update must be seen, cached prefixes included"


def test_a_sample_depends_on_its_seed_and_not_on_its_batch(pair: tuple[TransformersEngine, VLLMEngine]) -> None:
    _, engine = pair
    sampling = Sampling(max_tokens=12)
    together = engine.generate(prompts(), sampling)
    alone = [engine.generate([prompt], sampling)[0] for prompt in prompts()]
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    assert [one.token_ids for one in engine.generate(prompts(seed=100), sampling)] != [
        one.token_ids for one in together
    ]


def test_stop_reasons_and_full_contexts(pair: tuple[TransformersEngine, VLLMEngine]) -> None:
    ours, engine = pair
    stop = ours.tokenizer.eos_token_id
    with torch.no_grad():  # make the end of turn likely
        ours.model.lm_head.weight[stop] *= 0
    engine.refresh(99)
    rows = [[7, 8]] * 64 + [[5] * SIZE.context]
    written = engine.generate(prompts(rows), Sampling(max_tokens=40, temperature=2.0))
    *some, full = written
    assert (full.text, full.stop_reason, list(full.token_ids)) == ("", StopReason.LENGTH, [])
    assert {one.stop_reason for one in some} == {StopReason.STOP, StopReason.LENGTH}
    for one in some:
        assert stop not in one.token_ids[:-1]
        assert (one.token_ids[-1] == stop) == (one.stop_reason is StopReason.STOP)
        assert "<|im_end|>" not in one.text
        assert len(one.logprobs) == len(one.token_ids) == one.completion_tokens


class Nagging(Env):
    """Three turns, whatever is said."""

    max_turns = 3

    def __init__(self) -> None:
        super().__init__(GeneratedTasks(_task, {"train": 4}))
        self._turns = 0

    def begin(self, task: Task) -> Sequence[Message]:
        """A prompt longer than a block of the cache."""
        self._turns = 0
        return task.messages()

    def respond(self, action: str) -> Turn:
        """More of the same."""
        self._turns += 1
        more: Message = {"role": "user", "content": "approve or reject 12 items"}
        return Turn(messages=[more]) if self._turns < 3 else Turn(score=Score(1.0))


def _task(split: str, number: int) -> Task:
    return Task(id=f"{split}-{number}", prompt=f"the return of {number} items: " + "tier gold days 40 " * 4)


def test_several_turns_are_one_segment_as_with_transformers_and_reuse_their_prefix(
    pair: tuple[TransformersEngine, VLLMEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = pair
    env = Nagging()
    episodes = [Episode(task, 1) for task in env.tasks.ids("train")]
    sampling = Sampling(temperature=0, max_tokens=8)
    cached: list[int] = []
    generate = theirs.backend._llm.generate  # type: ignore[attr-defined]

    def counting(*args: Any, **kwargs: Any) -> Any:
        outputs = generate(*args, **kwargs)
        cached.append(min(output.num_cached_tokens for output in outputs))
        return outputs

    monkeypatch.setattr(theirs.backend._llm, "generate", counting)  # type: ignore[attr-defined]
    expected, got = (rollout(engine, env, episodes, sampling) for engine in (ours, theirs))
    for one, other in zip(expected, got, strict=True):
        (mine,), (its,) = one.segments, other.segments
        assert mine.token_ids == its.token_ids
        assert mine.loss_mask == its.loss_mask
        assert its.logprobs == pytest.approx(mine.logprobs, abs=1e-4)
    assert cached[1] >= 32, "the second turn must find the first in the cache"
    assert cached[2] > cached[1]


def test_adapters_reach_vllm_merged(folder: Path) -> None:
    model, _ = load_model(folder)
    add_lora(model, LoRAConfig(rank=2, alpha=8), seed=0)
    engine = open_vllm(folder, dtype="float32", weights=lambda: merged_state(model))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:
                parameter.normal_(std=0.2)
    stale = gaps(model, engine.generate(prompts(), Sampling(max_tokens=16)), 1.0)
    engine.refresh(1)
    fresh = gaps(model, engine.generate(prompts(), Sampling(max_tokens=16)), 1.0)
    engine.close()
    assert float(stale.mean()) > 1e-2
    assert float(fresh.mean()) < 1e-4


def test_what_the_folder_asks_for_in_generation_is_not_obeyed(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    asked = {"do_sample": True, "top_k": 1, "repetition_penalty": 1.5, "temperature": 0.1}
    (copy / "generation_config.json").write_text(json.dumps(asked))
    engine = load_policy(f"vllm:{copy}")
    assert isinstance(engine, VLLMEngine)
    written = engine.generate(prompts(ROWS[:1] * 16), Sampling(max_tokens=16))
    engine.close()
    assert len({tuple(one.token_ids) for one in written}) > 8, "top-k 1 would write the same every time"
    assert float(gaps(load_model(folder)[0], written, 1.0).mean()) < 1e-4


def test_a_model_that_vllm_cannot_run_is_one_line(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(folder, copy)
    about = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(about | {"rope_parameters": {"rope_type": "none such"}}))
    with pytest.raises(ConfigError, match=r"^vLLM cannot run .*none such") as raised:
        open_vllm(copy, dtype="float32")
    assert "\n" not in str(raised.value)


def test_a_batch_past_its_limit_ends_the_engine(folder: Path) -> None:
    engine = open_vllm(folder, VLLMConfig(request_s=1e-3), dtype="float32")
    with pytest.raises(EngineError, match=r"waited 0.001 s \(rollout.vllm.request_s\) for vLLM to generate"):
        engine.generate(prompts(), Sampling(max_tokens=64))
    with pytest.raises(EngineError, match="cannot be used any more"):
        engine.generate(prompts(), Sampling(max_tokens=1))


@pytest.mark.parametrize("mode", ["in_process", "server"])
def test_rollouts_go_on_while_the_optimizer_steps_and_stay_within_their_bound(
    mode: str, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    table: dict[str, Any] = {
        "name": "run", "env": RETURNS, "model": "tiny", "algorithm": "grpo", "steps": 8, "threads": 1,
        "tiny": {"hidden": 64, "layers": 2, "heads": 2, "key_heads": 1, "ffn": 96}, "output": str(tmp_path),
        "rollout": {
            "engine": "vllm", "vllm": {"mode": mode, "probe_every": 2}, "staleness": 2, "deterministic": False,
            "tasks": 8, "group_size": 2, "batch": 4, "max_tokens": 16, "save_every": 1,
        },
        "policy": {"advantage": "reinforce++", "entropy": 0.5}, "optimizer": {"lr": 2e-3},
    }  # fmt: skip
    run = train(parse(RunConfig, table, source="test")).run
    files = sorted((run.folder / "rollouts").iterdir())
    ages = [[step - row["policy_version"] for row in read_jsonl(file)] for step, file in enumerate(files)]
    assert [len(found) for found in ages] == [16] * 8
    assert all(0 <= age <= min(step, 2) for step, found in enumerate(ages) for age in found)
    assert max(map(max, ages)) > 0, "sampled while an earlier step was trained on"
    probes = [row["probe_mean"] for row in run.metrics() if "probe_mean" in row]
    assert len(probes) == 4
    assert max(probes) < 1e-4, "fresh samples are of the newest weights"
