"""1,000 recorded episodes of five kinds of environment, and of one whose judge fails, through every export.

    python benchmarks/interop_scores.py [--vf-eval PATH/TO/vf-eval] [--only openenv,inspect] [--share 1.0]

Each program's own runner plays them where it is installed (Inspect, TRL; verifiers by the `vf-eval` named),
its protocol else (OpenEnv, NeMo Gym). A score that differs in one bit is printed, and the exit code is 1. TRL
ends an episode at a turn without a call: episodes that talk are not compared there.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' recorder

from tests.recorded_episodes import (
    Recording,
    record,
    scores_by_nemo_gym,
    scores_by_openenv,
    write_environments,
)
from tests.served import serving
from vertigym.core.types import Prompt
from vertigym.envs import registry
from vertigym.envs.tool_calls import is_call
from vertigym.interop.exporting import export_environment
from vertigym.interop.formats import load_results
from vertigym.policies.scripted import Scripted

SIZES = {"decision": 290, "agent": 200, "code": 60, "math": 200, "trace": 230, "flaky": 30}
Scores = dict[str, float | None]


def by_inspect(one: Recording, home: Path) -> Scores:
    """`inspect_ai.eval`, in a process of its own."""
    package = home / f"inspect_{time.monotonic_ns()}"
    module = export_environment(one.env, "inspect", package)
    task = (package / module / "__init__.py").read_text().partition("@task\ndef ")[2].partition("(")[0]
    (package / "replies.json").write_text(json.dumps(one.replies))
    player = Path(__file__).parents[1] / "tests" / "inspect_player.py"
    started = [sys.executable, player, module, task, 10**6, package / "replies.json", package / "logs"]
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(home), str(package), os.environ.get("PYTHONPATH", "")])
    }
    subprocess.run([*map(str, started[:4]), str(_limit(one)), *map(str, started[5:])], env=env, check=True)
    return {row.task: row.scores[0] for row in load_results(package / "logs").rows if row.task in one.scores}


def by_trl(one: Recording, home: Path) -> Scores:
    """`GRPOTrainer`."""
    from tests.trl_player import scores_by_trl

    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    with tempfile.TemporaryDirectory(dir=home) as folder:
        found = scores_by_trl(registry.make(one.env), one.replies, _limit(one), Path(folder))
    return {task: score for task, score in found.items() if task in one.scores}


def by_verifiers(one: Recording, home: Path, vf_eval: str) -> Scores:
    """`vf-eval`, against a server that says what was recorded."""
    package = home / f"verifiers_{time.monotonic_ns()}"
    module = export_environment(one.env, "verifiers", package)
    said = {(asked, number): text for asked, number, text in one.replies}

    def write(prompt: Prompt) -> str:
        asked = next(message["content"] for message in prompt.messages if message["role"] == "user")
        return said[asked, sum(message["role"] == "assistant" for message in prompt.messages)]

    env = os.environ | {
        "KEY": "none",
        "PYTHONPATH": os.pathsep.join([str(home), str(package), os.environ.get("PYTHONPATH", "")]),
    }
    with serving(Scripted(write), package / "calls.jsonl") as port:
        subprocess.run(
            [
                vf_eval, module, "--env.player.harness.id", "null", "--env.player.runtime.type", "subprocess",
                "-m", "m", "--client.base-url", f"http://127.0.0.1:{port}/v1", "--client.api-key-var", "KEY",
                "--no-push", "--no-rich", "-n", str(_limit(one)), "-c", "4", "-o", str(package / "out"),
                "--env.taskset.split", "eval",
            ],
            env=env, check=True, capture_output=True, cwd=home,
        )  # fmt: skip
    (traces,) = (package / "out").glob("*/traces.jsonl")
    return {row.task: row.scores[0] for row in load_results(traces).rows if row.task in one.scores}


def _limit(one: Recording) -> int:
    """How many tasks from the first hold those that were recorded."""
    ids = list(registry.make(one.env).tasks.ids("eval"))
    return 1 + max(ids.index(task) for task in one.scores)


def main() -> None:
    """Record, play everywhere, compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--vf-eval", default="")
    parser.add_argument("--only", default="")
    parser.add_argument("--share", type=float, default=1.0)
    given = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        sys.path.insert(0, folder)
        sizes = {name: max(1, int(size * given.share)) for name, size in SIZES.items()}
        envs = write_environments(home, eval_tasks=SIZES["agent"])
        recordings = {name: record(env, sizes[name]) for name, env in envs.items()}
        for name, one in recordings.items():
            unscored = sum(score is None for score in one.scores.values())
            print(f"{name}: {len(one.scores)} episodes, {unscored} without a score")
        players: dict[str, Callable[[Recording], Scores]] = {
            "openenv": scores_by_openenv,
            "nemo-gym": scores_by_nemo_gym,
            "inspect": lambda one: by_inspect(one, home),
            "trl": lambda one: by_trl(one, home),
            "verifiers": lambda one: by_verifiers(one, home, given.vf_eval),
        }
        chosen = (
            given.only.split(",") if given.only else [n for n in players if n != "verifiers" or given.vf_eval]
        )
        for program in chosen:
            began, compared, differ = time.monotonic(), 0, 0
            for name, one in recordings.items():
                found = players[program](one)
                talked = {
                    t for t, said in one.said.items() if program == "trl" and not all(map(is_call, said[:-1]))
                }
                tasks = set(one.scores) - talked
                compared += len(tasks)
                differ += len(bad := [task for task in tasks if found.get(task, "missing") != one.scores[task]])
                for task in bad[:3]:
                    print(
                        f"{program}, {name}, {task}: {found.get(task, 'missing')}, and not {one.scores[task]}"
                    )
            wrong += differ
            print(
                f"{program}: {compared} compared, {differ} differ ({time.monotonic() - began:.0f} s)",
                flush=True,
            )
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
