"""Rollouts: tokens in and out over several turns, and failures that are never a score of 0."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import pytest
import torch

from vertigym.core.errors import UnknownNameError
from vertigym.core.types import Completion, Message, Prompt, Sampling, Score, StopReason, Task
from vertigym.envs import Env, SingleTurnEnv, TaskSet, Turn
from vertigym.policies.scripted import Scripted, constant, expert, scripted
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.rewards.rubric import Rubric
from vertigym.rollouts.rollout import Episode, rollout

from .programs import engine_of_few_words

TASKS = [Task(id=f"t{n}", prompt=f"say {n}", answer=str(n), cluster=f"c{n % 2}") for n in range(6)]


class Chat(Env):
    """Two turns: any first reply is answered with its length; the second ends the episode."""

    max_turns = 4

    def begin(self, task: Task) -> Sequence[Message]:
        self.turn = 0
        return task.messages()

    def respond(self, action: str) -> Turn:
        self.turn += 1
        if self.turn == 2:
            return Turn(score=Score(1.0))
        return Turn(messages=[{"role": "user", "content": f"that was {len(action)} long"}], reward=0.25)


@pytest.fixture
def single() -> SingleTurnEnv:
    return SingleTurnEnv(TaskSet(TASKS), Rubric(lambda completion, answer: completion == answer))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    return engine_of_few_words(tmp_path_factory.mktemp("m"), "say that was long")


def episodes() -> list[Episode]:
    return [Episode(task.id, seed=n) for n, task in enumerate(TASKS)]


@pytest.mark.parametrize("batch", [1, 4, 100])
def test_every_episode_is_played_once_in_order(single: SingleTurnEnv, batch: int) -> None:
    done: list[int] = []
    played = rollout(
        expert(), single, episodes(), Sampling(), batch=batch, on_done=lambda index, _: done.append(index)
    )
    assert [t.task_id for t in played] == [task.id for task in TASKS]
    assert [t.cluster for t in played] == [task.cluster for task in TASKS]
    assert all(t.score.value == 1.0 for t in played)
    assert [t.seed for t in played] == list(range(6))
    assert sorted(done) == list(range(6))


def test_several_turns_stay_one_run_of_tokens(engine: TransformersEngine) -> None:
    played = rollout(engine, Chat(TaskSet(TASKS)), episodes(), Sampling(max_tokens=8))
    assert {t.turns for t in played} == {2}
    for trajectory in played:
        (segment,) = trajectory.segments
        text = str(engine.tokenizer.decode(list(segment.token_ids)))
        first, second = (m["content"] for m in trajectory.messages if m["role"] == "assistant")
        opening = engine.renderer.text(trajectory.messages[:1])
        between = f"<|im_end|>\n<|im_start|>user\nthat was {len(first)} long<|im_end|>\n<|im_start|>assistant\n"
        assert text.removesuffix("<|im_end|>") == opening + first + between + second
        pairs = zip(segment.token_ids, segment.loss_mask, strict=True)
        runs = [[t for t, _ in run] for sampled, run in groupby(pairs, key=lambda pair: pair[1]) if sampled]
        replies = [str(engine.tokenizer.decode(run)).removesuffix("<|im_end|>") for run in runs]
        assert replies == [first, second]
        assert sum(map(len, runs)) == trajectory.completion_tokens
        assert trajectory.turn_rewards == (0.25, 1.0)


def test_log_probs_of_every_turn_are_those_of_the_whole_sequence(engine: TransformersEngine) -> None:
    (played,) = rollout(engine, Chat(TaskSet(TASKS)), episodes()[:1], Sampling(max_tokens=8))
    (segment,) = played.segments
    ids = torch.tensor([list(segment.token_ids)])
    with torch.no_grad():
        logp = torch.log_softmax(engine.model(ids).logits[0].float(), -1)
    expected = logp[:-1].gather(1, ids[0, 1:, None])[:, 0]
    for place, (ours, trained) in enumerate(zip(segment.logprobs, segment.loss_mask, strict=True)):
        if trained:
            assert ours == pytest.approx(float(expected[place - 1]), abs=1e-4)


def test_a_template_that_rewrites_history_starts_a_new_segment(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This one shows only the last message, so what was sampled before is not a prefix of the next prompt."""
    forgetful = (
        "{%- set m = messages[-1] -%}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
        "{%- if add_generation_prompt -%}<|im_start|>assistant\n{% endif -%}"
    )
    monkeypatch.setattr(engine.tokenizer, "chat_template", forgetful)
    (played,) = rollout(engine, Chat(TaskSet(TASKS)), episodes()[:1], Sampling(max_tokens=8))
    first, second = played.segments
    replies = [m["content"] for m in played.messages if m["role"] == "assistant"]
    for segment, reply in zip((first, second), replies, strict=True):
        sampled = [t for t, m in zip(segment.token_ids, segment.loss_mask, strict=True) if m]
        assert str(engine.tokenizer.decode(sampled)).removesuffix("<|im_end|>") == reply
    assert "that was" in str(engine.tokenizer.decode(list(second.token_ids)))


