"""What an environment says to whoever reads its results: its rules in words, its reference answers."""

from collections.abc import Iterable

from vertigym.core.errors import VertigymError
from vertigym.envs.agent.env import AgentEnv
from vertigym.envs.decision.env import DecisionEnv
from vertigym.envs.decision.scripts import sandboxed
from vertigym.envs.env import Env


def rule_texts(env: Env) -> dict[str, str]:
    """The rules of a decision model by id, in its order, with their table's name where there are several; none
    for other environments."""
    if not isinstance(env, DecisionEnv | AgentEnv) or not env.folder:
        return {}
    rules = env.config.model(env.folder, sandboxed).rules
    several = len({rule.node for rule in rules.values()}) > 1
    return {id_: f"{rule.node}: {rule.text}" if several else rule.text for id_, rule in rules.items()}


def reference_answers(env: Env, task_ids: Iterable[str]) -> dict[str, str]:
    """The last action of each task's reference, of the tasks that are there and have one."""
    found = {}
    for task_id in task_ids:
        try:
            actions = env.reference(env.tasks.get(task_id))
        except VertigymError:
            continue
        if actions:
            found[task_id] = actions[-1]
    return found
