"""From another vendor's log to a model that the gate promotes."""

import json
from pathlib import Path
from typing import Any

import pytest

from vertigym import envs
from vertigym.core.types import SPLITS

from .trace_imports import ask, run, write

# -- the card, and the way to an environment


def anthropic_call(number: int, label: str) -> dict[str, Any]:
    content = [{"type": "text", "text": label}]
    return {
        "request": {
            "model": "large",
            "max_tokens": 9,
            "system": "Sort.",
            "metadata": {"user_id": f"u{number % 40}"},
            "messages": [{"role": "user", "content": ask(number)}],
        },
        "response": {
            "id": f"m{number}",
            "type": "message",
            "role": "assistant",
            "content": content,
            "stop_reason": "end_turn",
        },
        "feedback": {"thumb": "up"},
    }


def otlp_call(number: int, label: str) -> dict[str, Any]:
    has = {
        "gen_ai.operation.name": "chat",
        "user.id": f"u{number % 40}",
        "gen_ai.input.messages": json.dumps(
            [{"role": "user", "parts": [{"type": "text", "content": ask(number)}]}]
        ),
        "gen_ai.output.messages": json.dumps(
            [{"role": "assistant", "parts": [{"type": "text", "content": label}]}]
        ),
    }
    attributes = [{"key": key, "value": {"stringValue": value}} for key, value in has.items()]
    span = {"spanId": f"s{number}", "attributes": attributes}
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


@pytest.mark.parametrize("form", [anthropic_call, otlp_call])
def test_a_log_of_another_vendor_becomes_an_environment(form: Any, tmp_path: Path) -> None:
    labels = ("shipping", "returns", "refunds")
    file = write(tmp_path / "log.jsonl", [form(i, labels[i % 3]) for i in range(300)])
    run([file], tmp_path / "traces", split={"by": "customer"})
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "env.toml").write_text(
        'id = "desk/Intent-v0"\nkind = "classify"\nlabel = "completion"\ntraces = "../traces"\n'
    )
    env = envs.make(str(tmp_path / "env"))
    names = {split: env.tasks.ids(split) for split in SPLITS}
    assert all(names.values())
    assert sum(map(len, names.values())) == 300
    first = env.tasks.get(names["test"][0])
    env.reset(seed=0, options={"task": first.id})
    *_, info = env.step(first.answer)
    assert info["score"].value == 1