def test_what_an_episode_does_depends_on_its_seed_alone(engine: TransformersEngine) -> None:
    env, sampling = Chat(TaskSet(TASKS)), Sampling(max_tokens=6)
    together = rollout(engine, env, episodes(), sampling)
    alone = [rollout(engine, env, [episode], sampling)[0] for episode in episodes()]
    assert [t.messages for t in together] == [t.messages for t in alone]


class Flaky:
    """An engine whose first `failures` answers fail."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        def one(prompt: Prompt) -> Completion:
            if self.failures:
                self.failures -= 1
                return Completion("", StopReason.ERROR, error="the connection was reset")
            assert prompt.task is not None
            return Completion(prompt.task.answer)

        return [one(prompt) for prompt in prompts]


def test_a_failed_generation_is_tried_again_and_then_not_scored(single: SingleTurnEnv) -> None:
    assert [t.score.value for t in rollout(Flaky(2), single, episodes()[:2], Sampling())] == [1.0, 1.0]
    (lost,) = rollout(Flaky(9), single, episodes()[:1], Sampling(), retries=2)
    assert (lost.score.value, lost.stop_reason) == (None, StopReason.ERROR)
    assert "connection was reset" in lost.score.evidence["reason"]


def test_a_verifier_that_fails_once_is_asked_again_and_one_that_fails_always_is_no_zero() -> None:
    calls: list[str] = []

    def fails_first(completion: str) -> float:
        calls.append(completion)
        if len(calls) == 1:
            raise OSError("disk trouble")
        return 1.0

    env = SingleTurnEnv(TaskSet(TASKS), Rubric(fails_first))
    assert rollout(expert(), env, episodes()[:1], Sampling())[0].score.value == 1.0
    assert calls == ["0", "0"]

    def always(completion: str) -> float:
        raise OSError("disk trouble")

    broken = SingleTurnEnv(TaskSet(TASKS), Rubric(always))
    (lost,) = rollout(expert(), broken, episodes()[:1], Sampling())
    assert lost.score.value is None
    assert "disk trouble" in str(lost.score.evidence)


class Crashing(SingleTurnEnv):
    parallel_steps = 3

    def respond(self, action: str) -> Turn:
        if action == "2":
            raise RuntimeError("boom")
        return super().respond(action)


def test_an_environment_that_raises_loses_its_own_episode_only() -> None:
    env = Crashing(TaskSet(TASKS), Rubric(lambda: 1.0))
    played = rollout(expert(), env, episodes(), Sampling())
    assert [t.score.value for t in played] == [1.0, 1.0, None, 1.0, 1.0, 1.0]
    assert "RuntimeError: boom" in played[2].score.evidence["reason"]


class Unopenable(SingleTurnEnv):
    def begin(self, task: Task) -> Sequence[Message]:
        if task.id == "t2":
            raise RuntimeError("no database")
        return super().begin(task)


def test_an_environment_that_cannot_open_an_episode_loses_that_one_only() -> None:
    env = Unopenable(TaskSet(TASKS), Rubric(lambda: 1.0))
    done: list[int] = []
    for batch in (1, 10):
        played = rollout(
            expert(), env, episodes(), Sampling(), batch=batch, on_done=lambda i, _: done.append(i)
        )
        assert [t.score.value for t in played] == [1.0, 1.0, None, 1.0, 1.0, 1.0]
        assert played[2].task_id == "t2"
        assert "no database" in played[2].score.evidence["reason"]
    assert sorted(done) == sorted([*range(6), *range(6)])
    with pytest.raises(UnknownNameError, match="task 'nothing'"):
        rollout(expert(), env, [Episode("nothing")], Sampling())


def test_scripted_policies(single: SingleTurnEnv) -> None:
    def replies(policy: Scripted) -> list[str]:
        return [t.reply for t in rollout(policy, single, episodes(), Sampling())]

    assert replies(constant("x")) == ["x"] * 6
    assert replies(scripted("constant:a b")) == ["a b"] * 6
    assert replies(scripted("echo")) == [task.prompt for task in TASKS]
    assert replies(scripted("expert")) == [task.answer for task in TASKS]
    with pytest.raises(UnknownNameError, match="scripted policy 'exprt'; did you mean 'expert'"):
        scripted("exprt")


def test_an_empty_list_of_episodes_is_no_work(single: SingleTurnEnv) -> None:
    assert rollout(expert(), single, [], Sampling()) == []


def test_rows_for_training_mark_the_assistants_tokens(engine: TransformersEngine, tmp_path: Path) -> None:
    chat: list[Message] = [
        {"role": "user", "content": "say that"},
        {"role": "assistant", "content": "that"},
        {"role": "user", "content": "long"},
        {"role": "assistant", "content": "was long"},
    ]
    (row,) = engine.renderer.training_rows(chat)
    ids, mask = row.token_ids, row.loss_mask
    assert str(engine.tokenizer.decode(ids)) == engine.renderer.text(chat, prompt=False).rstrip("\n")
    trained = [t for t, m in zip(ids, mask, strict=True) if m]
    assert str(engine.tokenizer.decode(trained)) == "that<|im_end|>was long<|im_end|>"


def test_what_the_context_cuts_is_not_scored_and_shortens_nobody(engine: TransformersEngine) -> None:
    long = Task(id="long", prompt="x" * 500, answer="")
    env = SingleTurnEnv(TaskSet([*TASKS, long]), Rubric(lambda completion: 1.0))
    sampling = Sampling(max_tokens=40, temperature=0)
    alone = rollout(engine, env, episodes(), sampling)
    together = rollout(engine, env, [*episodes(), Episode("long")], sampling)
    assert [t.segments for t in together[:-1]] == [t.segments for t in alone]
    assert {t.score.value for t in together[:-1]} == {1.0}
    cut = together[-1].score
    assert cut.value is None
    assert "context is too short" in str(cut.evidence["reason"])


class Talkative(Chat):
    """Some tasks are answered at length, so that the episode outgrows the context after its first turn."""

    def respond(self, action: str) -> Turn:
        turn = super().respond(action)
        if turn.messages and self.task.id == "long":
            return Turn(messages=[{"role": "user", "content": "y" * 480}], reward=0.25)
        return turn


def test_an_episode_that_outgrows_the_context_is_not_scored_and_shortens_nobody(
    engine: TransformersEngine,
) -> None:
    env = Talkative(TaskSet([*TASKS, Task(id="long", prompt="say 9", answer="")]))
    sampling = Sampling(max_tokens=40, temperature=0)
    alone = rollout(engine, env, episodes(), sampling)
    together = rollout(engine, env, [*episodes(), Episode("long")], sampling)
    assert [t.segments for t in together[:-1]] == [t.segments for t in alone]
    assert {t.score.value for t in together[:-1]} == {1.0}
    grown = together[-1]
    assert (grown.score.value, grown.turns) == (None, 1), "its second turn has no room"
    assert "context is too short" in str(grown.score.evidence["reason"])
