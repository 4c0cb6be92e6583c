"""Programs that nobody here wrote train, unchanged: every trained token is the engine's own, and a run that was
killed at work and resumed is the undisturbed one to the bit."""

import json
import os
import signal
import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from vertigym.core.config import load, parse
from vertigym.core.files import read_jsonl, sha256, write_jsonl
from vertigym.policies.engine import GenerationRequest
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import train

from .foreign_programs import PROGRAMS
from .programs import Recording, play, program
from .returns import SIZE, rows

TASKS = [{"id": f"t{n}", "question": f"say {n}", "answer": str(n)} for n in range(3)]
# A reward of one's own, so that the samples of a group hardly ever earn the same.
NEARNESS = """
import re

def near(completion, answer):
    said = re.search("[0-9]+", completion)
    return 1 / (1 + abs(int(said[0]) - int(answer))) if said else 0.0
"""

# Trains, and ends itself without a word while programs wait for the first answers of step 2.
KILLED = """
import os, signal, sys
from pathlib import Path
from vertigym.core.config import load
from vertigym.policies.running_batch import RunningBatch
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import train

config, collect = load(RunConfig, Path(sys.argv[1])), RunningBatch.collect

def deadly(self):
    if (Path(config.output) / "grpo" / "checkpoints" / "step-000001").exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return collect(self)

RunningBatch.collect = deadly
train(config)
"""


def warm_start(name: str, env: str, folder: Path) -> Path:
    """A model that has seen the program's chats, with any answer to any question."""
    foreign = PROGRAMS[name]
    policy = Recording(*foreign.replies)
    (played,) = play(env, policy)
    assert played.score.value == 1.0, played.score
    asked = [list(prompt.messages) for prompt in policy.prompts]
    chats = [
        [*chat, {"role": "assistant", "content": reply}]
        for chat, reply in zip(asked, foreign.replies, strict=True)
        if not any(len(other) > len(chat) and other[: len(chat)] == chat for other in asked)
    ]
    shown = [_shown(chat, question, said) for question in "012" for said in "0123456789" for chat in chats]
    write_jsonl(folder / "rows.jsonl", ({"messages": chat} for chat in shown))
    table = {
        "name": "sft", "env": env, "model": "tiny", "algorithm": "sft", "steps": 60, "output": str(folder),
        "tiny": {**SIZE, "context": 4096}, "sft": {"data": str(folder / "rows.jsonl"), "batch": 8},
        "optimizer": {"lr": 1e-2, "schedule": "cosine"}, "threads": 1,
    }  # fmt: skip
    return train(parse(RunConfig, table, source="test")).last


def _shown(chat: list[Any], question: str, said: str) -> list[dict[str, Any]]:
    """The chat of `say 0`, and its right answer, as one about another question and any answer."""
    swaps = {"assistant": ("0", said), "user": ("say 0", f"say {question}")}
    return [
        {**message, "content": message["content"].replace(*swaps.get(message["role"], ("", "")))}
        for message in chat
    ]


def trained_on(rows: list[Any]) -> list[str]:
    """The tokens and log-probs that a loss saw, a reply each."""
    found = []
    for segment in (segment for row in rows for segment in row["segments"]):
        places = zip(segment["loss_mask"], segment["token_ids"], segment["logprobs"], strict=True)
        for on, run in groupby(places, key=lambda place: place[0]):
            found += [json.dumps([(token, logprob) for _, token, logprob in run])] if on else []
    return sorted(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_of_others_train_and_a_killed_run_is_the_whole_one(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = PROGRAMS[name]
    pytest.importorskip(foreign.module)
    (tmp_path / "nearness.py").write_text(NEARNESS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    keys = {"reward": {"name": "nearness:near"}, "timeout_s": 120.0, "parallel": 2, **foreign.keys}
    env = program(tmp_path / "env", foreign.script, tasks=TASKS, **keys)
    table: dict[str, Any] = {
        "name": "grpo", "env": env, "algorithm": "grpo", "model": str(warm_start(name, env, tmp_path)),
        "steps": 2, "threads": 1, "optimizer": {"lr": 1e-3}, "checkpoint": {"every": 1},
        "rollout": {"tasks": 1, "group_size": 2, "max_tokens": 48, "save_every": 1},
    }  # fmt: skip
    config = tmp_path / "killed.toml"
    config.write_text(tomli_w.dumps({**table, "output": str(tmp_path / "killed")}))
    killed = subprocess.run([sys.executable, "-P", "-c", KILLED, config], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    resumed = train(load(RunConfig, config), resume=True)

    wrote: list[str] = []
    completion = TransformersEngine.completion

    def watched(self: Any, request: GenerationRequest, *result: Any) -> Any:
        one = completion(self, request, *result)
        if request.temperature:  # a check of the weights writes a few tokens without chance
            wrote.append(json.dumps([*zip(one.token_ids, one.logprobs, strict=True)]))
        return one

    monkeypatch.setattr(TransformersEngine, "completion", watched)
    whole = train(parse(RunConfig, {**table, "output": str(tmp_path / "whole")}, source="test"))
    played = [row for file in sorted((whole.run.folder / "rollouts").iterdir()) for row in read_jsonl(file)]
    assert [row["score"]["value"] is not None for row in played] == [True] * 4, played
    assert trained_on(played) == sorted(wrote)
    assert rows(whole.run.folder) == rows(resumed.run.folder)
    weights = [sha256(folder / "model.safetensors") for folder in (whole.last, resumed.last)]
    assert weights[0] == weights[1] != sha256(Path(table["model"]) / "model.safetensors")
