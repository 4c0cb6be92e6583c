"""Program environments of the tests: a folder with a script that asks over HTTP by hand or through `openai`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w
import torch

from vertigym import envs
from vertigym.core.types import Completion, Prompt, Sampling, Trajectory
from vertigym.envs import Env
from vertigym.policies import tiny
from vertigym.policies.scripted import Scripted
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.rollouts.rollout import Episode, rollout

CALL = '<tool_call>{"name": "find", "arguments": {"a": 1}}</tool_call>'

# What the scripts begin with: `ask(messages, **parameters)` gives a response's JSON.
BY_HAND = """
import json, os, sys, time, urllib.error, urllib.request

task = json.load(sys.stdin)
assert task == json.load(open(os.environ["VERTIGYM_TASK"]))
question = {"role": "user", "content": task["prompt"]}


def post(path, body, headers={}):
    key = {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
    head = {"Content-Type": "application/json", **key, **headers}
    request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + path, body, head)
    with urllib.request.urlopen(request) as response:
        return response.read().decode()


def ask(messages, **parameters):
    body = {"model": "m", "messages": messages, **parameters}
    return json.loads(post("/chat/completions", json.dumps(body).encode()))


def said(messages, **parameters):
    return ask(messages, **parameters)["choices"][0]["message"]
"""
# Two calls, the second with all that was said; prints the last reply.
TWICE = (
    BY_HAND
    + """
first = said([question])
print(said([question, first, {"role": "user", "content": "again"}])["content"])
"""
)
TASKS = [{"id": f"t{n}", "question": f"say {n}", "answer": str(n), "note": f"n{n}"} for n in range(4)]


def engine_of_few_words(
    folder: Path, text: str = "say again once more find tool", **size: Any
) -> TransformersEngine:
    """A tiny model that writes anything, and no two texts alike."""
    torch.set_num_threads(1)
    least = {"hidden": 16, "layers": 1, "heads": 2, "key_heads": 2, "ffn": 16, "init_std": 0.5, "context": 512}
    tiny.build([text] * 2, folder / "tiny", size=tiny.TinySize(**(least | size)))
    return TransformersEngine.load(folder / "tiny")


def program(folder: Path, script: str, *, tasks: Sequence[Any] = TASKS, **keys: Any) -> str:
    """The id of an environment that runs `script`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agent.py").write_text(script)
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tasks))
    table = {
        "id": "test/Program-v0", "kind": "program", "command": [sys.executable, "{folder}/agent.py"],
        "timeout_s": 30.0, "files": {"train": "train.jsonl"}, "reward": {"name": "exact"}, **keys,
    }  # fmt: skip
    (folder / "env.toml").write_text(tomli_w.dumps(table))
    return f"{folder}?trust=true"


def play(env: str | Env, policy: Any, count: int = 1, **options: Any) -> list[Trajectory]:
    """The first tasks' episodes, each with a seed of its own."""
    made = envs.make(env) if isinstance(env, str) else env
    episodes = [Episode(name, seed=n) for n, name in enumerate(made.tasks.ids("train")[:count])]
    return rollout(policy, made, episodes, options.pop("sampling", Sampling(max_tokens=8)), **options)


class Recording:
    """A policy that keeps what it was asked; its replies are those of `write`, or the task's answer."""

    def __init__(self, *replies: str) -> None:
        self.prompts: list[Prompt] = []
        self._replies = list(replies)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        self.prompts += prompts
        return Scripted(self._write).generate(prompts, sampling)

    def _write(self, prompt: Prompt) -> str:
        assert prompt.task
        return self._replies.pop(0) if self._replies else str(prompt.task.answer)
