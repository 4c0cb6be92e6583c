"""The decision verifier: strict equality, what the parts pay for, and hostile replies."""

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vertigym.envs.decision.builtin import RETURNS, folder_of
from vertigym.envs.decision.env import load
from vertigym.envs.folders import EnvFolder
from vertigym.rewards.decision import DecisionVerifier
from vertigym.rewards.replies import MAX_CHARS, json_in

verify = DecisionVerifier()
ANSWER = {"decision": "refund", "fee": 5, "ok": True, "notes": ["a", "b"], "to": {"desk": None, "rate": 0.25}}


def reply(**changes: Any) -> str:
    return json.dumps({**ANSWER, **changes})


def test_the_reference_scores_one_and_says_so_in_parts() -> None:
    score = verify(json.dumps(ANSWER), ANSWER)
    assert score.value == 1.0
    assert score.parts == {"parses": 1.0, "fields": 1.0, "exact": 1.0}


@pytest.mark.parametrize(
    "text", ["```json\n{}\n```", "Reasons.\n```\n{}\n```\nDone.", "<think>a {{</think>\n{}"]
)
def test_a_fence_or_thinking_may_stand_around_the_json(text: str) -> None:
    assert verify(text.replace("{}", json.dumps(ANSWER)), ANSWER).value == 1.0


def test_the_last_fence_counts() -> None:
    right, wrong = f"```json\n{reply()}\n```", f"```json\n{reply(fee=9)}\n```"
    assert verify(f"no:\n{wrong}\nyes:\n{right}", ANSWER).value == 1.0
    assert verify(f"yes:\n{right}\nno:\n{wrong}", ANSWER).parts["exact"] == 0.0


@pytest.mark.parametrize(
    ("got", "expected", "equal"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        (1, "1", False),
        (None, False, False),
        (None, 0, False),
        ("a", "A", False),
        (0.1 + 0.2, 0.3, True),
        (0.3000009, 0.3, True),
        (0.300002, 0.3, False),
        (1_000_000.5, 1_000_000, False),
        (10**15, 10**15 + 1, False),
        (1e15, 1e15 + 0.125, True),
        ([1, 2], [2, 1], False),
        ([1, 2], [1.0, 2.0], True),
        ([], {}, False),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ({"b": 1, "a": [{"c": 1}]}, {"a": [{"c": 1.0}], "b": 1}, True),
    ],
)
def test_equality_is_strict_but_for_the_tolerance(got: Any, expected: Any, equal: bool) -> None:
    assert verify.equal(got, expected) is equal


def test_a_missing_a_wrong_and_an_added_field_each_cost_a_share() -> None:
    assert verify(reply(fee=6), ANSWER).parts == {"parses": 1.0, "fields": 5 / 6, "exact": 0.0}
    assert verify(reply(extra=1), ANSWER).parts == {"parses": 0.0, "fields": 6 / 7, "exact": 0.0}
    without = {key: value for key, value in ANSWER.items() if key != "fee"}
    assert verify(json.dumps(without), ANSWER).parts == {"parses": 0.0, "fields": 5 / 6, "exact": 0.0}
    assert verify(reply(fee=6), ANSWER).evidence == {"wrong": ["fee"]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "{}",
        "[]",
        "null",
        "true",
        '"refund"',
        json.dumps([ANSWER]),
        json.dumps(dict.fromkeys(("decision", "fee", "ok", "notes"))),
        json.dumps({"score": 1.0, "exact": True, "correct": "yes"}),
        "I don't know.",
        '{"decision": ...}',
    ],
)
def test_degenerate_replies_earn_nothing(text: str) -> None:
    assert verify(text, ANSWER).value == 0.0


def test_an_empty_list_is_not_the_shape_of_a_list_that_is_asked_for() -> None:
    assert verify("[]", [{"discount": 5}]).value == 0.0


HOSTILE = {
    "huge": "x" * 10_000_000,
    "huge JSON": '{"decision": "' + "x" * 10_000_000 + '"}',
    "many fences": "```" * 30_000,
    "deep list": "[" * 100_000,
    "deep record": '{"a":' * 20_000,
    "deep and closed": "[" * 40_000 + "]" * 40_000,
    "deep inside a field": '{"fee": ' + "[" * 900 + "]" * 900 + "}",
    "NaN": '{"fee": NaN}',
    "infinity": '{"fee": -Infinity}',
    "overflow": '{"fee": 1e999}',
    "many digits": '{"fee": ' + "9" * 90_000 + "}",
    "a million digits": "9" * 10**6,
    "many decimals": '{"fee": 0.' + "7" * 90_000 + "}",
    "huge exponent": '{"fee": 1e' + "9" * 5_000 + "}",
    "NUL": '{"fee": "\x00"}',
    "NUL escaped": '{"fee\\u0000": 5}',
    "lone surrogate": '{"decision": "\ud800"}',
    "lone surrogate escaped": '{"\\ud800": "\\udfff"}',
    "key twice": '{"decision": "refund", "fee": 9, "fee": 5, "ok": true, "notes": ["a", "b"]}',
    "two values": '{"fee": 5} {"fee": 5}',
    "cut off": '{"decision": "refund", "fee"',
    "byte order mark": "\ufeff{}",
    "wrong types": '{"decision": ["refund"], "fee": "5", "ok": 1, "notes": "a", "to": []}',
    "many keys": json.dumps({f"k{i}": i for i in range(6_000)}),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_replies_score_zero_and_leave_evidence_that_can_be_written(text: str) -> None:
    score = verify(text, ANSWER)
    assert score.value == 0.0
    json.dumps([dict(score.parts), dict(score.evidence)], ensure_ascii=False, allow_nan=False).encode("utf-8")


@given(st.text())
def test_no_text_raises_or_earns(text: str) -> None:
    assert verify(text, ANSWER).value == 0.0


SCALARS = (
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(-1e6, 1e6) | st.text(max_size=8)
)
VALUES = st.recursive(
    SCALARS,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v, max_size=3),
    max_leaves=8,
)
RECORDS = st.dictionaries(st.text(max_size=5), VALUES, min_size=1, max_size=4)


@given(RECORDS)
@example({"": "</think>"})
@example({"</think>": "```"})
def test_every_answer_equals_its_own_json(answer: dict[str, Any]) -> None:
    assert verify(json.dumps(answer), answer).value == 1.0
    assert verify("It is so.</think>" + json.dumps(answer), answer).value == 1.0


@given(RECORDS, RECORDS)
def test_the_score_is_one_only_for_equal_records(one: dict[str, Any], other: dict[str, Any]) -> None:
    score = verify(json.dumps(one), other)
    assert score.value is not None
    assert 0.0 <= score.value <= 1.0
    assert (score.value == 1.0) == verify.equal(one, other)
    assert math.isclose(
        score.value, sum(w * score.parts[p] for p, w in (("parses", 0.1), ("fields", 0.3), ("exact", 0.6)))
    )


def test_what_is_too_long_is_refused_before_it_is_read() -> None:
    assert json_in(" " * (MAX_CHARS - 2) + "{}") == {}
    with pytest.raises(ValueError, match="longer than"):
        json_in(" " * MAX_CHARS + "{}")


def test_hostile_actions_end_an_episode_with_zero() -> None:
    env = load(EnvFolder(folder_of(RETURNS)))
    for text in HOSTILE.values():
        env.reset(seed=0)
        _, reward, terminated, truncated, info = env.step(text)
        assert (reward, terminated, truncated) == (0.0, True, False)
        assert info["score"].value == 0.0
