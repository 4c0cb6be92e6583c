"""What an environment says to whoever reads its results: its rules in words, its reference answers."""

from collections.abc import Iterable
from contextlib import suppress

from vertigym.core.errors import VertigymError
from vertigym.decisions.protocols import RuleModel
from vertigym.envs.agent.env import AgentEnv
from vertigym.envs.decision.env import DecisionEnv
from vertigym.envs.decision.scripts import sandboxed
from vertigym.envs.env import Env


def decision_model(env: Env) -> RuleModel | None:
    """The decision model that an environment is made from; None where it is made from something else."""
    if not isinstance(env, DecisionEnv | AgentEnv) or not env.folder:
        return None
    return env.config.model(env.folder, sandboxed)


def rule_texts(env: Env) -> dict[str, str]:
    """The rules of a decision model by id, in its order, with their table's name where there are several; none
    for other environments."""
    model = decision_model(env)
    rules = model.rules if model else {}
    several = len({rule.node for rule in rules.values()}) > 1
    return {id_: f"{rule.node}: {rule.text}" if several else rule.text for id_, rule in rules.items()}


def task_rules(env: Env, task_ids: Iterable[str]) -> dict[str, list[str]]:
    """The rules that each task's case hits, of the tasks that are there and name some."""
    found = {}
    for task_id in task_ids:
        with suppress(VertigymError):
            rules = env.tasks.get(task_id).info.get("rules")
            if isinstance(rules, list | tuple):
                found[task_id] = [str(rule) for rule in rules]
    return found


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
