"""Real Ray actors on a cluster of two nodes, one of which is killed while it plays a step's episodes."""

import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vertigym.core.config import parse
from vertigym.core.errors import ConfigError, RunError
from vertigym.core.files import read_jsonl
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import Progress, RunOutcome, train

from .returns import rows, warm

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed here: make setup-all"),
    pytest.mark.filterwarnings("ignore"),
]

# While the file `hold` is there, an episode says where it is played, and waits.
MODULE = """
import time
from pathlib import Path
from vertigym import envs
from vertigym.core.types import Score, Task

HERE = Path(__file__).parent

class Held(envs.Env):
    def respond(self, action):
        if (HERE / "hold").exists():
            import ray
            (HERE / f"at-{ray.get_runtime_context().get_node_id()}").touch()
        until = time.monotonic() + 120
        while (HERE / "hold").exists() and time.monotonic() < until:
            time.sleep(0.02)
        return envs.Turn(score=Score(len(action) % 7 / 6))

def load_environment():
    def task(split, number):
        return Task(id=f"{split}-{number}", prompt=f"the return of {number} items")
    return Held(envs.GeneratedTasks(task, {"train": 16}))
"""

# Functions to write, judged in sandboxes. Whoever judges notes where it is, and which processes it has started.
# Where NO_SANDBOX is set, the machine is none of those that sandboxes are made for.
CODE = """
import json, os, psutil
from pathlib import Path
from vertigym.core.types import Task
from vertigym.envs.code.env import CodeEnv
from vertigym.envs.tasks import TaskSet
from vertigym.rewards.code import Verifier
from vertigym.sandboxes import syscalls

if os.environ.get("NO_SANDBOX"):
    syscalls.supported = lambda: False

class Noting(Verifier):
    def check_many(self, *arguments):
        found = super().check_many(*arguments)
        import ray
        note = {
            "node": ray.get_runtime_context().get_node_id() if ray.is_initialized() else None,
            "pid": os.getpid(),
            "sandboxes": [child.pid for child in psutil.Process().children()],
        }
        with (Path(__file__).parent / "notes.jsonl").open("a") as file:
            file.write(json.dumps(note) + "\\n")
        return found

def task(number):
    cases = [{"args": [x], "expected": x + number} for x in (0, 1, 5, -4)]
    return Task(
        id=f"add-{number}", prompt=f"Write f(x): add {number}.", answer=f"def f(x):\\n    return x + {number}",
        info={"entry": "f", "tests": {"kind": "cases", "entry": "f", "cases": cases}},
    )

def load_environment():
    return CodeEnv(TaskSet(map(task, range(2, 7))), verifier=Noting())
"""


