"""What an exported package says in each program's words: a few lines that name the environment."""

from dataclasses import dataclass

INSPECT = '''\
"""{id} as a task of Inspect: `inspect eval {module}/{task} --model MODEL`."""

{finds}from inspect_ai import Task, task

from vertigym.core.types import Split
from vertigym.interop.inspect_tasks import environment_task
{imports}
ENVIRONMENT = {environment}


@task
def {task}(split: Split = "eval", limit: int | None = None) -> Task:
    """The tasks of a split, or the first `limit`; the score is the environment's."""
    return environment_task(ENVIRONMENT, split, limit)
'''

VERIFIERS = '''\
"""{id} for verifiers: `vf-eval {module} -m MODEL`."""

{finds}from vertigym.interop.verifiers_tasks import EnvironmentPlay, EnvironmentTaskset
{imports}
ENVIRONMENT = {environment}


class {title}Taskset(EnvironmentTaskset):
    """The tasks; `--env.taskset.split` says which."""

    environment = ENVIRONMENT


class {title}Env(EnvironmentPlay):
    """The episodes."""

    environment = ENVIRONMENT


__all__ = ["{title}Env", "{title}Taskset"]
'''

TRL = '''\
"""{id} for TRL: `GRPOTrainer(model, args=GRPOConfig(...), **{module}.load()).train()`."""

from typing import Any

{finds}from vertigym.envs import registry
from vertigym.interop.trl_tasks import to_trl
{imports}
ENVIRONMENT = {environment}


def load() -> dict[str, Any]:
    """Datasets, rewards and, where it has tools, the environment factory."""
    return to_trl(registry.make(ENVIRONMENT))
'''

OPENENV = '''\
"""{id} as a server of OpenEnv: `uvicorn {module}:app`."""

{finds}from vertigym.envs import registry
from vertigym.interop.openenv_server import OpenEnvServer
{imports}
ENVIRONMENT = {environment}
app = OpenEnvServer(registry.make(ENVIRONMENT), "{id}", anywhere=True).app()
'''
_OPENENV_YAML = """\
spec_version: 1
name: {module}
version: 0.1.0
type: space
runtime: fastapi
app: {module}:app
port: 8000
vertigym:
  environment: {place}
validation:
  reward: {{range: [{low}, {high}], oracle_tolerance: 0.0, floor_margin: {margin}}}
  resources: {{cpu: 1, memory_mb: 2048, disk_mb: 2048, episode_timeout_s: 600}}
  capabilities: {{verifier: {{kind: reward_channel}}}}
  types: {{tags: [vertigym]}}
"""
FLOOR_MARGIN = 0.4  # what the best constant guess stays below the best score, as `env check` asks

NEMO_GYM = '''\
"""{id} as a resources server of NeMo Gym: `uvicorn {module}:app`; its rows are in data/."""

{finds}from vertigym.envs import registry
from vertigym.interop.nemo_gym_server import NemoGymServer
{imports}
ENVIRONMENT = {environment}
app = NemoGymServer(registry.make(ENVIRONMENT), "{id}", anywhere=True).app()
'''
_NEMO_GYM_APP = """\
import os

import uvicorn
import yaml
from {module} import app

# NeMo Gym starts a server by its entry point, and says where it listens in these two variables.
config = yaml.safe_load(os.environ["NEMO_GYM_CONFIG_DICT"])[os.environ["NEMO_GYM_CONFIG_PATH"]]
server = config["resources_servers"]["{module}"]
uvicorn.run(app, host=server["host"], port=server["port"])
"""
_NEMO_GYM_YAML = """\
{module}:
  resources_servers:
    {module}:
      entrypoint: app.py
      domain: other
      description: {id}
      verified: false
{module}_{agent}_agent:
  responses_api_agents:
    {agent}_agent:
      entrypoint: app.py
      resources_server:
        type: resources_servers
        name: {module}
      model_server:
        type: responses_api_models
        name: policy_model
{steps}      datasets:
      - name: train
        type: train
        jsonl_fpath: data/train.jsonl
      - name: eval
        type: validation
        jsonl_fpath: data/eval.jsonl
"""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A program: the module of its package, what it requires, and our module that does the work there. `files`
    lie beside the package."""

    template: str
    runtime: str
    requirements: tuple[str, ...]
    entry_point: str = ""
    files: tuple[tuple[str, str], ...] = ()


_SERVED = ("starlette>=1", "uvicorn>=0.50", "websockets>=15")
NEIGHBOURS = {
    "inspect": Neighbour(
        INSPECT,
        "vertigym.interop.inspect_tasks",
        ("inspect-ai>=0.3.280",),
        '\n[project.entry-points.inspect_ai]\n{module} = "{module}"\n',
    ),
    "nemo-gym": Neighbour(
        NEMO_GYM,
        "vertigym.interop.nemo_gym_server",
        (*_SERVED, "pyyaml>=6"),
        files=(("app.py", _NEMO_GYM_APP), ("configs/{module}.yaml", _NEMO_GYM_YAML)),
    ),
    "openenv": Neighbour(
        OPENENV, "vertigym.interop.openenv_server", _SERVED, files=(("openenv.yaml", _OPENENV_YAML),)
    ),
    "trl": Neighbour(TRL, "vertigym.interop.trl_tasks", ("datasets>=4.7", "trl>=1.10")),
    "verifiers": Neighbour(VERIFIERS, "vertigym.interop.verifiers_tasks", ("verifiers>=0.4",)),
}
