"""Our evals as Inspect logs (`.eval`), one an environment, that `inspect view` and Inspect's own reader open.

A log is a ZIP of `header.json`, `_journal/start.json`, `summaries.json` and `samples/ID_epoch_N.json`. A
sample's only score is `score`; its parts and evidence are the score's metadata. *Not scored* is NaN,
Inspect's own sign, with the reason as explanation. The cluster is metadata, and the standard error is
Inspect's `stderr(cluster="cluster")`. What Inspect has no field for (weight, ranges) is in the log's metadata
under `vertigym`; with it `vertigym compare` finds on two logs what it finds on the two reports.
"""

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from vertigym.core.files import jsonable, write_bytes
from vertigym.core.types import Message, Task
from vertigym.evals.metrics import Row
from vertigym.evals.report import Report
from vertigym.evals.sample_records import SampleRecord, read_samples
from vertigym.evals.suite import Suite, task_list
from vertigym.interop import OURS
from vertigym.interop.inspect_logs import VERSION
from vertigym.interop.played_episode import target_text

STOPS = {"stop": "stop", "length": "max_tokens"}


def write_inspect_logs(folder: Path, suite: Suite, report: Report, samples: Path) -> list[Path]:
    """The files written, one an environment, of a report and the `samples.jsonl` that it was made of.

    Raises:
        OutputError: a file cannot be written. DataError: the samples are not there.
    """
    tasks = {(listed.env, listed.task.id): listed.task for listed in task_list(suite).tasks}
    _, records = read_samples(samples)
    labels = dict.fromkeys(row.env for row in report.rows)
    return [_write(folder, report, env, [r for r in records if r.env == env], tasks) for env in labels]


def _write(
    folder: Path,
    report: Report,
    env: str,
    records: Sequence[SampleRecord],
    tasks: Mapping[tuple[str, str], Task],
) -> Path:
    rows = {row.task: row for row in report.rows if row.env == env}
    name = re.sub(r"[^\w.-]+", "-", env)
    header = _header(report, env, list(rows.values()))
    samples = [_sample(record, rows[record.task], tasks[record.env, record.task], report) for record in records]
    summaries = [
        {key: sample[key] for key in ("id", "epoch", "input", "target", "metadata", "scores", "model_usage")}
        | {"completed": True, "total_time": sample["total_time"], "uuid": sample["uuid"]}
        for sample in samples
    ]
    start = {key: header[key] for key in ("version", "eval", "plan")}
    path = folder / f"{report.started.replace(':', '-')}_{name}_{report.suite_hash}.eval"
    held = BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as log:
        log.writestr("_journal/start.json", _json(start))
        for sample in samples:
            log.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", _json(sample))
        log.writestr("summaries.json", _json(summaries))
        log.writestr("header.json", _json(header))
    write_bytes(path, held.getvalue())
    return path


def _header(report: Report, env: str, rows: Sequence[Row]) -> dict[str, Any]:
    found = report.metrics["score"][env]
    samples = sum(len(row.scores) for row in rows)
    unscored = samples - sum(len(row.scored) for row in rows)
    metrics = {"mean": found.mean, "stderr": found.se}
    score = {
        "name": "score",
        "scorer": "score",
        "params": {},
        "scored_samples": samples - unscored,
        "unscored_samples": unscored,
        "metrics": {
            name: {"name": name, "value": value} for name, value in metrics.items() if value is not None
        },
    }
    ours = {
        "suite": report.suite,
        "suite_hash": report.suite_hash,
        "seed": report.seed,
        "ranges": report.ranges,
    }
    spec = {
        "created": report.started,
        "task": env,
        "task_id": f"{report.suite_hash}-{re.sub(r'[^A-Za-z0-9]', '-', env)}",
        "run_id": report.suite_hash,
        "eval_id": report.suite_hash,
        "dataset": {
            "name": env,
            "samples": len(rows),
            "sample_ids": [row.task for row in rows],
            "shuffled": False,
        },
        "model": report.model,
        "config": {"epochs": max(len(row.scores) for row in rows), "epochs_reducer": ["mean"]},
        "packages": report.versions,
        "scorers": [{"name": "score", "options": {}, "metrics": _metrics()}],
        "metadata": {OURS: {**ours, "weight": sum(row.weight for row in rows)}},
    }
    return {
        "version": VERSION,
        "status": "success",
        "eval": spec,
        "plan": {"name": "plan", "steps": [{"solver": "vertigym", "params": {}, "params_passed": {}}]},
        "results": {"total_samples": samples, "completed_samples": samples, "scores": [score]},
        "stats": {"started_at": report.started, "completed_at": report.started},
    }


def _metrics() -> list[dict[str, Any]]:
    return [
        {"name": "inspect_ai/mean", "options": {}},
        {"name": "inspect_ai/stderr", "options": {"cluster": "cluster"}},
    ]


def _sample(record: SampleRecord, row: Row, task: Task, report: Report) -> dict[str, Any]:
    messages = [_message(message) for message in record.messages]
    opening = messages[: _opening(record)]
    usage = {
        "input_tokens": record.prompt_tokens,
        "output_tokens": record.completion_tokens,
        "total_tokens": record.prompt_tokens + record.completion_tokens,
    }
    score = {
        "value": float("nan") if record.score is None else record.score,
        "answer": record.actions[-1] if record.actions else None,
        "explanation": record.reason or None,
        "metadata": {"parts": dict(record.parts), "evidence": jsonable(record.evidence)},
    } | ({"reason": "scoring_failed"} if record.score is None else {})
    last = messages[-1] if messages and messages[-1]["role"] == "assistant" else _message_of("")
    choice = {"message": last, "stop_reason": STOPS.get(record.stop_reason, "unknown")}
    return {
        "id": row.task,
        "epoch": record.sample + 1,
        "uuid": f"{report.suite_hash}-{record.seed:x}",
        "input": opening,
        "target": target_text(task),
        "messages": messages,
        "output": {"model": report.model, "choices": [choice], "usage": usage},
        "scores": {"score": score},
        "metadata": {"cluster": row.unit[1], "digest": row.digest, "slices": row.slices, "seed": record.seed},
        "model_usage": {report.model: usage},
        "total_time": record.latency_s,
        "events": [],
    }


def _opening(record: SampleRecord) -> int:
    """How many messages stood there before the policy wrote its first."""
    written = [i for i, message in enumerate(record.messages) if message["role"] == "assistant"]
    return written[len(written) - record.turns] if 0 < record.turns <= len(written) else len(record.messages)


def _message(message: Message) -> dict[str, Any]:
    """Ours in Inspect's form; a tool call as text stays text."""
    plain: dict[str, Any] = {"role": message["role"], "content": message["content"]}
    if message["role"] == "tool":
        plain |= {"tool_call_id": message.get("tool_call_id"), "function": message.get("name")}
    if calls := message.get("tool_calls"):
        plain["tool_calls"] = [_tool_call(call) for call in calls]
    return plain


def _message_of(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _tool_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function") or {}
    written = function.get("arguments") or {}
    try:
        arguments = json.loads(written) if isinstance(written, str) else written
    except ValueError:
        arguments = {"": written}
    return {"id": str(call.get("id", "")), "function": str(function.get("name", "")), "arguments": arguments}


def _json(value: Any) -> str:
    """JSON with NaN, as Inspect writes it. Half a surrogate pair, which it could not read, becomes a mark."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()
