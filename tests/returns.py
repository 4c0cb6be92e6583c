"""What many trainings of the tests start from: the returns environment, a suite of it, and a small model that
has seen its answers for a moment."""

from pathlib import Path

import torch

from vertigym import envs
from vertigym.core.config import parse
from vertigym.core.files import read_jsonl, write_jsonl
from vertigym.learner.clock import repeatable
from vertigym.policies.scripted import reference_text
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import train

ENV = "vertigym/Returns-v0"
SIZE = {"hidden": 32, "layers": 2, "heads": 2, "key_heads": 2, "ffn": 48}
SHORT = "[sampling]\nmax_tokens = 24\n"
IMPROVES = '[[gate]]\nrule = "improves"\n'


def suite(tasks: int, *tables: str) -> str:
    head = f'name = "returns"\nmetrics = ["exact"]\n[[env]]\nid = "{ENV}"\nsplit = "eval"\ntasks = {tasks}\n'
    return head + "".join(tables)


def warm(
    folder: Path,
    *,
    env: str = ENV,
    tasks: int | None = None,
    steps: int = 40,
    batch: int = 32,
    name: str = "warm",
) -> Path:
    """A model that earns something now and then; `folder/rows.jsonl` is what it has imitated."""
    torch.set_num_threads(1)
    known = envs.make(env).tasks
    shown = [known.get(i) for i in known.ids("train")][:tasks]
    rows = [[*task.messages(), {"role": "assistant", "content": reference_text(task)}] for task in shown]
    write_jsonl(folder / "rows.jsonl", ({"messages": messages} for messages in rows))
    table = {
        "name": name, "env": env, "model": "tiny", "algorithm": "sft", "steps": steps, "output": str(folder),
        "tiny": SIZE, "sft": {"data": str(folder / "rows.jsonl"), "batch": batch},
        "optimizer": {"lr": 1e-2, "schedule": "cosine"},
    }  # fmt: skip
    return train(parse(RunConfig, table, source="test")).last


def rows(run: Path) -> list[dict[str, float]]:
    """The metrics of every step, without what a clock says."""
    return [repeatable(row) for row in read_jsonl(run / "metrics.jsonl")]
