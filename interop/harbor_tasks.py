"""Environments of one turn as tasks of Harbor: a folder a task, in its schema 1.4.

    NAME/
      instruction.md          the prompt, and where the answer goes
      task.toml
      environment/Dockerfile
      solution/solve.sh       writes the reference
      tests/test.sh           scores /app/answer.txt with what is vendored beside it

The score goes to `/logs/verifier/reward.json`, its parts with it. What could not be scored leaves none, which
Harbor counts as an error, not as 0.
"""

import json
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from vertigym.core.errors import InputError
from vertigym.core.files import write_text
from vertigym.core.types import SPLITS
from vertigym.envs import registry
from vertigym.envs.env import Env
from vertigym.interop.played_episode import PlayedEpisode
from vertigym.interop.vendoring import vendor

ANSWER = "/app/answer.txt"
_TASK = """\
schema_version = "1.4"

[task]
name = "{name}"
description = "{id}, task {task} of {split}"

[metadata]
environment = "{id}"
task = "{task}"
split = "{split}"

[agent]
timeout_sec = 600.0

[verifier]
timeout_sec = 120.0

[environment]
network_mode = "no-network"
workdir = "/app"
"""
_DOCKERFILE = """\
FROM python:3.12-slim
RUN pip install --no-cache-dir {requirements}
WORKDIR /app
"""
_SOLVE = """\
#!/bin/sh
cat > {answer} <<'VERTIGYM_REFERENCE'
{reference}
VERTIGYM_REFERENCE
truncate -s -1 {answer}
"""
_TEST = """\
#!/bin/sh
exec python3 "$(dirname "$0")/score.py"
"""
_SCORE = '''\
"""Scores /app/answer.txt; a score that there is not is an error (exit code 1), never 0."""

import json
import os
import sys
import zipfile
from pathlib import Path
from tempfile import mkdtemp

HERE = Path(__file__).parent
unpacked = mkdtemp()
zipfile.ZipFile(HERE / "vendored.zip").extractall(unpacked)
sys.path.insert(0, unpacked)

from vertigym.envs import registry
from vertigym.interop.played_episode import PlayedEpisode

asked = json.loads((HERE / "task.json").read_text("utf-8"))
place = asked["environment"] or str(Path(unpacked) / "environment")
answer = Path(os.environ.get("VERTIGYM_ANSWER", "{answer}"))
episode = PlayedEpisode(registry.make(place + asked["arguments"]), asked["task"], asked["id"])
episode.step(answer.read_bytes().decode("utf-8", "replace") if answer.is_file() else "")
score = episode.end()
if score.value is None:
    sys.exit("not scored: " + str(score.evidence.get("reason")))
logs = Path(os.environ.get("VERTIGYM_LOGS", "/logs/verifier"))
logs.mkdir(parents=True, exist_ok=True)
parts = {name: part for name, part in score.parts.items() if name != "reward"}
(logs / "reward.json").write_text(json.dumps({"reward": score.value, **parts}))
'''


def write_harbor_tasks(env_id: str, env: Env, out: Path, tasks: int) -> str:
    """A folder a task of every split, at most `tasks` of each, in `out`; what the folders are called in common.

    Raises:
        InputError: the environment has several turns or cannot be vendored.
    """
    found = registry.spec(env_id)
    if env.max_turns > 1 or env.tools:
        raise InputError(
            f"{env_id}: has several turns, and a task of Harbor ends in one answer: export it elsewhere"
        )
    slug = re.sub(r"[^a-z0-9]+", "-", found.id.rpartition("-v")[0].lower()).strip("-")
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        requirements = vendor(env_id, ["vertigym.interop.played_episode"], copy)
        if found.folder:
            shutil.copytree(found.folder.path, copy / "environment")
        archive = Path(shutil.make_archive(str(Path(folder) / "vendored"), "zip", copy))
        for split in SPLITS:
            for number, task in enumerate(list(env.tasks.ids(split))[:tasks]):
                _write(out / f"{slug}-{split}-{number}", env, task, env_id, archive, requirements)
    return slug


def _write(folder: Path, env: Env, task_id: str, env_id: str, archive: Path, requirements: list[str]) -> None:
    """One task's folder."""
    task, found = env.tasks.get(task_id), registry.spec(env_id)
    episode = PlayedEpisode(env, task, found.id)
    prompt = "\n\n".join(message["content"] for message in episode.messages)
    words = {"id": found.id, "task": task_id, "split": task.split, "name": f"vertigym/{folder.name}"}
    write_text(folder / "instruction.md", f"{prompt}\n\nWrite your answer, and nothing else, to {ANSWER}.\n")
    write_text(folder / "task.toml", _TASK.format(**{key: json.dumps(one)[1:-1] for key, one in words.items()}))
    needed = " ".join(f"'{one}'" for one in requirements)
    write_text(folder / "environment" / "Dockerfile", _DOCKERFILE.format(requirements=needed))
    if actions := env.reference(task):
        solve = _SOLVE.format(answer=ANSWER, reference=actions[0])
        write_text(folder / "solution" / "solve.sh", solve)
    asked = {"id": found.id, "task": task_id, "arguments": "".join(env_id.partition("?")[1:])}
    asked["environment"] = "" if found.folder else found.id
    write_text(folder / "tests" / "task.json", json.dumps(asked))
    write_text(folder / "tests" / "test.sh", _TEST)
    write_text(folder / "tests" / "score.py", _SCORE.replace("{answer}", ANSWER))
    shutil.copyfile(archive, folder / "tests" / "vendored.zip")
