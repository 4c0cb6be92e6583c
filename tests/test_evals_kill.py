"""A process really killed: `resume` gives the report of an undisturbed run and samples nothing twice."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vertigym.evals.report import Report

PROGRAM = """
import sys, time
from pathlib import Path
from vertigym.core.seeds import generator
from vertigym.core.types import Task
from vertigym.envs.env import SingleTurnEnv
from vertigym.envs.tasks import TaskSet
from vertigym.evals.runner import run_suite
from vertigym.evals.suite import Suite
from vertigym.policies.scripted import Scripted
from vertigym.rewards.rubric import Rubric

out, pause, resume = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3] == "resume"
asked = (out / "asked.txt").open("a")

def write(prompt):
    asked.write(f"{prompt.task.id} {prompt.seed}\\n")
    asked.flush()
    time.sleep(pause)
    return prompt.task.answer if generator(prompt.seed).random() < 0.6 else "no"

def exact(completion, answer):
    return float(completion == answer)

def make(env_id, **_):
    tasks = [Task(id=f"t{i}", prompt="?", answer=str(i), split="eval", cluster=f"c{i % 9}") for i in range(60)]
    return SingleTurnEnv(TaskSet(tasks), Rubric(exact))

suite = Suite.model_validate({"name": "s", "env": [{"id": "a/B-v0", "name": "b", "samples": 3}]})
run_suite(suite, Scripted(write), batch=3, out=out, resume=resume, make=make)
"""


@pytest.mark.slow
def test_ten_kills_lose_nothing_and_change_nothing(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    subprocess.run([sys.executable, program, whole, "0", "new"], check=True, timeout=60)
    expected = Report.load(whole)
    dice = random.Random(0)
    kills = 0
    for attempt in range(40):
        saved = seeds_saved(killed)
        before = len(asked(killed))
        command = [sys.executable, program, killed, "0.01", "resume"]
        process = subprocess.Popen([str(part) for part in command])
        wanted = before + dice.randrange(3, 20)
        while kills < 10 and process.poll() is None and len(asked(killed)) < wanted:
            time.sleep(0.002)
        if kills < 10 and process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        status = process.wait(timeout=60)
        assert not saved & set(asked(killed)[before:]), f"attempt {attempt} asked for finished samples"
        if status == 0:
            break
    assert kills == 10
    assert Report.load(killed).model_dump_json(exclude={"started"}) == expected.model_dump_json(
        exclude={"started"}
    )
    assert len(asked(killed)) <= 180 + 10 * 3  # at worst the batch in flight is asked for again


def asked(folder: Path) -> list[str]:
    file = folder / "asked.txt"
    return [line.split()[1] for line in file.read_text().splitlines() if " " in line] if file.exists() else []


def seeds_saved(folder: Path) -> set[str]:
    """The first-turn seeds of samples that are whole in the file."""
    from vertigym.core.seeds import derive

    file = folder / "samples.jsonl"
    lines = file.read_text().split("\n")[1:-1] if file.exists() else []
    return {str(derive(json.loads(line)["seed"], "turn", 0)) for line in lines}
