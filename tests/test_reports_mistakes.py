"""Kinds of mistakes, confusion tables, and a meaning for every metric."""

from typing import Any

import pytest

from vertigym.evals.metrics import Row
from vertigym.evals.report import Report, make_report
from vertigym.evals.suite import Suite
from vertigym.reports.before_after import answer_classes
from vertigym.reports.metric_meanings import MEANINGS, meaning
from vertigym.reports.mistakes import class_confusions, field_confusions, mistakes

from .surface import metrics


@pytest.mark.parametrize(
    ("score", "evidence", "kinds"),
    [
        (1.0, {"wrong": ["fee"]}, []),
        (None, {"reason": "lost"}, []),
        (0.3, {"wrong": ["fee", "desk"]}, ["wrong: fee", "wrong: desk"]),
        (0.0, {"reason": "Expecting value: line 1 column 9 (char 8)"}, ["no JSON that can be read"]),
        (0.0, {"label": ["bug", "question"]}, ["bug taken for question"]),
        (0.0, {"label": ["bug", ""]}, ["bug taken for (none)"]),
        (0.0, {"missed": ["x"], "damaged": ["y"]}, ["state missed", "state damaged"]),
        (0.0, {"read": "7", "verdict": "wrong"}, ["wrong"]),
        (0.0, {"label": "bug", "wrong": 3, "reason": "x" * 99}, ["x" * 60]),
        (0.0, {}, ["wrong"]),
    ],
)
def test_a_mistake_has_the_kind_that_its_verifier_says(score: Any, evidence: Any, kinds: list[str]) -> None:
    assert mistakes(score, evidence) == kinds


def classified(*labels: tuple[str, str]) -> Report:
    rows = [
        Row(
            env="desk", task=str(i), digest="", cluster="", weight=1, slices={}, scores=(1.0,), parts={},
            prompt_tokens=(1,), completion_tokens=(1,), latency_s=(0.0,), labels=(pair,),
        )
        for i, pair in enumerate(labels)
    ]  # fmt: skip
    suite = Suite.model_validate({"name": "s", "env": [{"id": "t/Desk-v0", "name": "desk"}]})
    return make_report(suite, "", rows, model="m", seed=0, started="")


def test_classes_are_counted_against_each_other() -> None:
    (table,) = class_confusions(
        classified(("a", "a"), ("a", "b"), ("b", "b"), ("b", ""), ("b", "zebra"), ("a", "b"))
    )
    assert table["right"] == ["a", "b"]
    assert table["columns"] == ["a", "b", "(none)", "zebra"]
    assert table["rows"] == [[1, 2, 0, 0], [0, 1, 1, 1]]
    many = [("a", f"x{i}") for i in range(20)]
    (table,) = class_confusions(classified(*many, ("b", "b")))
    assert table["columns"][-1] == "(other)"
    assert sum(map(sum, table["rows"])) == 21, "every answer is counted"
    assert class_confusions(classified()) == []


def test_fields_of_answers_with_few_right_values_are_classes() -> None:
    def said(ok: object, n: int) -> str:
        return f'{{"ok": {str(bool(ok)).lower()}, "n": {n}}}'

    answers = [answer_classes(said(i % 4 == 0, i), said(i % 2 == 0, i), 0.5) for i in range(40)]
    answers.append(answer_classes("I pass", said(True, 1), 0.0))
    answers.append(answer_classes("I think that it is", said(True, 1), 1.0))  # a verifier knows better
    answers.append(answer_classes(f"So: {said(False, 1)}.", said(True, 1), 0.5))
    (table,) = field_confusions(answers)
    assert (table["title"], table["right"], table["columns"]) == (
        "ok",
        ["false", "true"],
        ["false", "true", "(none)"],
    )
    assert table["rows"] == [[20, 0, 0], [11, 11, 1]]


def test_every_documented_metric_has_a_meaning() -> None:
    assert set(MEANINGS) == set(metrics())
    assert meaning("reward/exact") == MEANINGS["reward/PART"]
    assert meaning("mine") == ""
