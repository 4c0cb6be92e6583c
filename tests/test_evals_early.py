"""Early stopping on real evals, and the advice after a new base model."""

import pytest

from vertigym.core.errors import ConfigError
from vertigym.core.seeds import generator
from vertigym.core.types import Policy, Prompt, Sampling, Task
from vertigym.envs.env import Env, SingleTurnEnv
from vertigym.envs.tasks import TaskSet
from vertigym.evals.early import run_until_clear
from vertigym.evals.rebase import rebase
from vertigym.evals.report import Report
from vertigym.evals.runner import run_suite
from vertigym.evals.sequential import Look, plan
from vertigym.evals.suite import Suite
from vertigym.policies.scripted import Scripted, constant, expert
from vertigym.rewards.rubric import Rubric

SUITE = Suite.model_validate(
    {"name": "s", "env": [{"id": "t/A-v0", "name": "a"}, {"id": "t/B-v0", "name": "b"}]}
)


def exact(completion: str, answer: str) -> float:
    return float(completion == answer)


def make(env_id: str, **_: object) -> Env:
    tasks = [
        Task(id=f"{env_id[2]}{i}", prompt="?", answer=f"a{i}", split="eval", cluster=f"c{i // 2}")
        for i in range(200)
    ]
    return SingleTurnEnv(TaskSet(tasks), Rubric(exact))


def of_accuracy(share: float, salt: str = "") -> Scripted:
    def write(prompt: Prompt) -> str:
        assert prompt.task is not None
        right = generator(prompt.task.id, salt).random() < share
        return str(prompt.task.answer) if right else "wrong"

    return Scripted(write)


def report(policy: Policy, model: str) -> Report:
    return run_suite(SUITE, policy, make=make, model=model)


def test_a_clear_answer_takes_a_part_of_the_tasks() -> None:
    champion = report(of_accuracy(0.4), "old")
    looks: list[Look] = []
    found = run_until_clear(SUITE, expert(), champion, plan(5), make=make, on_look=looks.append)
    assert found.verdict == "better"
    assert found.used <= 0.4
    assert list(found.looks) == looks
    assert len(found.report.rows) == round(400 * found.used)
    played = {row.key for row in found.report.rows}
    for row in found.report.rows:  # whole clusters only
        first = int(row.task[1:]) // 2 * 2
        assert {(row.env, f"{row.task[0]}{first + i}") for i in (0, 1)} <= played
    assert {row.env for row in found.report.rows} == {"a", "b"}


def test_blocks_are_drawn_over_the_whole_suite() -> None:
    """A suite sorted by difficulty must not be judged by its easy end."""
    found = run_until_clear(SUITE, expert(), report(of_accuracy(0.4), "old"), plan(5), make=make)
    places = [int(row.task[1:]) for row in found.report.rows if row.env == "a"]
    assert max(places) > 150


def test_worse_and_no_different_also_stop_early() -> None:
    champion = report(of_accuracy(0.6), "old")
    worse = run_until_clear(SUITE, constant("no"), champion, plan(5), make=make)
    assert worse.verdict == "worse"
    assert worse.used <= 0.6
    same = run_until_clear(SUITE, of_accuracy(0.6), champion, plan(5, target=0.02), make=make)
    assert same.verdict == "futile"
    assert same.used < 1


def test_no_sample_is_drawn_twice() -> None:
    class Counting:
        seeds: list[int] = []  # noqa: RUF012

        def generate(self, prompts, sampling):  # type: ignore[no-untyped-def]
            self.seeds += [prompt.seed for prompt in prompts]
            return of_accuracy(0.62, "z").generate(prompts, Sampling())

    policy = Counting()
    run_until_clear(SUITE, policy, report(of_accuracy(0.58), "old"), plan(5, futility=0.0), make=make)
    assert len(policy.seeds) == len(set(policy.seeds)) == 400


def test_the_champion_must_be_of_this_suite() -> None:
    other = report(expert(), "old").model_copy(update={"suite_hash": "x"})
    with pytest.raises(ConfigError, match="of suite x"):
        run_until_clear(SUITE, expert(), other, plan(3), make=make)


def test_rebase_keeps_a_tuned_model_that_still_wins() -> None:
    tuned, base = report(of_accuracy(0.9), "tuned"), report(of_accuracy(0.6), "new")
    answer = rebase(base, tuned)
    assert answer.ship == "tuned"
    assert answer.advice.startswith("keep the tuned model: tuned is better than new: +")


def test_rebase_moves_to_a_base_that_is_better_or_as_good() -> None:
    tuned = report(of_accuracy(0.7), "tuned")
    better = rebase(report(of_accuracy(0.95), "new"), tuned)
    assert better.ship == "new"
    assert better.advice.startswith("move to the new base: tuned is worse than new: -")
    same = rebase(report(of_accuracy(0.7), "new"), tuned)
    assert same.ship == "new"
    assert "not worse than the tuned model by 2 points" in same.advice


def test_rebase_says_when_it_cannot_tell() -> None:
    answer = rebase(report(of_accuracy(0.7, "x"), "new"), report(of_accuracy(0.68, "y"), "tuned"))
    assert answer.ship is None
    assert answer.advice.startswith("cannot tell")


def test_rebase_with_a_retrained_model() -> None:
    low, middle, high = (of_accuracy(share) for share in (0.5, 0.7, 0.9))

    def ship(base: Policy, tuned: Policy, retrained: Policy) -> str | None:
        three = report(base, "base"), report(tuned, "tuned"), report(retrained, "retrained")
        answer = rebase(*three)
        assert len(answer.comparisons) == 3
        return answer.ship

    assert ship(low, middle, high) == "retrained"
    assert ship(low, high, middle) == "tuned"
    assert ship(high, high, high) == "base"
    assert ship(low, low, middle) == "retrained"
    assert ship(low, middle, middle) == "tuned"  # what is there already stays
