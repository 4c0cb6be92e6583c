"""The check passes sound environments and catches each verifier that is broken on purpose."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from vertigym import envs
from vertigym.core.errors import UnknownNameError
from vertigym.core.types import Message, Score, Split, Task
from vertigym.envs.check import CheckReport, check
from vertigym.envs.check.actions import mutations
from vertigym.envs.check.duplicates import near_duplicates, own_share
from vertigym.envs.check.play import player
from vertigym.envs.check.scoring import CheckContext, floor
from vertigym.envs.env import Env, SingleTurnEnv, Turn
from vertigym.envs.math import arithmetic
from vertigym.envs.tasks import TaskSet
from vertigym.rewards.decision import DecisionVerifier
from vertigym.rewards.math import math_equal
from vertigym.rewards.rubric import Part, RewardFunction, Rubric
from vertigym.rewards.text import choice, exact, numeric

from . import broken_verifiers as bad


def split_of(number: int) -> Split:
    match number % 10:
        case 7:
            return "eval"
        case 8 | 9:
            return "test"
    return "train"


DESKS = ("front", "back", "Legal", "Fraud")


def records() -> list[Task]:
    """Cases with an answer of three fields, all different."""
    return [
        Task(
            id=f"case-{i}",
            prompt=f"Claim {i} of {i * 37 % 101} euro, day {i * 11 % 29}.",
            answer={"desk": DESKS[i % 4], "fee": i * 7 % 50, "review": i % 3 == 0},
            split=split_of(i),
            cluster=str(i % 5),
        )
        for i in range(60)
    ]


def words() -> list[Task]:
    """Codes to repeat from a number."""
    return [
        Task(id=f"w{i}", prompt=f"Code number {i}?", answer=f"Kx{i * 7919}b", split=split_of(i))
        for i in range(60)
    ]


def numbers() -> list[Task]:
    return [
        Task(
            id=f"n{i}",
            prompt=f"What is {i} + {i * i}?",
            answer=str(i + i * i),
            split=split_of(i),
        )
        for i in range(3, 63)
    ]


def letters() -> list[Task]:
    return [
        Task(
            id=f"l{i}",
            prompt=f"Question {i}: A, B, C or D?",
            answer="ABCD"[i * 7 % 4],
            split=split_of(i),
        )
        for i in range(60)
    ]


def env_of(tasks: Sequence[Task], function: RewardFunction) -> Callable[[], Env]:
    return lambda: SingleTurnEnv(TaskSet(tasks), Rubric(Part(function, name="reward")))


def found(report: CheckReport) -> set[str]:
    return {finding.check for finding in report.findings}


SOUND: dict[str, tuple[Callable[[], list[Task]], Callable[[], RewardFunction]]] = {
    "decision": (records, DecisionVerifier),
    "exact": (words, exact),
    "numeric": (numbers, lambda: numeric(relative=0)),
    "math": (numbers, math_equal),
    "choice": (letters, lambda: choice("ABCD")),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_verifiers_pass_strictly(name: str) -> None:
    tasks, verifier = SOUND[name]
    report = check(env_of(tasks(), verifier()), tasks=60)
    assert report.passed(strict=name != "choice"), report.findings  # a choice may be written in lower case


@pytest.mark.parametrize("level", arithmetic.LEVELS)
def test_built_in_arithmetic_passes_strictly(level: int) -> None:
    report = check("vertigym/Arithmetic-v0", tasks=30, arguments={"level": level})
    assert report.passed(strict=True), report.findings


@pytest.mark.parametrize("name", ["vertigym/Returns-v0", "vertigym/CreditLimit-v0"])
def test_built_in_decisions_pass_strictly(name: str) -> None:
    report = check(name, tasks=50)
    assert report.passed(strict=True), report.findings


SCORES_1, FLOOR, MUTATED = (
    "the reference scores 1",
    "a floor under degenerate answers",
    "mutated references fail",
)
SAME, HOSTILE = "the same action, the same score", "hostile text never raises"
BROKEN: list[tuple[Callable[[RewardFunction], RewardFunction], str, tuple[str, ...]]] = [
    (bad.accept_everything, FLOOR, tuple(SOUND)),
    (bad.compare_after_lower_casing, MUTATED, ("decision", "exact")),
    (bad.ignore_types, MUTATED, ("decision",)),
    (bad.pay_for_echo, FLOOR, tuple(SOUND)),
    (bad.pay_for_containing, FLOOR, ("decision", "exact", "numeric", "math")),
    (bad.pay_for_not_knowing, FLOOR, tuple(SOUND)),
    (bad.pay_for_nothing, FLOOR, tuple(SOUND)),
    (bad.believe_verdicts, FLOOR, tuple(SOUND)),
    (bad.raise_on_odd_text, HOSTILE, tuple(SOUND)),
    (bad.hang_on_large_numbers, HOSTILE, ("exact",)),
    (bad.end_the_process, HOSTILE, ("exact",)),
    (bad.run_the_answer, HOSTILE, ("exact", "numeric")),
    (bad.refuse_everything, SCORES_1, tuple(SOUND)),
    (bad.forget_randomly, SAME, tuple(SOUND)),
]


@pytest.mark.parametrize(
    ("broken", "by", "name"),
    [(broken, by, name) for broken, by, names in BROKEN for name in names],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_each_broken_verifier_is_caught(
    broken: Callable[[RewardFunction], RewardFunction], by: str, name: str
) -> None:
    tasks, verifier = SOUND[name]
    report = check(env_of(tasks(), broken(verifier())), tasks=40)
    assert by in found(report), report.rows()
    assert not report.passed(strict=True)
    finding = next(finding for finding in report.findings if finding.check == by)
    assert finding.task or broken is bad.run_the_answer
    assert finding.advice
    if (broken, name) != (bad.compare_after_lower_casing, "exact"):  # which may be meant: a warning
        assert by == HOSTILE or not report.passed()


@pytest.mark.parametrize("name", SOUND)
def test_a_task_leaked_into_two_splits_is_caught(name: str) -> None:
    tasks, verifier = SOUND[name]
    leaked = [*tasks(), tasks()[0].model_copy(update={"id": "again", "split": "test"})]
    report = check(env_of(leaked, verifier()), tasks=60)
    assert not report.passed()
    finding = next(f for f in report.findings if f.check == "no task in two splits")
    assert finding.task == tasks()[0].id
    assert "again" in finding.message


STORY = (
    "{} buys {} apples at the market near the old station, gives {} of them to a neighbour who helped to carry "
    "the bags up {} flights of stairs, and bakes the rest into {} pies for the summer party of the school. "
    "How many pies does {} bake in all, and how many apples are left over when everybody has gone home?"
)


def stories() -> list[Task]:
    rows = []
    for i in range(40):
        own = " ".join(f"w{i}x{j}" for j in range(40))
        rows.append(Task(id=f"s{i}", prompt=f"{own} How many?", answer=str(i), split=split_of(i)))
    return rows


def test_a_near_duplicate_in_two_splits_is_a_warning() -> None:
    first = stories()[0]
    near = first.model_copy(update={"id": "near", "split": "test", "prompt": f"{first.prompt} Please"})
    report = check(env_of([*stories(), near], numeric(relative=0)), tasks=40)
    assert report.passed()
    assert [f.level for f in report.findings if f.check == "no task in two splits"] == ["warning"]


def test_near_duplicates_are_what_overlaps_and_nothing_else() -> None:
    texts = [" ".join(f"w{i}x{j}" for j in range(40)) for i in range(30)]
    texts.append(texts[3] + " more")
    assert [(i, j) for i, j, _ in near_duplicates(texts, 0.9)] == [(3, 30)]
    assert own_share(texts) > 0.9
    assert own_share([STORY.format(*["x"] * 6)] * 30) == 0.0


def test_a_prompt_that_holds_the_answer_is_caught() -> None:
    tasks = [task.model_copy(update={"prompt": f"{task.prompt} (it is {task.answer})"}) for task in words()]
    report = check(env_of(tasks, exact()), tasks=40)
    assert "prompts do not contain the answer" in found(report)


def test_a_constant_answer_that_earns_too_much_is_caught() -> None:
    tasks = [task.model_copy(update={"answer": "A" if i else "B"}) for i, task in enumerate(letters())]
    report = check(env_of(tasks, choice("ABCD")), tasks=60)
    assert "always 'A' earns 0.98" in next(f for f in report.findings if f.check == FLOOR).message


@pytest.mark.parametrize(("share", "fails"), [(0.57, False), (0.63, True)])
def test_a_guess_near_the_limit_is_given_to_more_tasks_than_were_sampled(share: float, fails: bool) -> None:
    tasks = [
        Task(id=f"t{i}", prompt=f"Case {i}?", answer="yes" if i % 100 < 100 * share else f"no {i}")
        for i in range(600)
    ]
    env = env_of(tasks, exact())()
    for seed in range(6):
        chosen = [tasks[int(i)] for i in np.random.default_rng(seed).permutation(600)[:30]]
        with player(env) as play:
            result = floor(CheckContext(env, chosen, play), 0.05, 0.6)
        assert any("always 'yes'" in finding.message for finding in result.findings) is fails


class Door(Env):
    """Three turns; the right word opens. `lazy`: running out of turns pays."""

    max_turns = 3

    def __init__(self, lazy: bool = False) -> None:
        super().__init__(TaskSet([Task(id=f"d{i}", prompt=f"Door {i}.", answer=f"word{i}") for i in range(9)]))
        self.lazy = lazy

    def respond(self, action: str) -> Turn:
        if action == self.task.answer:
            return Turn(score=Score(1.0))
        return Turn(messages=[{"role": "user", "content": "It stays shut."}])

    def close_episode(self) -> Score:
        return Score(1.0 if self.lazy and self.task.id == "d3" else 0.0)


def test_doing_nothing_in_several_turns() -> None:
    assert check(Door).passed(strict=True)
    report = check(lambda: Door(lazy=True))
    assert not report.passed()
    assert next(f for f in report.findings if f.check == "doing nothing earns nothing").task == "d3"


class Unseeded(SingleTurnEnv):
    def begin(self, task: Task) -> list[Message]:
        return [{"role": "user", "content": f"{task.prompt} {time.perf_counter_ns()}"}]


class Raising(SingleTurnEnv):
    def respond(self, action: str) -> Turn:
        json.loads(action)
        return super().respond(action)


def test_unseeded_and_raising_environments_are_caught() -> None:
    report = check(lambda: Unseeded(TaskSet(words()), Rubric(exact())), tasks=10)
    assert {"seeds repeat", "gymnasium's checker"} <= found(report)
    report = check(lambda: Raising(TaskSet(words()), Rubric(exact())), tasks=10)
    assert {HOSTILE, SCORES_1} <= found(report)


def test_an_environment_without_tasks_fails() -> None:
    assert check(lambda: SingleTurnEnv(TaskSet([]), Rubric(exact()))).rows() == [("tasks", "failed", "none")]


def test_scores_that_depend_on_the_process_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "odd_check_env.py").write_text(
        "import os\n"
        "from vertigym.core.types import Task\n"
        "from vertigym.envs import SingleTurnEnv, TaskSet\n"
        "from vertigym.rewards.rubric import Rubric\n"
        "def by_hash(completion, answer):\n"
        "    return 1.0 if completion == answer else (hash(completion) % 1000) / 1e5\n"
        "def load_environment(**kwargs):\n"
        "    tasks = [Task(id=f't{i}', prompt=f'q{i}', answer=f'a{i * 7919}') for i in range(20)]\n"
        "    return SingleTurnEnv(TaskSet(tasks), Rubric(by_hash))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = check("odd_check_env", tasks=10)
    finding = next(finding for finding in report.findings if finding.check == SAME)
    assert "in another process" in finding.message
    monkeypatch.delenv("PYTHONPATH")
    assert "cannot be made in another process" in check("odd_check_env", tasks=10).findings[0].message


def test_unknown_environments_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'vertigym/Arithmetic-v0'"):
        check("vertigym/Arithmetics-v0")


def test_the_report_is_json_and_a_table() -> None:
    seen: list[str] = []
    report = check(
        env_of(words(), bad.accept_everything(exact())), tasks=20, on_result=lambda r: seen.append(r.check)
    )
    rows = report.rows()
    assert [row[0] for row in rows] == seen
    assert {row[1] for row in rows} <= {"passed", "warning", "failed", "skipped"}
    table = json.loads(json.dumps(report.to_json(strict=True), allow_nan=False))
    assert table["passed"] is False
    assert {"check", "level", "message", "advice", "task", "action"} == set(table["findings"][0])


def test_mutations_never_equal_the_answer() -> None:
    for answer in ({"a": 1, "b": True, "c": None, "d": "X"}, "Answer 12", "12", 5, True, 2.5):
        for what, wrong in mutations(answer, [answer, "other"]):
            assert json.dumps(wrong) != json.dumps(answer), what


@pytest.mark.usefixtures("sandbox")
def test_everything_built_in_passes() -> None:
    for name in (name for name in envs.ids() if name.startswith("vertigym/")):
        assert check(name, tasks=5).passed(), name
