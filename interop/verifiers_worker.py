"""Runs environments of verifiers in a process of their own, whose Python has verifiers: a script that imports
nothing of ours.

Its one argument is JSON (`name`, `limit`, `settings`). It prints a line of all tasks, then reads a line a job
(`job`, `task`, `url`, `key`) and prints one a result. Jobs run side by side; models are asked at the job's own
address. Version 1 is an episode of its environment with the harness `verifiers_chat` on this machine; version 0
a rollout. The rewards are verifiers' own.
"""

import asyncio
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

_MODEL, _THREADS = "policy", 1024


class VersionOne:
    """A taskset and its environment, by the package's name."""

    def __init__(self, name: str, settings: Mapping[str, Any], limit: int) -> None:
        import verifiers.v1 as vf

        roles = [
            field
            for field, about in vf.env_config_type(name).model_fields.items()
            if isinstance(about.default, vf.AgentConfig)
        ]
        seat = {"harness": {"id": "verifiers_chat"}, "runtime": {"type": "subprocess"}}
        taskset = {"id": name, **settings}
        config = vf.resolve_env_config({"taskset": taskset, **{role: dict(seat) for role in roles}})
        self._vf, self._env = vf, vf.load_environment(config)
        self._tasks = list(itertools.islice(self._env.taskset, limit))

    def tasks(self) -> list[dict[str, Any]]:
        """Each task's name and opening."""
        listed = []
        for task in self._tasks:
            data = json.loads(task.data.model_dump_json())
            system = [{"role": "system", "content": data["system_prompt"]}] if data.get("system_prompt") else []
            prompt = data.get("prompt") or ""
            said = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
            listed.append({"name": data.get("id") or data.get("name"), "messages": [*system, *said]})
        return listed

    def working(self) -> Any:
        """Its servers, up while jobs are done."""
        return self._env.serving()

    async def play(self, task: int, url: str, key_variable: str) -> dict[str, Any]:
        """An episode: the sum of its rewards, as verifiers weighs them; None where it failed."""
        client = self._vf.EvalClientConfig(base_url=url, api_key_var=key_variable)
        context = self._vf.ModelContext(client=client, model=_MODEL, sampling=self._vf.SamplingConfig())
        (slot,) = self._env.slots(self._tasks[task], 1)
        episode = await self._env.run_slot(slot, context)
        traces = list(episode.traces)
        errors = [error.message for one in (episode, *traces) for error in one.errors]
        rewards = {name: one for trace in traces for name, one in trace.rewards.items()}
        parts = {name: one for trace in traces for name, one in trace.metrics.items() if one is not None}
        whole = episode.ok and bool(rewards) and None not in rewards.values()
        reward = sum(one.score * one.weight for one in rewards.values()) if whole else None
        parts |= {name: one.score for name, one in rewards.items() if one is not None}
        return {"reward": reward, "parts": parts, "reason": errors[-1] if errors else "no reward"}


class VersionZero:
    """What `load_environment` gives."""

    def __init__(self, name: str, settings: Mapping[str, Any], limit: int) -> None:
        import verifiers as vf
        from verifiers.types import ClientConfig

        self._client, self._env = ClientConfig, vf.load_environment(name, **settings)
        self._rows = list(self._env.get_dataset().select(range(min(limit, len(self._env.get_dataset())))))

    def tasks(self) -> list[dict[str, Any]]:
        """Each row's opening."""
        return [{"name": None, "messages": row["prompt"]} for row in self._rows]

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Nothing has to be up."""
        yield

    async def play(self, task: int, url: str, key_variable: str) -> dict[str, Any]:
        """A rollout and its reward; None where it failed."""
        client = self._client(api_base_url=url, api_key_var=key_variable)
        done = await self._env.run_rollout(self._rows[task], client, _MODEL, {})
        error = done.get("error")
        reward = None if error else done["reward"]
        return {"reward": reward, "parts": dict(done.get("metrics") or {}), "reason": str(error or "")}


async def work(environment: "VersionOne | VersionZero", say: Any) -> None:
    """Do jobs until standard input ends."""
    # All episodes of a batch wait for answers at once: with fewer threads some would never ask.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
    running: set[asyncio.Task[None]] = set()

    async def do(job: Mapping[str, Any]) -> None:
        variable = f"VERTIGYM_KEY_{job['job']}"
        os.environ[variable] = job["key"]
        try:
            done = await environment.play(job["task"], job["url"], variable)
        except Exception as error:  # somebody else's code: whatever it raises is this job's fault only
            done = {"reward": None, "parts": {}, "reason": f"{type(error).__name__}: {error}"}
        finally:
            os.environ.pop(variable, None)
        say({"job": job["job"], **done})

    async with environment.working():
        while line := await asyncio.to_thread(sys.stdin.readline):
            task = asyncio.create_task(do(json.loads(line)))
            running.add(task)
            task.add_done_callback(running.discard)


def main() -> None:
    """Load, list, work."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what others print is no answer

    def say(value: Any) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    asked = json.loads(sys.argv[1])
    try:
        version = VersionOne if _is_version_one(asked["name"]) else VersionZero
        environment = version(asked["name"], asked["settings"], asked["limit"])
        say({"tasks": environment.tasks()})
    except Exception as error:  # the same
        say({"error": f"{type(error).__name__}: {error}"})
        return
    asyncio.run(work(environment, say))


def _is_version_one(name: str) -> bool:
    """Whether the package exports a taskset; verifiers before 0.4 holds both versions."""
    if find_spec("verifiers.v1") is None:
        return False
    import verifiers.v1 as vf

    try:
        vf.taskset_config_type(name)
    except (AttributeError, TypeError):
        return False
    return True


if __name__ == "__main__":
    main()
