"""Imports of small logs, and what they leave."""

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

from vertigym.core.config import parse
from vertigym.envs.registry import held_out
from vertigym.tests.trace_words import DID, WHAT, WHERE, WHO
from vertigym.traces.config import ImportConfig
from vertigym.traces.import_report import TraceImportReport
from vertigym.traces.importer import import_traces
from vertigym.traces.records import Trace, read_traces

Place = tuple[str, int]


def run(files: list[Path], out: Path, **settings: Any) -> TraceImportReport:
    return import_traces(files, out, parse(ImportConfig, settings, source="test"), tasks_of=held_out)


def kept(out: Path) -> dict[str, list[Trace]]:
    return {split: list(read_traces(out / f"{split}.jsonl")) for split in ("train", "eval", "test")}


def places(file: Path) -> dict[str, set[Place]]:
    """Where the rows of a `dropped.jsonl` or `rejected.jsonl` stood, by step."""
    found: dict[str, set[Place]] = defaultdict(set)
    for row in map(json.loads, file.read_text().splitlines()):
        found[row.get("step", "")].add((Path(row["file"]).name, row["number"]))
    return found


def write(file: Path, rows: list[Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def ask(number: int) -> str:
    """A question that is like no other one."""
    dice = random.Random(number)
    return f"{dice.choice(WHO)} {dice.choice(DID)} {dice.choice(WHAT)} {dice.choice(WHERE)} {dice.getrandbits(60):x}"


def call(name: str, asked: str, answer: str = "ok", **more: Any) -> dict[str, Any]:
    return {"id": name, "messages": [{"role": "user", "content": asked}], "completion": answer, **more}