class Nodes:
    """A cluster of two nodes on this machine, of one core each; the first may have none for workers."""

    def __init__(self, first: int = 1, second: int = 1) -> None:
        from ray.cluster_utils import Cluster

        small = {"object_store_memory": 100 * 2**20}
        head = {**small, "num_cpus": first, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.second = self.cluster.add_node(num_cpus=second, **small)

    def kill_the_second(self) -> None:
        self.cluster.remove_node(self.second, allow_graceful=False)


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environments above, also for processes that are started from here."""
    for name, text in (("held_env", MODULE), ("code_env", CODE)):
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    torch.set_num_threads(1)


@contextmanager
def cluster(monkeypatch: pytest.MonkeyPatch, **cores: int) -> Iterator[Nodes]:
    import ray

    found = Nodes(**cores)
    monkeypatch.setenv("RAY_ADDRESS", found.cluster.address)
    try:
        yield found
    finally:
        ray.shutdown()
        found.cluster.shutdown()


@pytest.fixture
def nodes(modules: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    with cluster(monkeypatch) as found:
        yield found


def run(
    output: Path,
    progress: Progress | None = None,
    *,
    env: str = "held_env",
    model: str = "tiny",
    **rollouts: Any,
) -> RunOutcome:
    table: dict[str, Any] = {
        "name": "run", "env": env, "model": model, "algorithm": "grpo", "steps": 4, "threads": 1,
        "tiny": {"hidden": 32, "layers": 1, "heads": 2, "key_heads": 2, "ffn": 48}, "output": str(output),
        "rollout": {"tasks": 8, "group_size": 4, "max_tokens": 8, "save_every": 1, "batch": 16, **rollouts},
        "policy": {"entropy": 0.5}, "optimizer": {"lr": 1e-2},
    }  # fmt: skip
    return train(parse(RunConfig, table, source="test"), progress=progress)


def same_weights(*outcomes: RunOutcome) -> bool:
    ours, theirs = (load_file(outcome.last / "model.safetensors") for outcome in outcomes)
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


def rollouts(outcome: RunOutcome) -> list[Any]:
    files = sorted((outcome.run.folder / "rollouts").iterdir())
    return [{**row, "latency_s": 0} for file in files for row in read_jsonl(file)]


def test_a_step_whose_node_is_killed_is_completed_by_the_other(tmp_path: Path, nodes: Nodes) -> None:
    hold = tmp_path / "hold"
    notes: list[str] = []
    places: set[str] = set()

    def kill() -> None:
        until = time.monotonic() + 120
        while len(places) < 2 and time.monotonic() < until:
            places.update(path.name for path in tmp_path.glob("at-*"))
            time.sleep(0.02)
        nodes.kill_the_second()
        hold.unlink()

    killer = threading.Thread(target=kill)

    def on_step(step: int, _: Any) -> None:
        if step == 2:
            hold.touch()
            killer.start()

    progress = Progress(on_step=on_step, on_note=notes.append)
    struck = run(tmp_path / "struck", progress, workers="ray://auto", ray={"count": 2})
    killer.join()
    assert f"at-{nodes.second.node_id}" in places
    assert len(places) == 2, "both nodes were playing when one was killed"
    assert any("was lost" in note for note in notes)
    assert len(rollouts(struck)) == 4 * 32, "nothing is missing or doubled"
    assert [{row["policy_version"] for row in rollouts(struck)[i * 32 :][:32]} for i in range(4)] == [
        {0}, {1}, {2}, {3},
    ]  # fmt: skip

    plain = run(tmp_path / "plain")
    assert rollouts(plain) == rollouts(struck), "whoever played an episode, it is the same"
    assert same_weights(plain, struck)


def test_sandboxes_run_where_the_workers_are(
    tmp_path: Path, modules: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers, for which only the second node has room."""
    notes = tmp_path / "notes.jsonl"
    model = str(warm(tmp_path, env="code_env", steps=60, batch=12))
    settings: dict[str, Any] = {"env": "code_env", "model": model, "max_tokens": 32}
    plain = run(tmp_path / "plain", **settings)
    assert {note["pid"] for note in read_jsonl(notes)} == {os.getpid()}
    notes.unlink()
    with cluster(monkeypatch, first=0, second=2) as nodes:
        far = run(tmp_path / "far", **settings, workers="ray://auto", ray={"count": 2})
        found = read_jsonl(notes)
    assert {note["node"] for note in found} == {nodes.second.node_id}
    assert len({note["pid"] for note in found}) == 2
    assert os.getpid() not in {note["pid"] for note in found}
    assert all(note["sandboxes"] for note in found), "what a model wrote ran in processes below the worker's"
    assert rollouts(far) == rollouts(plain)
    assert same_weights(far, plain)
    assert rows(far.run.folder) == rows(plain.run.folder)
    first, *_ = rows(far.run.folder)
    assert 0.1 < first["reward"] < 0.9
    assert first["unscored"] == 0


def test_a_node_without_sandboxes_ends_the_run_in_one_line(
    tmp_path: Path, modules: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = warm(tmp_path, env="code_env", steps=1)
    monkeypatch.setenv("NO_SANDBOX", "1")
    with cluster(monkeypatch, first=0, second=2), pytest.raises(RunError) as raised:
        run(tmp_path, env="code_env", model=str(model), workers="ray://auto", ray={"count": 2})
    said = str(raised.value)
    assert said.startswith("step 0: 32 of 32 episodes could not be scored")
    assert f"no safe sandbox on {platform.node()}" in said
    assert "\n" not in said
    assert not (tmp_path / "run" / "metrics.jsonl").exists(), "nothing was learned from it"


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(ConfigError, match=r"rollout.workers = 'ray://auto': no Ray cluster there") as raised:
        run(tmp_path, workers="ray://auto")
    assert "\n" not in str(raised.value)


def test_workers_on_this_machine_leave_no_process_behind(tmp_path: Path, modules: None) -> None:
    run(tmp_path / "runs", workers="ray://local", ray={"count": 2})
    until = time.monotonic() + 60
    while (left := _of_ray()) and time.monotonic() < until:
        time.sleep(0.2)
    assert not left


def _of_ray() -> list[str]:
    """Ray's processes below this one."""
    import psutil  # type: ignore[import-untyped]

    found = []
    for process in psutil.Process(os.getpid()).children(recursive=True):
        with suppress(psutil.Error):
            found.append(" ".join(process.cmdline())[:100])
    return [line for line in found if "ray" in line]
