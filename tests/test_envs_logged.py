"""Environments over traces: what becomes a task, what is left out and said, and that each passes the check."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vertigym import envs
from vertigym.core.errors import ConfigError, DataError
from vertigym.core.files import write_jsonl
from vertigym.envs.check import check
from vertigym.traces.preferences import accepted_reply, verdict
from vertigym.traces.records import Feedback, Trace

from . import desk

Build = Callable[..., Path]
KINDS: list[Build] = [desk.intent, desk.order, desk.search, desk.answer, desk.outcome]


@pytest.mark.parametrize("build", KINDS, ids=lambda build: build.__name__)
def test_every_kind_passes_the_environment_check(build: Build, tmp_path: Path) -> None:
    report = check(str(build(tmp_path)), tasks=40)
    assert report.passed(), [finding.message for finding in report.findings]


def rows(folder: Path, *given: dict[str, Any], toml: str, split: str = "train") -> Path:
    """A folder of traces, made from what is special about each."""
    usual = {"completion": "x", "messages": [{"role": "user", "content": "q"}]}
    listed = [usual | {"id": f"{split}{n}"} | row for n, row in enumerate(given)]
    write_jsonl(folder / f"{split}.jsonl", listed)
    (folder / "env.toml").write_text(toml)
    return folder


def asked(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], **more}


CLASSIFY = 'id = "t/T-v0"\nkind = "classify"\nmost = 1\n'


def test_labels_come_from_the_first_place_that_has_one(tmp_path: Path) -> None:
    toml = CLASSIFY + 'label = ["feedback.edit", "label", "meta.team"]\n'
    given = [
        asked("1", label="a", feedback={"edit": "b"}),
        asked("2", label="a"),
        asked("3", meta={"team": "c"}),
        asked("4"),
    ]
    env = envs.make(str(rows(tmp_path, *given, toml=toml)))
    assert [env.tasks.get(i).answer for i in env.tasks.ids("train")] == ["b", "a", "c"]
    assert env.notes == ("1 trace left out: nothing at feedback.edit or label or meta.team",)


def test_what_fits_no_label_is_none_of_these_or_an_error(tmp_path: Path) -> None:
    given = [asked("1", label="a"), asked("2", label="b"), asked("3", label="odd")]
    folder = rows(tmp_path, *given, toml=CLASSIFY + 'labels = ["a", "b"]\n')
    with pytest.raises(DataError, match=r"trace train2 has the label 'odd'.*none of these"):
        envs.make(str(folder))
    env = envs.make(str(folder), none="none of these")
    assert env.tasks.get("train2").answer == "none of these"
    _, info = env.reset(options={"task": "train2"})
    assert info["messages"][0]["content"] == "Answer with one of: a, b, none of these."


def test_the_new_verifiers_have_names_for_rows(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [{"question": "q", "answer": "a"}, {"question": "p", "answer": "b"}])
    toml = 'id = "t/T-v0"\nkind = "rows"\n[files]\ntrain = "train.jsonl"\n[reward]\nname = "label"\n'
    (tmp_path / "env.toml").write_text(toml + 'labels = ["a", "b"]\n')
    env = envs.make(str(tmp_path))
    env.reset(options={"task": "train-1"})
    assert env.step("A.")[1] == 1.0


def test_an_input_is_one_task_and_held_out_before_it_is_trained_on(tmp_path: Path) -> None:
    rows(tmp_path, asked("same", label="a"), asked("other", label="b"), toml=CLASSIFY)
    rows(tmp_path, asked("same", label="b"), split="test", toml=CLASSIFY)
    env = envs.make(str(tmp_path))
    assert [env.tasks.get(i).prompt[-1]["content"] for i in env.tasks.ids("train")] == ["other"]  # type: ignore[index]
    assert env.tasks.ids("test") == ["test0"]
    assert "1 trace left out: the same input again" in env.notes


def test_the_commonest_answer_is_thinned_and_that_is_said(tmp_path: Path) -> None:
    given = [asked(str(n), label="a" if n < 90 else "b") for n in range(100)]
    folder = rows(tmp_path, *given, toml=CLASSIFY)
    env = envs.make(str(folder), most=0.5)
    answers = [env.tasks.get(i).answer for i in env.tasks.ids("train")]
    assert (answers.count("a"), answers.count("b")) == (10, 10)
    assert env.notes == ("80 traces left out: their answer is that of more than 50% of train (most = 0.5)",)
    again = envs.make(str(folder), most=0.5)
    assert env.tasks.ids("train") == again.tasks.ids("train")


def test_logged_system_messages_stay_unless_replaced(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "old"}, {"role": "user", "content": "q"}]
    given = [{"messages": chat, "label": "a"}, asked("p", label="b")]
    folder = rows(tmp_path, *given, toml=CLASSIFY)
    assert envs.make(str(folder)).tasks.get("train0").messages()[0]["content"] == "old"
    assert envs.make(str(folder), system="new").tasks.get("train0").messages()[0]["content"] == "new"
    assert envs.make(str(folder), system="").tasks.get("train0").prompt == "q"


def test_logs_without_a_system_message_get_an_instruction_or_none(tmp_path: Path) -> None:
    chat = [{"role": "system", "content": "old"}, {"role": "user", "content": "q"}]
    folder = rows(tmp_path, {"messages": chat, "label": "a"}, asked("p", label="b"), toml=CLASSIFY)
    for how, first in [
        ({}, "Answer with one of"),
        ({"instruction": "new"}, "new"),
        ({"instruction": ""}, None),
    ]:
        tasks = envs.make(str(folder), **how).tasks
        assert tasks.get("train0").messages()[0]["content"] == "old"
        said = tasks.get("train1").messages()[0]["content"]
        assert said == "p" if first is None else said.startswith(first)


def test_extract_leaves_out_what_is_no_record(tmp_path: Path) -> None:
    folder = desk.order(tmp_path, 20)
    bad = [asked("x", label="not json"), asked("y", label='{"item": 3}'), asked("z")]
    rows(folder, *bad, split="eval", toml=desk.ORDER)
    env = envs.make(str(folder))
    assert set(env.notes) == {
        "1 trace left out: their answer is not JSON",
        "1 trace left out: their answer does not fit the schema",
        "1 trace left out: nothing at label",
    }
    assert not env.tasks.ids("eval")


def test_a_rewriter_has_only_queries_that_leave_something_to_gain(tmp_path: Path) -> None:
    folder = desk.search(tmp_path)
    headroom, everything = envs.make(str(folder)), envs.make(str(folder), everything=True)
    assert 0 < len(headroom.tasks.ids("test")) < len(everything.tasks.ids("test"))
    assert any("finds everything" in note for note in headroom.notes)
    for env, raw_pays in ((headroom, False), (everything, True)):
        scores = []
        for task_id in env.tasks.ids("test")[:40]:
            env.reset(options={"task": task_id})
            scores.append(env.step(env.task.info["query"])[1])
        assert (max(scores) > 0) == raw_pays


def test_relevant_documents_are_those_of_the_trace_unless_another_place_is_named(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "documents.jsonl", [{"id": f"d{n}", "text": f"word{n} thing"} for n in range(9)])
    shown = [{"id": "d3", "text": "word3 thing"}, {"id": "gone", "text": "x"}]
    given = [
        asked("what is that", documents=shown, meta={"helped": ["d4", "d5"]}),
        asked("what is this"),
    ]
    folder = rows(tmp_path, *given, toml='id = "t/T-v0"\nkind = "rewrite"\n')
    env = envs.make(str(folder))
    assert env.tasks.get("train0").info["relevant"] == ["d3"]
    assert env.notes == ("1 trace left out: none of their documents (at documents) is among documents.jsonl",)
    env = envs.make(str(folder), relevant="meta.helped")
    env.reset(options={"task": "train0"})
    assert env.step("word4")[1] == 0.5 * 0.5 + 0.5  # one of two found, in the first place
    write_jsonl(tmp_path / "documents.jsonl", [*({"id": f"d{n}", "text": "x"} for n in range(9)), shown[0]])
    with pytest.raises(DataError, match=r"documents.jsonl:10: the id 'd3' is there twice"):
        envs.make(str(folder))


def test_unanswerable_questions_ask_for_the_refusal(tmp_path: Path) -> None:
    shown = [{"id": "p1", "text": "The fee is 25 euros. Boats are blue and large."}]
    given = [
        asked("fee?", label="25 euros", documents=shown),
        asked("tax?", label="", documents=shown),
        asked("far?", label="77 miles", documents=shown),
        asked("none?", documents=shown),
        asked("bare?", label="25 euros"),
    ]
    env = envs.make(str(rows(tmp_path, *given, toml='id = "t/T-v0"\nkind = "cite"\nmost = 1\n')))
    assert env.tasks.get("train0").answer == "25 euros [p1]."
    assert env.tasks.get("train1").answer == "The documents do not say."
    assert "[p1] The fee is 25 euros." in env.tasks.get("train0").messages()[-1]["content"]
    assert set(env.notes) == {
        "1 trace left out: no passage holds the answer",
        "1 trace left out: nothing at label",
        "1 trace left out: they have no documents",
    }


@pytest.mark.parametrize(
    ("more", "says", "reply"),
    [
        ({"feedback": {"edit": "better"}}, False, "better"),
        ({"feedback": {"edit": "was"}}, True, "was"),
        ({"feedback": {"thumb": "up"}}, True, "was"),
        ({"feedback": {"thumb": "down"}}, False, None),
        ({"feedback": {"resolved": False, "thumb": "up"}}, False, None),
        ({"outcome": "reopened", "feedback": {"thumb": "up"}}, False, None),
        ({"outcome": "Resolved"}, True, "was"),
        ({"outcome": "sent"}, None, None),
        ({}, None, None),
    ],
)
def test_verdicts_of_people(more: dict[str, Any], says: bool | None, reply: str | None) -> None:
    trace = Trace.model_validate({"id": "t", **asked("q"), "completion": "was", **more})
    assert verdict(trace) is says
    assert accepted_reply(trace) == reply


def test_outcomes_of_one_input_are_put_together(tmp_path: Path) -> None:
    given = [
        asked("q", completion="yes", feedback={"thumb": "up"}),
        asked("q", completion="yes", feedback={"thumb": "down"}),
        asked("q", completion="no", feedback={"thumb": "down", "edit": "maybe"}),
        asked("p", completion="no", feedback={"thumb": "down"}),
        asked("o", completion="no"),
    ]
    env = envs.make(str(rows(tmp_path, *given, toml='id = "t/T-v0"\nkind = "outcome"\n')))
    task = env.tasks.get("train2")
    assert task.answer == "maybe"
    assert task.info["accepted"] == {"yes": 0.5, "maybe": 1.0}
    assert task.info["rejected"] == ["no"]
    for reply, worth in (("maybe", 1.0), ("Yes.", 0.5), ("no", 0.0), ("", 0.0)):
        env.reset(options={"task": "train2"})
        assert env.step(reply)[1] == worth
    assert Feedback.model_validate({"thumb": "up"}).edit is None


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (CLASSIFY + 'labls = ["a"]\n', "unknown key 'labls'; did you mean 'labels'"),
        (CLASSIFY + 'labels = ["a", "b"]\n[costs.a]\nc = 2.0\n', "costs: 'c' is not a label"),
        (CLASSIFY + 'labels = ["a", "b"]\n[costs.a]\nb = 0.0\n', "a cost is above 0"),
        ('id = "t/T-v0"\nkind = "rewrite"\nk = 0\n', "k: Input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_env_toml_is_one_line(toml: str, said: str, tmp_path: Path) -> None:
    folder = rows(tmp_path, asked("1", label="a"), asked("2", label="b"), toml=toml)
    with pytest.raises(ConfigError, match=said):
        envs.make(str(folder))


def test_no_traces_and_no_tasks_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "env.toml").write_text(CLASSIFY + 'labels = ["a", "b"]')
    with pytest.raises(DataError, match=r"no train.jsonl, eval.jsonl or test.jsonl there"):
        envs.make(str(tmp_path))
    rows(tmp_path, asked("1"), toml=CLASSIFY + 'labels = ["a", "b"]')
    with pytest.raises(DataError, match="no trace became a task: 1 trace left out: nothing at label"):
        envs.make(str(tmp_path))


def test_traces_may_lie_elsewhere_in_a_trusted_folder(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    rows(tmp_path / "logs", asked("1", label="a"), asked("2", label="b"), toml="")
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "env.toml").write_text(CLASSIFY + f"traces = {json.dumps('../logs')}\n")
    assert len(envs.make(f"{tmp_path / 'env'}?trust=true").tasks.ids("train")) == 2
