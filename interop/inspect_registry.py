"""Every registered environment as a task of Inspect, by its entry point: `inspect eval vertigym/Returns-v0`.

Inspect imports this module for names that begin with `vertigym/`, and keeps tasks under the package's name:
ours are `vertigym/Name-v0`, others' `vertigym/acme/Name-v0`. `vertigym/environment` takes what has no such
name, a folder or an id with arguments: `-T id='vertigym/Arithmetic-v0?level=3'`.
"""

from collections.abc import Callable

from inspect_ai import Task, task

from vertigym.core.types import Split
from vertigym.envs import registry
from vertigym.interop.inspect_tasks import environment_task


@task  # type: ignore[untyped-decorator]  # Inspect may not be installed
def environment(id: str, split: Split = "eval", limit: int | None = None) -> Task:  # noqa: A002
    """Any environment."""
    return environment_task(id, split, limit)


def _offered(env_id: str) -> Callable[..., Task]:
    def offered(split: Split = "eval", limit: int | None = None) -> Task:
        return environment_task(env_id, split, limit)

    return offered


for _id in registry.ids():
    task(name=_id.removeprefix("vertigym/"))(_offered(_id))
