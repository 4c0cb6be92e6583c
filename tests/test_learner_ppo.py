"""Episodes of several turns as training data, the critic, and runs of PPO and GRPO on the two-turn example."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vertigym.benchmarks.learning import ASK_FIRST, ask_first_start
from vertigym.core.config import parse
from vertigym.core.errors import DataError, RunError
from vertigym.core.files import read_jsonl, sha256
from vertigym.core.types import Message, Sampling, Score, Segment, StopReason, Task, Trajectory
from vertigym.envs import registry
from vertigym.envs.env import Env
from vertigym.envs.tasks import TaskSet
from vertigym.learner.clock import repeatable
from vertigym.learner.config import OptimizerConfig, PolicyConfig
from vertigym.learner.critic import Critic, critic_loss
from vertigym.learner.episodes import column, episode_rewards, scored_episode, set_column, turn_ends
from vertigym.learner.samples import TokenColumns, TrainingSample
from vertigym.policies import tiny
from vertigym.policies.model_folder import load_model
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.rollouts.rollout import Episode, rollout
from vertigym.trainer import checkpoints
from vertigym.trainer.collect import Collector
from vertigym.trainer.config import RolloutConfig, RunConfig
from vertigym.trainer.loop import Progress, RunOutcome, train

NOTHING: list[Message] = []


@pytest.fixture(scope="module", autouse=True)
def on_the_path() -> Any:
    """The example's module, found as a user's own would be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ASK_FIRST))
        torch.set_num_threads(1)
        yield


# Credit.


def trajectory(
    *segments: Segment, score: float | None = 1.0, turn_rewards: tuple[float, ...] = ()
) -> Trajectory:
    verdict = Score.unscored("down") if score is None else Score(score, {"exact": 1.0})
    return Trajectory("task", NOTHING, verdict, segments, turn_rewards=turn_rewards, turns=len(turn_rewards))


#                      P  P  a  a  o  a  a  a  o                      P  P  P  a  a
TWO_TURNS = Segment([1, 2, 3, 4, 5, 6, 7, 8, 9], [0, 0, 1, 1, 0, 1, 1, 1, 0], [0, 0, -1, -2, 0, -3, -4, -5, 0])
THIRD = Segment([1, 2, 9, 3, 4], [0, 0, 0, 1, 1], [0, 0, 0, -6, -7])


def play(some: Trajectory, **policy: Any) -> Any:
    return scored_episode(
        some, some.score, parse(PolicyConfig, policy, source="test"), index=0, group=0, max_tokens=4
    )


def test_the_reward_comes_with_the_last_token_the_policy_wrote() -> None:
    done = play(trajectory(TWO_TURNS, THIRD, score=0.5))
    assert done.rewards == [0, 0, 0, 0, 0, 0, 0.5]
    assert done.trained == 7
    assert column([done], "sampler_logp").tolist() == [-1, -2, -3, -4, -5, -6, -7]
    assert list(turn_ends(done.samples)) == [1, 4, 6]


def test_rewards_of_earlier_turns_come_with_the_last_token_of_their_turn() -> None:
    some = trajectory(TWO_TURNS, THIRD, score=0.5, turn_rewards=(0.1, 0.2, 0.5))
    assert play(some, turn_rewards=True).rewards == [0, 0.1, 0, 0, 0.2, 0, 0.5]
    assert play(some).rewards == [0, 0, 0, 0, 0, 0, 0.5]
    gain = episode_rewards([play(some, turn_rewards=True)] * 2, [0, 0])
    assert gain.totals().tolist() == pytest.approx([0.8, 0.8])


def test_the_longest_turn_decides_what_overlong_takes_off() -> None:
    # Three tokens of at most four, of which the last two are penalised.
    assert play(trajectory(TWO_TURNS), overlong=2).rewards[-1] == pytest.approx(1 - 0.5)


def test_what_was_not_scored_or_not_written_is_not_trained_on() -> None:
    assert play(trajectory(TWO_TURNS, score=None)) is None
    assert play(trajectory()) is None


