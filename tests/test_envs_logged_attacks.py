"""Attacks on the rewards of environments over traces: each earns next to nothing, what is right earns 1."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from vertigym import envs
from vertigym.core.files import write_jsonl
from vertigym.core.seeds import generator
from vertigym.core.types import SPLITS, Split, Task
from vertigym.rewards import citations
from vertigym.rewards.calling import RewardFunction
from vertigym.rewards.chance import ChanceCorrection
from vertigym.rewards.fields import fields
from vertigym.rewards.labels import label
from vertigym.rewards.outcome import accepted
from vertigym.rewards.retrieval import Library, terms
from vertigym.rewards.words import numbers, words

from . import desk

FLOOR = 0.05
TASK = Task(id="one", prompt="")


def earns(env: envs.Env, attack: Callable[[Task], str], tasks: int = 200, split: Split = "train") -> float:
    """The mean score of what `attack` writes, over the tasks of a split."""
    scores = []
    for task_id in env.tasks.ids(split)[:tasks]:
        env.reset(options={"task": task_id})
        scores.append(env.step(attack(env.task))[1])
    return fmean(scores)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> envs.Env:
    return envs.make(str(desk.answer(tmp_path_factory.mktemp("answer"))))


@pytest.fixture(scope="module")
def intents(tmp_path_factory: pytest.TempPathFactory) -> envs.Env:
    return envs.make(str(desk.intent(tmp_path_factory.mktemp("intent"))))


@pytest.fixture(scope="module")
def searches(tmp_path_factory: pytest.TempPathFactory) -> envs.Env:
    return envs.make(str(desk.search(tmp_path_factory.mktemp("search"))))


def constantly(text: str) -> Callable[[Task], str]:
    return lambda task: text


def copied(task: Task) -> str:
    return " ".join(f"{text} [{name}]" for name, text in task.info["passages"].items())


CITE_ATTACKS: dict[str, Callable[[Task], str]] = {
    "the right answer, citing everything": lambda task: (
        (task.info["answers"] or ["it"])[0] + " " + "".join(f"[{name}]" for name in task.info["passages"]) + "."
    ),
    "citing everything in one bracket": lambda task: (
        (task.info["answers"] or ["it"])[0] + " [" + ", ".join(task.info["passages"]) + "]."
    ),
    "copying the corpus": copied,
    "copying the corpus without a full stop": lambda task: copied(task).replace(".", ""),
    "the answer without a citation": lambda task: (task.info["answers"] or ["it"])[0],
    "citing a passage that does not exist": lambda task: (task.info["answers"] or ["it"])[0] + " [z].",
    "only citations": lambda task: "".join(f"[{name}]" for name in task.info["passages"]),
    "the passages' words in another order": lambda task: " ".join(sorted(words(copied(task)))) + " [a].",
    "somebody else's refusal": lambda task: "I cannot answer that.",
}


@pytest.mark.parametrize("name", CITE_ATTACKS)
def test_attacks_on_citations_stay_under_the_floor(name: str, answers: envs.Env) -> None:
    assert earns(answers, CITE_ATTACKS[name]) <= FLOOR


@pytest.mark.parametrize("split", SPLITS)
def test_always_refusing_stays_under_the_floor(split: Split, answers: envs.Env, tmp_path: Path) -> None:
    refuse = constantly(citations.REFUSAL)
    assert earns(answers, refuse, 10_000, split) <= FLOOR
    folder = desk.answer(tmp_path)
    for name in SPLITS:  # half of the questions without an answer
        rows = [row for row in desk.shop.answers(3000) if not row["label"] or row["id"].endswith("7")]
        write_jsonl(folder / f"{name}.jsonl", rows[SPLITS.index(name) :: len(SPLITS)])
    thinned = envs.make(str(folder))
    assert fmean(not thinned.tasks.get(i).info["answers"] for i in thinned.tasks.ids(split)) > 0.2
    assert earns(thinned, refuse, 10_000, split) <= FLOOR
    assert any("more than 25% of train" in note for note in thinned.notes)


@pytest.mark.parametrize("at", [0, 5, 20])
def test_right_answers_with_their_passage_earn_all(at: int, answers: envs.Env) -> None:
    task = answers.tasks.get(answers.tasks.ids("train")[at])
    answers.reset(options={"task": task.id})
    assert answers.step(task.answer)[1] == 1.0


PASSAGES = {
    "p1": "The fee is 25 euros and is due in May. It is not refundable after June.",
    "p2": "Students pay 1,250 euros a year. Boats are blue.",
    "p3": "Dogs are welcome in the garden, in the hall and in the restaurant at any time of the year.",
}


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("The fee is 25 euros [p1].", 1.0),
        ("The fee is 25 euros. [p1]", 1.0),
        ("25 euros [p1]", 1.0),
        ("The fee is 25 euros [p1]. Boats are blue [p2].", 1.0),
        ("The fee is 25 euros [p1]. Boats are free [p2].", 0.5),
        ("The fee is 25 euros [p1]. Boats are blue.", 0.5),
        ("The fee is 25 euros [p2].", 0.0),
        ("The fee is 25 euros [p1][p2].", 0.0),
        ("The fee is not 25 euros [p1].", 0.0),
        ("The fee is 26 euros [p1].", 0.0),
        ("Boats are blue [p2].", 0.0),
        ("25 euros is due at any time of the year in the garden [p1].", 0.0),
        ("The documents do not say.", 0.0),
        ("", 0.0),
    ],
)
def test_claims_need_a_passage_that_says_them(reply: str, value: float) -> None:
    info = {"passages": PASSAGES, "answers": ["25 euros"]}
    assert citations.cited_answer()(completion=reply, info=info, task=TASK).value == value


def test_a_negation_may_not_be_left_out() -> None:
    assert citations.supports(PASSAGES["p1"], words("It is not refundable after June"))
    assert not citations.supports(PASSAGES["p1"], words("refundable after June"))


def test_the_answer_stands_in_a_supported_claim() -> None:
    info = {"passages": PASSAGES, "answers": ["1250 euros"]}
    reward = citations.cited_answer()
    assert reward(completion="Students pay 1,250 euros [p2].", info=info, task=TASK).value == 1.0
    assert reward(completion="Boats are blue [p2]. It is 1,250 euros.", info=info, task=TASK).value == 0.0
    refusing = {"passages": PASSAGES, "answers": []}
    assert reward(completion="the documents do not say", info=refusing, task=TASK).value == 1.0
    assert reward(completion="The fee is 25 euros [p1].", info=refusing, task=TASK).value == 0.0


def test_numbers_have_one_form() -> None:
    assert numbers("1,250.50 and 1.250,5; 3,000 or 3000; 2.0") == ["1250.5", "1250.5", "2", "3000", "3000"]


STUFFING: dict[str, Callable[[envs.Env, Task], str]] = {
    "the query itself": lambda env, task: task.info["query"],
    "the query twice": lambda env, task: f"{task.info['query']} {task.info['query']}",
    "the commonest words of the documents": lambda env, task: " ".join(_common()[:16]),
    "all words of the documents": lambda env, task: " ".join(_common()),
    "every topic at once": lambda env, task: f"{task.info['query'].split()[-1]} {' '.join(desk.shop.TOPICS)}",
    "random words of the documents": lambda env, task: " ".join(
        generator(0, "stuffing", task.id).permutation(_common())[:16]
    ),
    "one word a hundred times": lambda env, task: "dispatch " * 100,
    "nothing": lambda env, task: "",
}


def _common() -> list[str]:
    counts = Counter(term for page in desk.shop.pages() for term in terms(page["text"]))
    return [term for term, _ in counts.most_common()]


@pytest.mark.parametrize("name", STUFFING)
def test_keyword_stuffing_in_rewrites_stays_under_the_floor(name: str, searches: envs.Env) -> None:
    assert earns(searches, lambda task: STUFFING[name](searches, task)) <= FLOOR


def test_the_right_words_earn_all(searches: envs.Env) -> None:
    def told(task: Task) -> str:
        reference = searches.reference(task)
        assert reference
        return reference[0]

    assert earns(searches, told) == 1.0


def test_retrieval_finds_nothing_by_no_word() -> None:
    library = Library({"a": "red boats", "b": "blue boats"})
    assert library.find("", 5) == library.find("zebra", 5) == []
    assert library.find("boats", 5) == ["a", "b"]
    assert library.find("blue blue boats", 1) == ["b"]
    assert library.find("red blue blue blue", 2) == library.find("red blue", 2) == ["a", "b"]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(
    "one", [*desk.shop.DESKS, "shipping, returns", "shipping or returns", "", "I don't know."]
)
def test_one_label_for_all_stays_under_the_floor(one: str, split: Split, intents: envs.Env) -> None:
    assert earns(intents, constantly(one), 10_000, split) <= FLOOR


@pytest.mark.parametrize("split", SPLITS)
def test_the_stock_reply_stays_under_the_floor(split: Split, tmp_path: Path) -> None:
    outcomes = envs.make(str(desk.outcome(tmp_path)))
    stock = Counter(outcomes.tasks.get(i).answer for i in outcomes.tasks.ids("train")).most_common(3)
    for reply, _ in stock:
        assert earns(outcomes, constantly(reply), 10_000, split) <= FLOOR


def test_a_guess_costs_where_it_is_wrong_what_it_earns_where_it_is_right() -> None:
    def correction(*rewards: dict[str, float], split: Split = "train") -> ChanceCorrection:
        tasks = [Task(id=str(i), prompt="", split=split) for i in range(len(rewards))]
        return ChanceCorrection(tasks, lambda task: rewards[int(task.id)])

    chance = correction({"a": 1.0}, {"a": 0.5, "b": 1.0}, {"b": 1.0}, {"c": 1.0}, {})
    assert chance.penalty("a", TASK) == pytest.approx(1.5 / 3)
    assert chance.penalty("b", TASK) == pytest.approx(2 / 3)
    assert chance.penalty("c", TASK) == 1 / 4
    assert chance.penalty("never right", TASK) == ChanceCorrection().penalty("a", TASK) == 0.0
    assert correction({"a": 1.0}, {"a": 1.0}).penalty("a", TASK) == 1.0
    assert correction({"a": 1.0}, {"a": 1.0}, {}).penalty("a", TASK) == 1.0
    assert correction({"a": 1.0}, {}, split="eval").penalty("a", TASK) == 0.0


def value(reward: RewardFunction, completion: str, answer: Any = None, **info: Any) -> Any:
    given = {"completion": completion, "answer": answer, "info": info, "task": TASK}
    wanted = reward.__code__.co_varnames[: reward.__code__.co_argcount]
    return reward(**{name: given[name] for name in wanted})


def test_costs_are_taken_off_and_never_paid() -> None:
    reward = label(["fraud", "refund", "other"], costs={"fraud": {"other": 9.0}, "refund": {"other": 0.5}})
    for true, given, worth, cost in (
        ("fraud", "fraud", 1.0, 0.0),
        ("fraud", "refund", -0.5 / 9, 1.0),
        ("fraud", "other", -8.5 / 9, 9.0),
        ("fraud", "gibberish", -8.5 / 9, 9.0),
        ("refund", "other", 0.0, 0.5),
        ("other", "fraud or other", -0.5 / 9, 1.0),
    ):
        score = value(reward, given, true)
        assert score.value == pytest.approx(worth)
        assert score.parts["error_cost"] == cost
    assert value(reward, "x", "unknown").value is None


def test_fields_pay_for_what_is_filled_and_right() -> None:
    reward = fields(desk.SCHEMA, weights={"to.city": 2.0})
    answer = {"item": "lamp", "count": 2, "gift": None, "to": {"city": "Graz"}}
    for reply, worth in (
        ('{"item": "lamp", "count": 2, "to": {"city": "Graz"}}', 1.0),
        ('{"item": "lamp", "count": 2, "gift": null, "to": {"city": "Graz"}}', 1.0),
        ('{"item": "lamp", "count": 2, "to": {"city": "Lund"}}', 0.5),
        ('{"item": "lamp", "count": 2, "gift": true, "to": {"city": "Graz"}}', 0.8),
        ('{"item": "lamp", "count": 3}', 0.25),
        ('{"item": "lamp", "count": "2", "to": {"city": "Graz"}}', 0.0),
        ('{"item": "lamp", "count": 2, "note": "x", "to": {"city": "Graz"}}', 0.0),
        ("[]", 0.0),
        ("lamp", 0.0),
    ):
        assert value(reward, reply, answer).value == pytest.approx(worth), reply
    assert value(reward, '{"item": "", "count": 0}', {"gift": None}).value == 0.0


def test_near_replies_are_paid_only_beyond_what_all_replies_share() -> None:
    reward = accepted(match="near")
    good = "Dear customer, we refund your lamp with 25 euros this week"
    bad = "Dear customer, we do not refund your lamp this week"
    info: dict[str, Any] = {"accepted": {good: 1.0}, "rejected": [bad]}
    assert value(reward, good, **info).value == 1.0
    assert 0 < value(reward, good.replace("Dear customer", "Hello there"), **info).value < 1
    assert value(reward, good.replace("25", "26"), **info).value == 0.0
    assert value(reward, "Dear customer, we like your lamp", **info).value == 0.0
    assert value(reward, bad, **info).value == 0.0
    assert value(reward, good * 50, **info).value == 0.0
    assert value(reward, "x", accepted={}).value is None
