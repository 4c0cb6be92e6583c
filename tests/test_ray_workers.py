"""Real Ray actors on a cluster of two nodes, one of which is killed while it plays a step's episodes."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vertigym.core.config import parse
from vertigym.core.errors import ConfigError
from vertigym.core.files import read_jsonl
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import Outcome, Progress, train

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


class Nodes:
    """A cluster of two nodes on this machine."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        small = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
        self.cluster = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
        self.second = self.cluster.add_node(**small)

    def kill_the_second(self) -> None:
        self.cluster.remove_node(self.second, allow_graceful=False)


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    import ray

    (tmp_path / "held_env.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    torch.set_num_threads(1)
    found = Nodes()
    monkeypatch.setenv("RAY_ADDRESS", found.cluster.address)
    yield found
    ray.shutdown()
    found.cluster.shutdown()


def run(output: Path, progress: Progress | None = None, **rollouts: Any) -> Outcome:
    table: dict[str, Any] = {
        "name": "run", "env": "held_env", "model": "tiny", "algorithm": "grpo", "steps": 4, "threads": 1,
        "tiny": {"hidden": 32, "layers": 1, "heads": 2, "key_heads": 2, "ffn": 48}, "output": str(output),
        "rollout": {"tasks": 8, "group_size": 4, "max_tokens": 8, "save_every": 1, "batch": 16, **rollouts},
        "policy": {"entropy": 0.5}, "optimizer": {"lr": 1e-2},
    }  # fmt: skip
    return train(parse(RunConfig, table, source="test"), progress=progress)


def rollouts(outcome: Outcome) -> list[Any]:
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
    ours, theirs = (load_file(outcome.last / "model.safetensors") for outcome in (plain, struck))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_cluster_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(ConfigError, match=r"rollout.workers = 'ray://auto': no Ray cluster there") as raised:
        run(tmp_path, workers="ray://auto")
    assert "\n" not in str(raised.value)


def test_workers_on_this_machine_leave_no_process_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "held_env.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
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
