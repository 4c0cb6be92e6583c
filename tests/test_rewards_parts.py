"""The ready-made verifiers, one by one."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertigym.core.errors import ConfigError, UnknownNameError
from vertigym.core.types import Task
from vertigym.rewards.answers import boxed, extractor, hashes, last_line, normalised, tagged
from vertigym.rewards.calling import RewardFunction
from vertigym.rewards.replies import strict_json
from vertigym.rewards.rubric import Rubric
from vertigym.rewards.structure import json_schema, length_penalty, repetition_penalty
from vertigym.rewards.text import choice, exact, matches, normalised_text, number, numeric


def value(function: RewardFunction, completion: str, answer: Any = None, **info: Any) -> float | None:
    return (
        Rubric(function)
        .score(task=Task(id="t", prompt="?", answer=answer, info=info), completion=completion)
        .value
    )


def test_extractors_find_the_last_place() -> None:
    assert hashes("a #### 1\nb #### 2\nc") == "2"
    assert hashes("#### ") is None
    assert boxed(r"\boxed{1} then \boxed{\frac{1}{2}}.") == r"\frac{1}{2}"
    assert boxed(r"\boxed{\{1\}}") == r"\{1\}"
    assert boxed(r"\boxed{{{1}") is None
    assert last_line("one\n two \n\n") == "two"
    assert last_line(" \n") is None
    assert tagged("answer")("<answer>1</answer> <answer>2</answer>") == "2"
    assert tagged("answer")("2</answer>") is None
    assert extractor("boxed or last line")("x\n7") == "7"
    with pytest.raises(UnknownNameError, match="place of the answer"):
        extractor("boxd")


@given(st.text())
def test_extractors_never_raise(text: str) -> None:
    for name in ("whole", "last line", "####", "boxed", "tag"):
        extractor(name)(text)
        extractor(name)("\\boxed{" + text)
    number(text)


def test_exact() -> None:
    assert value(exact(), " Yes\n", "Yes") == 1.0
    assert value(exact(), "yes", "Yes") == 0.0
    assert value(exact(), "1.0", 1) == 0.0
    assert value(exact(), "", "") == 0.0


def test_normalised_text() -> None:
    assert normalised("The  Eiffel-Tower!") == "eiffel tower"
    assert value(normalised_text(), "the Eiffel tower.", "Eiffel Tower") == 1.0
    assert value(normalised_text(), "Paris", ["NYC", "paris"]) == 1.0
    assert value(normalised_text(), "Paris or NYC", ["NYC", "paris"]) == 0.0
    assert value(normalised_text(), "?!", "...") == 0.0


@pytest.mark.parametrize(
    "reply", ["B", "(B)", "b.", "Answer: B", "The correct answer is B.", "**B**", "so…\nB"]
)
def test_choice_accepts_one_option(reply: str) -> None:
    assert value(choice("ABCD"), reply, "B") == 1.0
    assert value(choice(), reply, "B", options=["A", "B"]) == 1.0


@pytest.mark.parametrize("reply", ["", "A", "A B", "A, B, C, D", "B or C", "not B", "E", "the option", "AB"])
def test_choice_refuses_anything_else(reply: str) -> None:
    assert value(choice("ABCD"), reply, "B") == 0.0


def test_choice_with_a_reference_outside_the_options_is_not_scored() -> None:
    assert value(choice("ABCD"), "E", "E") is None


@pytest.mark.parametrize(
    ("text", "same"),
    [
        *[(text, 1) for text in ("42", "42.0", "$42", "+42", "84/2", "4.2e1", "42.00001", "42/1/1/1")],
        *[(text, 0) for text in ("42.1", "-42", "4 2", "42 43", "", "nan", "inf", "1/0", "4,2", "forty")],
        *[(text, 0) for text in ("9" * 5000, "1e9999", "1e99999999999")],
    ],
)
def test_numeric(text: str, same: float) -> None:
    assert value(numeric(), text, "42") == same


def test_numeric_reads_gsm8k_form_and_tells_large_numbers_apart() -> None:
    assert value(numeric(), "so 5 + 5\n#### 1,234", "1234") == 1.0
    assert value(numeric(relative=0), str(10**30), str(10**30 + 10**20)) == 0.0
    assert value(numeric(absolute=0.5, relative=0), "3.4", 3) == 1.0
    assert value(numeric(), "3", "three") is None


def test_matches() -> None:
    assert value(matches(r"\d{4}-\d{2}"), "2024-01") == 1.0
    assert value(matches(r"\d{4}-\d{2}"), "on 2024-01") == 0.0
    assert value(matches(), "abc", "a.c") == 1.0
    assert value(matches(), "abc", "a(") is None
    with pytest.raises(ConfigError, match="missing"):
        matches("a(")


def test_a_runaway_match_is_not_scored() -> None:
    assert value(matches(r"(a|a?)+$", limit_s=0.05), "a" * 40 + "b") in (0.0, None)
    assert value(matches(r"(x+x+)+y", limit_s=0.05), "x" * 4000) in (0.0, None)


SCHEMA = {
    "type": "object",
    "properties": {"fee": {"type": "integer"}},
    "required": ["fee"],
    "additionalProperties": False,
}


def test_json_schema() -> None:
    assert value(json_schema(SCHEMA), '{"fee": 5}') == 1.0
    for wrong in ('{"fee": "5"}', '{"fee": 5, "x": 1}', "{}", "", "{'fee': 5}", '{"fee": 5} ok', "[" * 50_000):
        assert value(json_schema(SCHEMA), wrong) == 0.0
    with pytest.raises(ConfigError, match="not a JSON schema"):
        json_schema({"type": "objekt"})


@pytest.mark.parametrize("text", ['{"a": 1, "a": 2}', "NaN", "[Infinity]", "1" * 200_000, "[" * 90_000])
def test_strict_json_refuses(text: str) -> None:
    with pytest.raises(ValueError):
        strict_json(text)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda kids: st.lists(kids)))
def test_strict_json_reads_what_json_writes(content: Any) -> None:
    assert strict_json(json.dumps(content)) == content


def test_length_penalty_falls_in_a_line() -> None:
    penalty = length_penalty(2, 4)
    assert [value(penalty, " ".join("x" * n)) for n in (1, 2, 3, 4, 9)] == [0, 0, -0.5, -1, -1]
    assert value(length_penalty(0, 10, unit="characters"), "12345") == -0.5
    with pytest.raises(ConfigError, match="free = 5"):
        length_penalty(5, 5)
    with pytest.raises(ConfigError, match="unit"):
        length_penalty(1, 5, unit="tokens")


def test_repetition_penalty_is_the_share_of_repeated_runs() -> None:
    assert value(repetition_penalty(2), "a b c d") == 0.0
    assert value(repetition_penalty(2), "a b a b") == pytest.approx(-1 / 3)  # ab, ba, ab
    assert value(repetition_penalty(1), "a a a a") == -0.75
    with pytest.raises(ConfigError):
        repetition_penalty(0)
