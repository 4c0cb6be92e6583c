"""Which of two answers was better, out of what people did with them."""

from pathlib import Path
from typing import Any

import pytest

from vertigym.core.errors import DataError
from vertigym.core.files import read_jsonl, write_jsonl
from vertigym.traces.config import ImportConfig
from vertigym.traces.importer import import_traces
from vertigym.traces.preferences import preferences, write_pairs
from vertigym.traces.records import Trace

from .conftest import CommandLine


def call(completion: str, asked: str = "Where is it?", **more: Any) -> Trace:
    row = {"id": f"{asked}-{completion}", "messages": [{"role": "user", "content": asked}]}
    return Trace.model_validate({**row, "completion": completion, **more})


def up(completion: str, **more: Any) -> Trace:
    return call(completion, feedback={"thumb": "up"}, **more)


def down(completion: str, **more: Any) -> Trace:
    return call(completion, feedback={"thumb": "down"}, **more)


def said(*traces: Trace) -> list[tuple[str, str, str]]:
    return [(one.chosen, one.rejected, one.evidence) for one in preferences(traces)[0]]


def test_an_edit_is_better_than_what_it_was_made_of() -> None:
    assert said(call("a", feedback={"edit": "b"})) == [("b", "a", "edit")]
    assert said(call("a", feedback={"edit": " a "})) == []


def test_an_accepted_answer_is_better_than_each_refused_one() -> None:
    found = said(up("a"), down("x"), down("y"), down("z"), call("b", outcome="resolved"))
    assert found == [("a", "x", "verdict"), ("b", "y", "verdict"), ("a", "z", "verdict")]
    assert said(up("a"), down("x", asked="another")) == []
    assert said(up("a"), call("x")) == []


def test_of_answers_tried_again_the_last_one_is_better() -> None:
    tried = [call(text, session="s", time=at) for text, at in (("c", 3), ("a", 1), ("b", 2))]
    assert said(*tried) == [("c", "a", "retry"), ("c", "b", "retry")]
    assert said(*(one.model_copy(update={"session": one.completion}) for one in tried)) == []
    assert said(*(one.model_copy(update={"time": None}) for one in tried)) == []
    refused = down("c", session="s", time=3)
    assert said(tried[1], refused) == []


def test_evidence_that_others_contradict_says_nothing() -> None:
    found, contradicted = preferences([call("a", feedback={"edit": "b"}), call("b", feedback={"edit": "a"})])
    assert (found, contradicted) == ([], 2)


def test_a_pair_is_there_once_with_its_strongest_evidence() -> None:
    edited = call("a", feedback={"edit": "b"}, session="s", time=1)
    assert said(edited, edited, up("b", session="s", time=2)) == [("b", "a", "edit")]


def test_an_import_becomes_pairs_split_by_split(tmp_path: Path, command: CommandLine) -> None:
    log = tmp_path / "log.jsonl"
    write_jsonl(
        log,
        [
            {
                "id": str(n),
                "messages": [{"role": "user", "content": f"What is rule {n * 7919}?"}],
                "completion": f"It is {n}.",
                "feedback": {"edit": f"Rule {n * 7919} says {n}."},
            }
            for n in range(60)
        ],
    )
    import_traces([log], tmp_path / "logs", ImportConfig())
    done = command("traces", "pairs", tmp_path / "logs", "-o", tmp_path / "pairs")
    assert done.code == 0, done.err
    assert f"{tmp_path / 'pairs'}: " in done.out
    counts = {split: len(read_jsonl(tmp_path / f"pairs/{split}.jsonl")) for split in ("train", "eval", "test")}
    assert sum(counts.values()) == 60
    for split, count in counts.items():
        assert len(read_jsonl(tmp_path / f"logs/{split}.jsonl")) == count


def test_what_says_nothing_of_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not an import of traces"):
        write_pairs(tmp_path, tmp_path / "pairs")
    log = tmp_path / "log.jsonl"
    write_jsonl(log, [{"id": "1", "messages": [{"role": "user", "content": "a"}], "completion": "b"}])
    import_traces([log], tmp_path / "logs", ImportConfig())
    with pytest.raises(DataError, match="no call was edited"):
        write_pairs(tmp_path / "logs", tmp_path / "pairs")
    assert not (tmp_path / "pairs").exists()