def test_gdpo_asks_for_parts_that_exist() -> None:
    policy = {"advantage": "gdpo", "parts": {"exact": 1.0, "late": 1.0}}
    assert play(trajectory(TWO_TURNS), **policy).parts == [1.0, 0.0]
    with pytest.raises(RunError, match=r"names precise, but the score has exact"):
        play(trajectory(TWO_TURNS), advantage="gdpo", parts={"precise": 1.0})


def test_columns_go_to_their_samples() -> None:
    episodes = [play(trajectory(TWO_TURNS, THIRD)), play(trajectory(THIRD))]
    set_column(episodes, "weight", torch.arange(9.0))
    assert [s.columns.weight for p in episodes for s in p.samples] == [[0, 1, 2, 3, 4], [5, 6], [7, 8]]


# Multi-turn rollouts.


FORGETFUL = (
    "{%- for message in messages[-1:] -%}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>{{ '\\n' }}"
    "{%- endfor -%}{%- if add_generation_prompt -%}<|im_start|>assistant\n{% endif -%}"
)


class Script:
    """Tokens of fixed replies, as an engine with a tokenizer gives them."""

    def __init__(self, engine: TransformersEngine) -> None:
        self.renderer, self.tokenizer = engine.renderer, engine.tokenizer

    def generate(self, prompts: Any, sampling: Sampling) -> Any:
        from vertigym.core.types import Completion

        done = []
        for prompt in prompts:
            turn = sum(m["role"] == "assistant" for m in prompt.messages)
            text = ("ask days", "refund")[turn]
            ids = [*self.renderer.ids(text), self.tokenizer.eos_token_id]
            done.append(Completion(text, StopReason.STOP, ids, [-1.0 - turn] * len(ids), prompt.token_ids))
        return done


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("models") / "tiny"
    texts = ["lamp, days: 35, opened: no", "ask days", "refund decline"] * 2
    tiny.build(texts, path, size=tiny.TinySize(hidden=16, layers=1, heads=2, key_heads=1, ffn=24, init_std=0.3))
    return path


@pytest.mark.parametrize(("template", "segments"), [(None, 1), (FORGETFUL, 2)])
def test_only_what_the_policy_wrote_is_trained_also_where_the_template_drops_history(
    small: Path, template: str | None, segments: int
) -> None:
    engine = TransformersEngine.load(small)
    if template:
        engine.tokenizer.chat_template = template
    env = registry.make("ask_first")
    task = next(i for i in env.tasks.ids("train") if env.tasks.get(i).info["missing"] == "days")
    (some,) = rollout(Script(engine), env, [Episode(task)], Sampling())
    assert some.turns == 2
    done = play(some)
    assert len(done.samples) == segments
    written = [[token for token, m in zip(s.token_ids, s.loss_mask, strict=True) if m] for s in done.samples]
    text = str(engine.tokenizer.decode([token for row in written for token in row]))
    assert text == "ask days<|im_end|>refund<|im_end|>"
    assert column([done], "sampler_logp").tolist() == [-1.0] * len(
        engine.renderer.ids("ask days<|im_end|>")
    ) + [-2.0] * len(engine.renderer.ids("refund<|im_end|>"))
    assert list(turn_ends(done.samples))[-1] == done.trained - 1
    assert len(list(turn_ends(done.samples))) == 2


# The critic.


def critic_of(small: Path, **kwargs: Any) -> Critic:
    critic = Critic(load_model(small)[0], OptimizerConfig(lr=1e-2), total_steps=10, **kwargs)
    with torch.no_grad():
        critic.model.head.weight.copy_(torch.linspace(-1, 1, 16)[None])
    return critic


def valued() -> list[TrainingSample]:
    prompt = [3, 4, 5, 6, 7]
    rows = [([8, 9, 10], [1, 1, 1]), ([11], [1]), ([8, 20, 21, 12, 13], [1, 0, 0, 1, 0])]
    return [
        TrainingSample(
            [*prompt, *ids],
            [0] * 5 + mask,
            TokenColumns(old_value=[0.1] * sum(mask), returns=[1.0] * sum(mask)),
        )
        for ids, mask in rows
    ]


