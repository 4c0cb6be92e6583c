"""A checkpoint that improves on one suite by forgetting another is rejected, and the report says so first."""

from pathlib import Path
from typing import Any

import pytest
import torch

from vertigym import envs
from vertigym.core.config import parse
from vertigym.core.files import write_jsonl
from vertigym.policies.scripted import reference_text
from vertigym.reports.run_page import run_data
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import RunOutcome, train

EXAMPLES = Path(__file__).parents[1] / "examples" / "returns"


def rows(name: str) -> list[dict[str, Any]]:
    env = envs.make(name)
    tasks = [env.tasks.get(i) for i in env.tasks.ids("train")]
    return [
        {"messages": [*task.messages(), {"role": "assistant", "content": reference_text(task)}]}
        for task in tasks
    ]


def sft(folder: Path, name: str, **changes: Any) -> RunOutcome:
    table = {
        "name": name, "env": "vertigym/Returns-v0", "model": "tiny", "algorithm": "sft", "threads": 1,
        "output": str(folder), "optimizer": {"lr": 2e-3, "schedule": "cosine"},
    }  # fmt: skip
    return train(parse(RunConfig, table | changes, source="test"))


@pytest.mark.slow
def test_what_improves_by_forgetting_is_rejected_and_said_so_first(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    returns, credit = rows("vertigym/Returns-v0"), rows("vertigym/CreditLimit-v0")
    write_jsonl(tmp_path / "both.jsonl", [*returns[:300], *credit])
    write_jsonl(tmp_path / "returns.jsonl", returns)
    both = sft(tmp_path, "both", steps=160, sft={"data": str(tmp_path / "both.jsonl"), "batch": 32})
    suites = [str(EXAMPLES / name) for name in ("suite.toml", "credit.toml")]
    narrow = sft(
        tmp_path, "narrow", model=str(both.last), steps=60, optimizer={"lr": 1e-3},
        sft={"data": str(tmp_path / "returns.jsonl"), "batch": 32}, eval={"suites": suites, "every": 30},
    )  # fmt: skip
    first, last = narrow.evaluations[0].reports, narrow.evaluations[-1].reports
    gained, lost = (last[i].value("exact") - first[i].value("exact") for i in (0, 1))  # type: ignore[operator]
    assert gained > 0.1
    assert lost < -0.1
    assert narrow.promoted is None
    verdict = run_data(narrow.run.folder)["verdict"]
    assert "suite credit: not_worse(0.02) on exact against the start: worse" in str(verdict)
