"""Training processes really killed, at any moment: resuming ends with the weights, metrics, rollouts and
decisions of an undisturbed run, to the bit."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vertigym.core.files import read_json, read_jsonl, sha256, write_jsonl
from vertigym.learner.clock import repeatable

EXAMPLE = Path(__file__).parents[1] / "examples" / "ask_first"
SIZE = {"hidden": 32, "layers": 1, "heads": 2, "key_heads": 2, "ffn": 48}

# Imports once, then forks a child for each run: `{"config": …, "resume": …}` in; its pid, then its status out.
NURSERY = """
import json, os, sys, traceback
import torch, torch.utils.tensorboard
import transformers.models.qwen3.modeling_qwen3
from vertigym.core.config import parse
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import train

torch.set_num_threads(1)
for line in sys.stdin:
    order = json.loads(line)
    pid = os.fork()
    if pid == 0:
        try:
            train(parse(RunConfig, order["config"], source="test"), resume=order["resume"])
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""

SUITE = """
name = "ask"
metrics = ["score"]
[[env]]
id = "ask_first"
split = "eval"
tasks = 24
[sampling]
max_tokens = 8
[[gate]]
rule = "improves"
"""


@contextmanager
def nursery(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    program = folder / "nursery.py"
    program.write_text(NURSERY)
    environment = os.environ | {"PYTHONPATH": str(EXAMPLE)}
    process = subprocess.Popen(
        [sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    with process:  # closing its input ends it
        yield process


def run(
    process: "subprocess.Popen[str]", config: dict[str, Any], *, resume: bool, kill_after: float | None = None
) -> int:
    """The status `waitpid` gives for a run, killed after so many seconds."""
    assert process.stdin
    assert process.stdout
    process.stdin.write(json.dumps({"config": config, "resume": resume}) + "\n")
    process.stdin.flush()
    pid = int(process.stdout.readline())
    timer = threading.Timer(kill_after or 0, lambda: os.kill(pid, signal.SIGKILL))
    if kill_after is not None:
        timer.start()
    status = int(process.stdout.readline())
    timer.cancel()
    return status


def configured(output: Path, algorithm: str, start: Path, **changes: Any) -> dict[str, Any]:
    table: dict[str, Any] = {
        "name": "run", "env": "ask_first", "model": str(start), "algorithm": algorithm, "steps": 16,
        "output": str(output), "threads": 1,
        "rollout": {"tasks": 6, "group_size": 4, "max_tokens": 8, "save_every": 1, "staleness": 1},
        "policy": {"minibatches": 2, "entropy": 0.01, "kl": 0.01},
        "optimizer": {"lr": 3e-3, "schedule": "cosine"},
        "checkpoint": {"every": 1}, "eval": {"suites": [str(output.parent / "suite.toml")], "every": 5},
    }  # fmt: skip
    if algorithm == "ppo":
        table |= {
            "critic": {"optimizer": {"lr": 1e-2}, "warmup_steps": 2},
            "rollout": table["rollout"] | {"staleness": 0},
        }
    return table | changes


def left_behind(run: Path) -> dict[str, Any]:
    """All that is to be the same, without times and the folder's own name."""
    last = run / "checkpoints" / "step-000016"
    files = read_json(last / "manifest.json")["sha256"]
    names = [name for name in files if name.endswith((".safetensors", ".pt"))]
    rollouts = {file.name: _timeless(file, run) for file in sorted((run / "rollouts").iterdir())}
    return {
        "weights and optimizers": {name: sha256(last / name) for name in names},
        "metrics": [repeatable(row) for row in read_jsonl(run / "metrics.jsonl")],
        "rollouts": rollouts,
        "gates": _timeless(run / "gates.jsonl", run),
        "evals": [_timeless(file, run, whole=True) for file in sorted(run.glob("evals/*/*.json"))],
        "checkpoints": sorted(path.name for path in (run / "checkpoints").iterdir()),
    }


def _timeless(file: Path, run: Path, *, whole: bool = False) -> Any:
    rows = read_json(file) if whole else read_jsonl(file)
    return _without_times(json.loads(json.dumps(rows).replace(str(run.parent), "ROOT")))


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        volatile = ("latency", "started", "seconds")
        return {k: _without_times(v) for k, v in value.items() if not any(name in k for name in volatile)}
    return [_without_times(v) for v in value] if isinstance(value, list) else value


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_ten_kills_change_nothing(algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    from ask_first import logs  # type: ignore[import-not-found]

    (tmp_path / "suite.toml").write_text(SUITE)
    write_jsonl(tmp_path / "logs.jsonl", logs(seed=0))
    warm = {
        "name": "warm", "env": "ask_first", "model": "tiny", "tiny": SIZE, "algorithm": "sft", "steps": 80,
        "output": str(tmp_path), "sft": {"data": str(tmp_path / "logs.jsonl")}, "optimizer": {"lr": 1e-2},
    }  # fmt: skip
    dice = random.Random(algorithm)
    kills, unstarted = 0, 0
    with nursery(tmp_path) as process:
        assert run(process, warm, resume=False) == 0
        start = tmp_path / "warm" / "checkpoints" / "step-000080"
        began = time.monotonic()
        assert run(process, configured(tmp_path / "whole", algorithm, start), resume=False) == 0
        took = time.monotonic() - began
        expected = left_behind(tmp_path / "whole" / "run")
        for number in range(20):  # as many runs as ten kills need: the machine may be faster by now
            config = configured(tmp_path / f"killed-{number}", algorithm, start)
            folder = tmp_path / f"killed-{number}" / "run"
            while True:
                delay = dice.uniform(0, took / 3) if kills < 10 else None
                status = run(process, config, resume=(folder / "config.toml").exists(), kill_after=delay)
                if status == 0:
                    break
                assert status == signal.SIGKILL, "a resumed run failed by itself"
                kills += 1
                unstarted += not (folder / "config.toml").exists()
            assert left_behind(folder) == expected
            if kills >= 10:
                break
    assert kills == 10
    assert unstarted < 5, "most kills must hit a run under way"
