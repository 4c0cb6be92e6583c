"""What a run's environment says to whoever reads of the run, if it is still there: rules, right answers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from vertigym import envs
from vertigym.core.config import read_toml
from vertigym.core.errors import VertigymError
from vertigym.envs.explained import reference_answers, rule_texts, task_rules
from vertigym.policies.model_source import is_run
from vertigym.trainer.run_files import RunFiles


@dataclass(frozen=True, slots=True)
class ExplainedRun:
    """A run's environment and the model its recipe started from, by name; `rules` in words, by id."""

    env: str = ""
    model: str = ""
    rules: Mapping[str, str] = field(default_factory=dict)

    def answers(self, task_ids: Iterable[str]) -> dict[str, str]:
        """The right answers of these tasks, as far as they are known."""
        env = _opened(self.env)
        return reference_answers(env, task_ids) if env else {}

    def task_rules(self, task_ids: Iterable[str]) -> dict[str, list[str]]:
        """The rules that these tasks hit, as far as they are known."""
        env = _opened(self.env)
        return task_rules(env, task_ids) if env else {}


def explain(run: RunFiles) -> ExplainedRun:
    """What the run's config names, and what that says of itself."""
    env = _named(run)[0]
    return ExplainedRun(env, _named(first_stage(run))[1], _rules(env))


def first_stage(run: RunFiles) -> RunFiles:
    """The run of a recipe's first stage, by the models that its stages started from; the run itself where it is
    of no recipe, or the others are gone."""
    above = Path(_named(run)[1]).parents
    if len(above) > 2 and above[2].name == "stages" and is_run(above[1]):
        return first_stage(RunFiles(above[1]))
    return run


def _named(run: RunFiles) -> tuple[str, str]:
    """The environment and the model in the run's config."""
    table = read_toml(run.folder / "config.toml")
    return str(table.get("env", "")), str(table.get("model", ""))


@lru_cache(maxsize=4)
def _opened(env: str) -> envs.Env | None:
    """The environment; None where it cannot be opened here, whatever the reason: a page shows what there is."""
    try:
        return envs.make(env) if env else None
    except Exception:
        return None


@lru_cache(maxsize=4)
def _rules(env: str) -> Mapping[str, str]:
    opened = _opened(env)
    try:
        return rule_texts(opened) if opened else {}
    except VertigymError:
        return {}
