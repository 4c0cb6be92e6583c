"""The whole loop. Over real HTTP: a served model's calls and feedback train the next one, which is promoted and
served; a server killed in mid-write loses no call that it answered. And from the logs of other vendors' programs,
as their own SDKs write them."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vertigym.core.files import read_json, read_jsonl, write_jsonl
from vertigym.core.types import SPLITS
from vertigym.tests.trace_observers import spans
from vertigym.traces.config import ImportConfig
from vertigym.traces.importer import import_traces

EXAMPLES = Path(__file__).parents[1] / "examples"
EXAMPLE = EXAMPLES / "loop" / "loop.py"


@pytest.mark.slow(first=True)
def test_the_second_model_is_promoted_on_feedback_to_the_first(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(EXAMPLE)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (float(share) for share in re.findall(r"was right in ([\d.]+)% of", done.stdout))
    assert second > first + 10
    assert done.stdout.count(" 0 of them are lost") == 2
    run = tmp_path / "runs" / "loop"
    assert "promoted" in [row["verdict"] for row in read_jsonl(run / "grpo" / "gates.jsonl")]
    versions = [
        {row["version"] for row in read_jsonl(run / name / "calls.jsonl", torn_tail=True) if "messages" in row}
        for name in ("round-1", "round-2")
    ]
    assert [len(one) for one in versions] == [1, 1]
    assert versions[0] != versions[1]


SYSTEM = "You name the desk that a message is for."


def anthropic_log(calls: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Requests and responses, each with what people said of it."""
    from anthropic.types import Message

    for call in calls:
        content = [{"type": "text", "text": call["completion"]}]
        usage = {"input_tokens": 9, "output_tokens": 1}
        told = Message.model_validate(
            {"id": f"msg_{call['id']}", "type": "message", "role": "assistant", "model": "large", "content": content,
             "stop_reason": "end_turn", "usage": usage}
        )  # fmt: skip
        request = {"model": "large", "max_tokens": 9, "metadata": {"user_id": call["customer"]}}
        request |= {"system": SYSTEM, "messages": call["messages"]}
        yield {"request": request, "response": told.model_dump(mode="json"), "feedback": call["feedback"]}


def otlp_log(calls: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Spans as OTLP's JSON; feedback on lines of its own, by the id of the response."""
    from google.protobuf.json_format import MessageToDict
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    def parts(role: str, text: str) -> dict[str, Any]:
        return {"role": role, "parts": [{"type": "text", "content": text}]}

    for call in calls:
        has = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "large",
            "gen_ai.response.id": call["id"],
            "user.id": call["customer"],
            "gen_ai.system_instructions": json.dumps(parts("system", SYSTEM)["parts"]),
            "gen_ai.input.messages": json.dumps([parts(m["role"], m["content"]) for m in call["messages"]]),
            "gen_ai.output.messages": json.dumps([parts("assistant", call["completion"])]),
        }
        yield MessageToDict(encode_spans(spans(has)))
        yield {"id": call["id"], "feedback": call["feedback"]}


TRAINED_ON = ("messages", "completion", "customer", "feedback")


@pytest.mark.slow(first=True)
def test_the_logs_of_other_vendors_train_a_model_that_ships(tmp_path: Path) -> None:
    """From Anthropic's; of OTLP's the same rows are made, and rows are all that training reads."""
    pytest.importorskip("anthropic")
    pytest.importorskip("opentelemetry.exporter.otlp.proto.common")
    program = "import json, desk; print(json.dumps(list(desk.intents(2000))))"
    made = subprocess.run(
        [sys.executable, "-c", program], cwd=EXAMPLES / "desk", capture_output=True, text=True, check=True
    )
    calls = json.loads(made.stdout)
    for form in (anthropic_log, otlp_log):
        write_jsonl(tmp_path / f"{form.__name__}.jsonl", form(calls))
    command = [sys.executable, str(EXAMPLES / "loop" / "from_log.py"), str(tmp_path / "anthropic_log.jsonl")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "promoted: runs/loop/grpo/checkpoints/" in done.stdout
    gates = read_jsonl(tmp_path / "runs/loop/grpo/gates.jsonl")
    assert "promoted" in [row["verdict"] for row in gates]

    trained, other = tmp_path / "runs/loop/round-1/traces", tmp_path / "other"
    import_traces([tmp_path / "otlp_log.jsonl"], other, ImportConfig())
    for traces in (trained, other):
        report = read_json(traces / "report.json")
        said = {"customer": report["said"]["customer"], "feedback": report["said"]["feedback"]}
        kept = sum(part["rows"] for part in report["splits"].values())
        assert said == {"customer": kept, "feedback": kept}
        assert report["steps"][0]["rows_out"] == len(calls)
    for split in SPLITS:
        asked = [row["messages"] for row in read_jsonl(trained / f"{split}.jsonl")]
        assert {(said[0]["role"], said[0]["content"]) for said in asked} == {("system", SYSTEM)}
        rows = [
            [{key: row[key] for key in TRAINED_ON} for row in read_jsonl(traces / f"{split}.jsonl")]
            for traces in (trained, other)
        ]
        assert rows[0] == rows[1]
