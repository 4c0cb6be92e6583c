"""Environments as the tinker-cookbook's, in its own rollouts and its own trainer, over `vertigym tinker`."""

import asyncio
import json
import pickle
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tinker", reason="the client: pip install 'tinker>=0.38,<0.39'")
pytest.importorskip("tinker_cookbook", reason="pip install tinker-cookbook")

from tinker_cookbook import tokenizer_utils
from tinker_cookbook.completers import TokenCompleter, TokensWithLogprobs
from tinker_cookbook.renderers import get_renderer
from tinker_cookbook.rl import train
from tinker_cookbook.rl.rollout_strategy import RetryOnFailure
from tinker_cookbook.rl.rollouts import do_group_rollout

from vertigym.core.errors import InputError
from vertigym.core.types import Score, Task
from vertigym.envs import registry
from vertigym.envs.env import SingleTurnEnv
from vertigym.envs.tasks import TaskSet
from vertigym.interop import tinker_cookbook_env
from vertigym.interop.tinker_cookbook_env import (
    CookbookGroupBuilder,
    UnscoredEpisodeError,
    VertigymDatasetBuilder,
)
from vertigym.policies.scripted import reference_text
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.rewards.rubric import Rubric

from . import returns
from .tinker_server import served

pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}Warning") for kind in ("Future", "Deprecation", "Resource")
]

NAME = "Qwen/Qwen3-8B"  # any for which the cookbook knows a renderer; the tokenizer is the tiny model's


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = returns.warm(tmp_path_factory.mktemp("warm"))
    from transformers import AutoTokenizer

    tokenizer_utils.register_tokenizer(NAME, lambda: AutoTokenizer.from_pretrained(folder))
    return folder


class Writes(TokenCompleter):  # type: ignore[misc]
    """A policy that writes these texts, one after the other."""

    def __init__(self, renderer: Any, *texts: str) -> None:
        self.renderer, self.texts = renderer, list(texts)

    async def __call__(self, model_input: Any, stop: Any, **_: Any) -> TokensWithLogprobs:
        text = self.texts.pop(0)
        tokens = tokenizer_utils.get_tokenizer(NAME).encode(text, add_special_tokens=False) + list(stop[:1])
        return TokensWithLogprobs(tokens=tokens, maybe_logprobs=[-1.0] * len(tokens))


def builder(**change: Any) -> VertigymDatasetBuilder:
    asked = {"model_name_for_tokenizer": NAME, "env_id": returns.ENV}
    return VertigymDatasetBuilder(**(asked | {"batch_size": 4, "group_size": 2} | change))


@pytest.mark.parametrize("renderer", ["", "qwen3_instruct"])
def test_the_reward_is_our_score_of_the_text_that_was_written(base: Path, renderer: str) -> None:
    train_set, judged = asyncio.run(builder(eval_tasks=6, renderer_name=renderer)())
    group = pickle.loads(pickle.dumps(train_set.get_batch(0)[0]))
    task = registry.make(returns.ENV).tasks.get(group.task_id)
    policy = Writes(group.renderer, reference_text(task), "no idea")
    if not renderer:
        own = TransformersEngine.load(base).renderer.prompt(task.messages())
        assert group.renderer.build_generation_prompt(task.messages()).to_ints() == list(own)
    played = asyncio.run(do_group_rollout(group, policy))
    assert played.get_total_rewards() == [1.0, 0.0]
    assert played.trajectories_G[0].transitions[-1].metrics["exact"] == 1.0
    shown = tokenizer_utils.get_tokenizer(NAME).decode(played.trajectories_G[0].transitions[0].ob.to_ints())
    assert str(task.messages()[-1]["content"]) in shown
    assert judged is not None
    assert [len(judged.get_batch(i)) for i in range(len(judged))] == [4, 2]
    assert len(judged.get_batch(0)[0].task_id) > 0


def broken(completion: str) -> Score:
    """A verifier whose machine fails on some texts."""
    return Score.unscored("the machine fell over") if "no" in completion else Score(1.0)


def test_what_could_not_be_scored_is_an_error_there_and_never_a_reward(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = SingleTurnEnv(TaskSet([Task(id="t", prompt="?", answer="!", split="train")]), Rubric(broken))
    monkeypatch.setattr(tinker_cookbook_env, "_opened", lambda _: env)
    renderer = get_renderer("qwen3_instruct", tokenizer_utils.get_tokenizer(NAME))
    group = CookbookGroupBuilder(returns.ENV, "t", 2, renderer)
    with pytest.raises(UnscoredEpisodeError, match="fell over"):
        asyncio.run(do_group_rollout(group, Writes(renderer, "yes", "no")))
    again = Writes(renderer, "yes", "no", "yes")
    played = asyncio.run(do_group_rollout(group, again, RetryOnFailure(max_retries=1)))
    assert played.get_total_rewards() == [1.0, 1.0]
    assert [error.error_type for error in played.rollout_errors] == ["UnscoredEpisodeError"]


def test_an_environment_with_tools_is_refused(base: Path) -> None:
    with pytest.raises(InputError, match="has tools"):
        asyncio.run(builder(env_id="vertigym/Repository-v0")())


@pytest.mark.slow
def test_its_trainer_trains_on_a_decision_model(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TINKER_API_KEY", "tml-local")
    with served(base, tmp_path, name=NAME) as url:
        config = train.Config(
            dataset_builder=builder(batch_size=2, group_size=4),
            model_name=NAME,
            recipe_name="test",
            learning_rate=1e-3,
            max_tokens=24,
            lora_rank=4,
            log_path=str(tmp_path / "log"),
            base_url=url,
            eval_every=0,
            save_every=0,
            max_steps=2,
        )
        asyncio.run(train.main(config))
    rows = [json.loads(line) for line in (tmp_path / "log" / "metrics.jsonl").read_text().splitlines()]
    rewards = [row["env/all/reward/total"] for row in rows if "env/all/reward/total" in row]
    assert len(rewards) == 2
    assert all(0 <= reward <= 1 for reward in rewards)