def test_values_and_their_gradient_equal_a_slow_reference(small: Path) -> None:
    critic, slow = critic_of(small, microbatch_tokens=9), critic_of(small)
    got = critic.forward_backward(valued(), critic_loss(0.0))
    total: Any = 0.0
    values = []
    for sample in valued():
        hidden = slow.model.base_model(torch.tensor([sample.token_ids])).last_hidden_state[0]
        places = [i - 1 for i, trained in enumerate(sample.loss_mask) if trained]
        value = slow.model.head(hidden[places])[:, 0]
        values.append(value.tolist())
        total = total + ((value - 1) ** 2 / 2).sum() / 6
    total.backward()
    assert got["loss"] == pytest.approx(total.item(), rel=1e-5)
    for a, b in zip(critic.model.parameters(), slow.model.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-5)
    for ours, theirs in zip(critic.score(valued()), values, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_a_fresh_critic_says_nothing_and_learns_to(small: Path) -> None:
    critic = Critic(load_model(small)[0], OptimizerConfig(lr=1e-2), total_steps=10)
    assert not any(any(row) for row in critic.score(valued()))
    errors = []
    for _ in range(30):
        errors.append(critic.forward_backward(valued(), critic_loss(0.0))["squared_error"])
        critic.optim_step()
    assert errors[-1] < errors[0] / 20


def test_a_resumed_critic_goes_on_to_the_same_bits(small: Path, tmp_path: Path) -> None:
    straight = critic_of(small)
    straight.forward_backward(valued(), critic_loss(0.2))
    straight.optim_step()
    straight.save_state(tmp_path)
    resumed = critic_of(small)
    resumed.load_state(tmp_path)
    for critic in (straight, resumed):
        critic.forward_backward(valued(), critic_loss(0.2))
        critic.optim_step()
    for a, b in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


# Runs.


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    sizes = ("tiny.hidden=32", "tiny.layers=1", "tiny.ffn=48", "steps=100", "optimizer.lr=1e-2")
    return ask_first_start(tmp_path_factory.mktemp("warm"), 0, *sizes)


def short(warm: RunOutcome, folder: Path, algorithm: str = "ppo", **changes: Any) -> RunConfig:
    table: dict[str, Any] = {
        "name": algorithm, "env": "ask_first", "model": str(warm.last), "algorithm": algorithm, "steps": 3,
        "output": str(folder), "rollout": {"tasks": 6, "group_size": 2, "max_tokens": 8, "save_every": 1},
        "policy": {"minibatches": 2, "epochs": 2, "entropy": 0.01, "kl": 0.01, "kl_in": "reward"},
        "optimizer": {"lr": 1e-3}, "checkpoint": {"every": 1},
    }  # fmt: skip
    if algorithm == "ppo":
        table["critic"] = {"optimizer": {"lr": 1e-2}, "warmup_steps": 1}
    return parse(RunConfig, table | changes, source="test")


@pytest.fixture(scope="module")
def done(warm: RunOutcome, tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    return train(short(warm, tmp_path_factory.mktemp("ppo")))


def timeless(outcome: RunOutcome) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = read_jsonl(outcome.run.folder / "metrics.jsonl")
    return [repeatable(row) for row in rows]


def files(outcome: RunOutcome) -> dict[str, str]:
    places = ("model.safetensors", "trainer/critic/model.pt", "trainer/state.pt")
    return {place: sha256(outcome.last / place) for place in places}


def test_only_the_critic_learns_during_its_warm_up(warm: RunOutcome, done: RunOutcome) -> None:
    checkpoint = done.run.checkpoint
    start, first, second = (load_file(checkpoint(step) / "model.safetensors") for step in (0, 1, 2))
    assert all(torch.equal(start[name], first[name]) for name in start)
    assert any(not torch.equal(first[name], second[name]) for name in start)
    before, after = (torch.load(checkpoint(step) / "trainer/critic/model.pt") for step in (0, 1))
    assert any(not torch.equal(before[name], after[name]) for name in before)
    rows = timeless(done)
    assert "grad_norm" not in rows[0]
    assert {"grad_norm", "critic/grad_norm", "critic/squared_error", "clip_share", "turns"} <= rows[1].keys()


def test_an_episodes_advantage_is_saved_with_its_rollout(done: RunOutcome) -> None:
    rows = read_jsonl(done.run.folder / "rollouts" / "step-000003.jsonl")
    assert len(rows) == 12
    assert len({row["advantage"] for row in rows}) > 1


@pytest.mark.parametrize("stop_at", [1, 2])
def test_an_interrupted_run_resumes_to_the_same_bits_with_its_critic(
    warm: RunOutcome, done: RunOutcome, tmp_path: Path, stop_at: int
) -> None:
    def stop(step: int, _: object) -> None:
        if step == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(short(warm, tmp_path), progress=Progress(on_step=stop))
    resumed = train(short(warm, tmp_path), resume=True)
    assert timeless(resumed) == timeless(done)
    assert files(resumed) == files(done)


def test_a_damaged_critic_is_noticed(warm: RunOutcome, tmp_path: Path) -> None:
    last = train(short(warm, tmp_path, steps=1)).last
    file = last / "trainer" / "critic" / "model.pt"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=r"critic/model.pt is damaged"):
        checkpoints.verify(last)


@pytest.mark.parametrize(
    "policy",
    [
        {"advantage": "reinforce++", "loss": "reinforce"},
        {"advantage": "rloo", "loss": "gspo"},
        {"advantage": "maxrl", "loss": "cispo", "normalizer": "constant", "normalizer_length": 8},
        {"advantage": "gdpo", "parts": {"right": 1.0, "asked": 1.0}, "loss": "dppo_tv", "kl": 0.1},
        {"ratio_to": "trainer", "correction": "token", "correction_mode": "mask", "turn_rewards": True},
        {"ratio_to": "trainer", "correction": "sequence-mean", "overlong": 2, "normalizer": "sequence"},
    ],
)
def test_other_compositions_run(warm: RunOutcome, tmp_path: Path, policy: dict[str, Any]) -> None:
    rows = timeless(train(short(warm, tmp_path, "grpo", policy=policy, steps=2)))
    assert len(rows) == 2
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert rows[-1]["grad_norm"] > 0


def test_dynamic_sampling_fills_up_with_groups_that_vary(warm: RunOutcome, tmp_path: Path) -> None:
    rollouts = {"tasks": 4, "group_size": 2, "max_tokens": 8, "rounds": 5}
    rows = timeless(train(short(warm, tmp_path, "grpo", policy={}, rollout=rollouts, steps=2)))
    assert any(row["sampling_rounds"] > 1 for row in rows)
    assert all(row["sampling_rounds"] <= 5 for row in rows)


def test_a_later_round_of_dynamic_sampling_is_of_what_is_lacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    varied = iter([[True, False, False, True], [False, True], [True]])
    asked: list[int] = []

    def rolled_out(collector: Collector, episodes: Sequence[Episode], sampling: Sampling) -> list[Trajectory]:
        asked.append(len(episodes) // 2)
        differs = next(varied)
        return [
            Trajectory(str(e.task), [], Score(float(i % 2 and differs[i // 2]))) for i, e in enumerate(episodes)
        ]

    monkeypatch.setattr(Collector, "_roll_out", rolled_out)
    env = Env(TaskSet(Task(id=str(i), prompt="?") for i in range(20)))
    rows = RolloutConfig(tasks=4, group_size=2, rounds=5)
    rounds = Collector(None, env, rows, PolicyConfig(), seed=0).sample(0)  # type: ignore[arg-type]
    assert asked == [4, 2, 1]
    assert [len(one) for one in rounds] == [8, 4, 2]
    tasks = [t.task_id for one in rounds for t in one[::2]]
    assert len(set(tasks)) == len(tasks)  # none comes twice within an epoch


def test_dynamic_sampling_that_finds_nothing_ends_with_what_to_do(
    warm: RunOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ask_first  # type: ignore[import-not-found]

    monkeypatch.setattr(ask_first.AskFirst, "_verdict", lambda self, action: Score(1.0))
    rollouts = {"tasks": 2, "group_size": 2, "max_tokens": 8, "rounds": 3}
    with pytest.raises(RunError, match=r"3 rounds of 2 tasks gave no group .*mean reward 1\.000.*rounds = 1"):
        train(short(warm, tmp_path, "grpo", policy={}, rollout=rollouts))
