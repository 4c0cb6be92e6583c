"""Neighbours' own runners play recorded episodes, in processes of their own.

Each function gives what the program says of the tasks that were recorded, by task.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from tempfile import mkdtemp

from vertigym.core.types import Prompt
from vertigym.envs import registry
from vertigym.interop.exporting import export_environment
from vertigym.interop.formats import load_results
from vertigym.interop.openenv_server import OpenEnvServer
from vertigym.policies.scripted import Scripted
from vertigym.serving.app import ServerLimits

from .recorded_episodes import Recording, dumped
from .served import listening, serving

HERE = Path(__file__).parent
ROOT = HERE.parent / ".cache" / "src"
Scores = dict[str, float | None]


def run(home: Path, package: Path, *command: object, **variables: str) -> str:
    """What a command prints that finds vertigym, `home` and the `package`."""
    paths = [str(home), str(package), str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | variables
    done = subprocess.run([*map(str, command)], env=env, capture_output=True, text=True, cwd=home)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def last_place(one: Recording) -> int:
    """How many tasks from the first hold those that were recorded."""
    ids = list(registry.make(one.env).tasks.ids("eval"))
    return 1 + max(ids.index(task) for task in one.scores)


def scores_by_inspect(one: Recording, home: Path, *words: str) -> Scores:
    """`inspect_ai.eval`; with the word `native`, tools are called natively."""
    package = Path(mkdtemp(dir=home)) / "package"
    module = export_environment(one.env, "inspect", package)
    task = (package / module / "__init__.py").read_text().partition("@task\ndef ")[2].partition("(")[0]
    (package / "replies.json").write_text(json.dumps(one.replies))
    asked = [module, task, last_place(one), package / "replies.json", package / "logs", *words]
    run(home, package, sys.executable, HERE / "inspect_player.py", *asked)
    return scores_in(package / "logs", one)


def scores_by_installed_inspect(one: Recording, home: Path, name: str) -> Scores:
    """`inspect_ai.eval` of the task that an installed vertigym offers by its entry point."""
    package = Path(mkdtemp(dir=home))
    write_metadata(package)
    (package / "replies.json").write_text(json.dumps(one.replies))
    asked = [name, "", last_place(one), package / "replies.json", package / "logs"]
    run(home, package, sys.executable, HERE / "inspect_player.py", *asked, VERTIGYM_PATH=str(home))
    return scores_in(package / "logs", one)


def scores_by_verifiers(one: Recording, home: Path, vf_eval: str, harness: str, episodes: int = 0) -> Scores:
    """`vf-eval`, over a server that says what was recorded; `episodes`: so many from the first."""
    package = Path(mkdtemp(dir=home)) / "package"
    module = export_environment(one.env, "verifiers", package)
    shutil.copy(HERE.parent / "interop" / "verifiers_chat.py", package)
    said = {(asked, number): text for asked, number, text in one.replies}

    def write(prompt: Prompt) -> str:
        asked = next(message["content"] for message in prompt.messages if message["role"] == "user")
        return said[asked, sum(message["role"] == "assistant" for message in prompt.messages)]

    with serving(Scripted(write), package / "calls.jsonl", limits=ServerLimits(per_minute=0)) as port:
        run(
            home, package, vf_eval, module, "--env.player.harness.id", harness,
            "--env.player.runtime.type", "subprocess", "-m", "m", "--client.base-url", f"http://127.0.0.1:{port}/v1",
            "--client.api-key-var", "KEY", "--no-push", "--no-rich", "-n", episodes or last_place(one), "-c", 8,
            "-o", package / "out", "--env.taskset.split", "eval", KEY="none",
        )  # fmt: skip
    (traces,) = (package / "out").glob("*/traces.jsonl")
    return scores_in(traces, one)


def scores_by_openenv_client(one: Recording, home: Path, python: str) -> Scores:
    """OpenEnv's own client, by a Python that has it."""
    place = Path(mkdtemp(dir=home)) / "recorded.json"
    place.write_text(dumped(one))
    server = OpenEnvServer(registry.make(one.env), registry.spec(one.env).id)
    with listening(server.app()) as url:
        return dict(json.loads(run(home, home, python, HERE / "openenv_player.py", url, place)))


def scores_by_vendored(one: Recording, home: Path) -> Scores:
    """OpenEnv's wire, served by the copy in a package, where vertigym is not installed."""
    package = Path(mkdtemp(dir=home)) / "package"
    module = export_environment(one.env, "openenv", package, vendored=True)
    assert "vertigym>=" not in (package / "pyproject.toml").read_text()
    (package / "recorded.json").write_text(dumped(one))
    alone = [sys.executable, "-I", "-S", HERE / "without_vertigym.py", sysconfig.get_path("purelib")]
    return dict(json.loads(run(home, package, *alone, package, module, package / "recorded.json")))


def scores_by_harbor(one: Recording, home: Path) -> Scores:
    """Each task's `score.py` over an answer file, by a Python without vertigym."""
    folder = Path(mkdtemp(dir=home))
    export_environment(one.env, "harbor", folder / "tasks", tasks=last_place(one))
    (folder / "recorded.json").write_text(dumped(one))
    alone = [sys.executable, "-I", "-S", HERE / "harbor_player.py", sysconfig.get_path("purelib")]
    printed = run(home, folder, *alone, folder / "tasks", folder / "recorded.json", TMPDIR=str(folder))
    shutil.rmtree(folder)  # a copy of the environment a task
    return dict(json.loads(printed))


def write_metadata(folder: Path) -> None:
    """What an editable installation of this tree leaves: its entry points, whatever is installed here."""
    metadata = folder / "vertigym-0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: vertigym\nVersion: 0\n")
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"]
    lines = [
        line
        for group, points in project["entry-points"].items()
        for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    editable = {"url": HERE.parent.as_uri(), "dir_info": {"editable": True}}
    (metadata / "direct_url.json").write_text(json.dumps(editable))


def scores_in(results: Path, one: Recording) -> Scores:
    """The scores in a log, of what was recorded."""
    return {row.task: row.scores[0] for row in load_results(results).rows if row.task in one.scores}
