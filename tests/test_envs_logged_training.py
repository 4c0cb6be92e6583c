"""Training on traces as they are: what was answered is imitated, as a warm start."""

from pathlib import Path
from typing import Any

import pytest

from vertigym.core.config import parse
from vertigym.core.errors import DataError
from vertigym.core.files import read_jsonl
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import train
from vertigym.trainer.sft import chat

from . import desk


def test_a_trace_is_a_chat_to_imitate() -> None:
    asked = {"role": "user", "content": "q"}
    answered = {"role": "assistant", "content": "a"}
    assert chat({"id": "1", "messages": [asked], "completion": "a"}, "f:1") == [asked, answered]
    assert chat({"messages": [asked, answered]}, "f:1") == [asked, answered]
    wrong: list[Any] = [{"messages": [asked]}, {"completion": "a"}, [], {"messages": "x"}]
    for row in wrong:
        with pytest.raises(DataError, match="f:1: a row is"):
            chat(row, "f:1")


def test_a_warm_start_reads_the_imported_traces(tmp_path: Path) -> None:
    folder = desk.intent(tmp_path / "env", 100)
    config = {
        "name": "warm",
        "env": str(folder),
        "model": "tiny",
        "algorithm": "sft",
        "steps": 2,
        "output": str(tmp_path),
        "threads": 1,
        "tiny": {"hidden": 16, "layers": 1, "ffn": 16, "heads": 2, "key_heads": 2},
        "sft": {"data": str(folder / "train.jsonl"), "batch": 4},
    }
    outcome = train(parse(RunConfig, config, source="test"))
    assert [row["step"] for row in read_jsonl(outcome.run.folder / "metrics.jsonl")] == [1, 2]
