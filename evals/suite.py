"""Suite: which tasks, how many samples, which metrics, which gates; written in TOML.

    name = "returns"

    [[env]]
    id = "vertigym/Returns-v0"      # or an environment's folder, relative to this file
    split = "eval"
    tasks = 200                     # leave out for all
    samples = 1

    [sampling]
    temperature = 0.0
    max_tokens = 96

    [[gate]]
    rule = "improves"

    [[gate]]
    rule = "not_worse"
    margin = 0.02
    slice = "rule=late-return"

The task list is fixed: the same suite on the same environments gives the same tasks in the same order, and
its hash says so. Two reports are compared only when their hashes agree.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from vertigym.core import config
from vertigym.core.config import Config
from vertigym.core.errors import ConfigError
from vertigym.core.seeds import generator
from vertigym.core.types import Sampling, Split, Task
from vertigym.envs import registry
from vertigym.envs.env import Env
from vertigym.evals.mean_bounds import Range
from vertigym.evals.rules import Gate

Make = Callable[..., Env]


class EnvPart(Config):
    """One `[[env]]` table. `tasks` is at most how many; `weight` its part of the overall mean; `name` labels
    it in reports."""

    id: str = Field(description="an environment's id, or its folder, relative to the suite")
    name: str = Field("", description="its label in the report")
    split: Split = Field("eval", description="which tasks")
    tasks: int | None = Field(None, ge=1, description="at most; left out: all")
    samples: int = Field(1, ge=1, description="of each task")
    weight: float = Field(1.0, gt=0, description="its part of the overall mean")
    args: dict[str, Any] = Field(default_factory=dict, description="arguments of the environment")


class EvalSampling(Sampling):
    """`[sampling]`: greedy unless told otherwise."""

    temperature: float = Field(0.0, ge=0, description="0: greedy")


class Price(Config):
    """US dollars per million tokens; or `hour`, what an hour of the machine costs, for a model of your own. A
    call is then charged all of the machine for as long as it takes: what it costs where calls come one at a
    time, and an upper bound where the machine answers several at once."""

    input: float = Field(0.0, ge=0, description="a million tokens of the prompt")
    output: float = Field(0.0, ge=0, description="a million tokens of the answer")
    hour: float = Field(0.0, ge=0, description="of the machine")

    @model_validator(mode="after")
    def _one_kind(self) -> "Price":
        if bool(self.hour) == bool(self.input or self.output) and self.model_fields_set != {"input", "output"}:
            raise ValueError("a price is input and output per million tokens, or hour")
        return self


class Suite(Config):
    """A whole suite file. `slices` are `cluster` or dotted fields of a task (`info.tier`); rules in
    `task.info["rules"]` are always sliced. `prices` maps model names (`*` allowed) to prices. A suite whose
    unscored share is above `max_unscored` passes no gate.

    `cluster` says what was sampled, and so what is one piece of evidence: `case` (tasks on the same input),
    `rules` (the rules hit), a field (`info.customer`); left out, what the environment says. `ranges` says
    what a task's value of a metric can be at least and at most, where it is not what the environment says of
    its rewards, or has no limit of its own (latency, cost)."""

    name: str = Field(pattern=r"^\w[\w.-]*$", description="in reports and run folders")
    env: tuple[EnvPart, ...] = Field(min_length=1)
    sampling: EvalSampling = EvalSampling()
    metrics: tuple[str, ...] = Field(("score",), description="what is reported")
    slices: tuple[str, ...] = Field(
        (), description="cluster, or fields of a task (info.tier); rules always are"
    )
    gate: tuple[Gate, ...] = ()
    cluster: str = Field(
        "",
        pattern=r"^(case|rules|info\..+)?$",
        description="what one piece of evidence is: case, rules, a field; left out: as the environment says",
    )
    ranges: dict[str, Range] = Field(
        default_factory=dict, description="least and largest value of a task by metric, where it is not 0 to 1"
    )
    combine: Literal["all", "any"] = Field("all", description="all gates, or any one")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of intervals and gates")
    max_unscored: float = Field(
        0.02, ge=0, lt=1, description="a larger share of unscored samples passes no gate"
    )
    prices: dict[str, Price] = Field(default_factory=dict, description="by model name, * allowed")
    tags: tuple[str, ...] = Field((), description="kept in reports")
    seed: int = Field(0, description="by which tasks are drawn where there are more")

    @field_validator("ranges")
    @classmethod
    def _ordered(cls, ranges: dict[str, Range]) -> dict[str, Range]:
        for metric, (low, high) in ranges.items():
            if not -math.inf < low < high < math.inf:
                raise ValueError(
                    f"{metric} = [{low:g}, {high:g}]: a range is the least and the most, as numbers"
                )
        return ranges


@dataclass(frozen=True, slots=True)
class SuiteTask:
    """A task in its place: the label of its environment, its part of the whole weight, its content's hash."""

    env: str
    task: Task
    samples: int
    weight: float
    digest: str


@dataclass(frozen=True, slots=True)
class TaskList:
    """What a suite measures: its environments by label, its tasks in order, and the hash over all of it.
    `ranges` says what a task's value of a metric can be, where it is not 0 to 1."""

    envs: Mapping[str, Env]
    tasks: tuple[SuiteTask, ...]
    hash: str

    ranges: Mapping[str, Range]


def load_suite(path: Path, overrides: tuple[str, ...] = ()) -> Suite:
    """Read a suite file. Environment folders may be given relative to it.

    Raises:
        DataError: the file is missing. ConfigError: not TOML, an unknown key, a wrong value.
    """
    table = config.read_toml(path)
    if "algorithm" in table or "stage" in table:
        raise ConfigError(f"{path}: a run, not a suite: train it with `vertigym train {path}`")
    suite = config.parse(Suite, table, overrides, source=str(path))
    beside = tuple(
        part.model_copy(update={"id": str(path.parent / part.id)})
        if (path.parent / part.id / "env.toml").is_file()
        else part
        for part in suite.env
    )
    return suite.model_copy(update={"env": beside})


def task_list(suite: Suite, make: Make = registry.make) -> TaskList:
    """The suite's tasks. Where a part asks for fewer than its split holds, they are drawn by `suite.seed`,
    whatever the seed of the run.

    Raises:
        UnknownNameError: no such environment. ConfigError: a split is empty, or two parts have one label.
    """
    envs: dict[str, Env] = {}
    tasks: list[SuiteTask] = []
    whole = sum(part.weight for part in suite.env)
    for part in suite.env:
        env = make(part.id, **part.args)
        label = part.name or _label(part.id)
        if label in envs or label == "all":
            raise ConfigError(f"suite {suite.name}: an [[env]] table needs a name of its own, not {label!r}")
        envs[label] = env
        chosen = _choose(suite, part, label, env)
        weight = part.weight / whole / len(chosen)
        tasks += [SuiteTask(label, task, part.samples, weight, digest(task)) for task in chosen]
    if suite.cluster not in ("", "case") and not any(cluster_of(one.task, suite.cluster) for one in tasks):
        raise ConfigError(
            f"suite {suite.name}: cluster = {suite.cluster!r}: no task has one, and each would count as "
            "evidence by itself; leave the key out to take what the environments say"
        )
    return TaskList(envs, tuple(tasks), _hash(suite, tasks), _ranges(suite, envs))


def _ranges(suite: Suite, envs: Mapping[str, Env]) -> dict[str, Range]:
    """What the suite says, else the environments together."""
    named = {metric for env in envs.values() for metric in env.ranges}
    all_of = {metric: [env.ranges.get(metric, (0.0, 1.0)) for env in envs.values()] for metric in named}
    joined = {metric: (min(low for low, _ in of), max(high for _, high in of)) for metric, of in all_of.items()}
    return joined | suite.ranges


def shortened(suite: Suite, *, tasks: int | None = None, samples: int | None = None) -> Suite:
    """The suite with at most `tasks` tasks an environment and `samples` samples a task."""
    parts = tuple(
        part.model_copy(
            update={
                "tasks": part.tasks if tasks is None else min(tasks, part.tasks or tasks),
                "samples": samples or part.samples,
            }
        )
        for part in suite.env
    )
    return suite.model_copy(update={"env": parts})


def digest(task: Task) -> str:
    """A hash of everything in a task."""
    return _sha(task.model_dump(mode="json"))


def slice_values(task: Task, names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """What a task has for each slice name: `{"rule": ("r1", "r2"), "info.tier": ("gold",)}`."""
    found = {"rule": _texts(task.info.get("rules"))}
    for name in names:
        value: Any = task
        for key in name.split("."):
            value = value.get(key) if isinstance(value, Mapping) else getattr(value, key, None)
        found[name] = _texts(value)
    return {name: values for name, values in found.items() if values}


def cluster_of(task: Task, by: str) -> str:
    """What the task shares with others by a suite's `cluster`; nothing where it stands alone."""
    if not by:
        return task.cluster
    field = {"case": "info.input", "rules": "info.rules"}.get(by, by)
    value: Any = task.info
    for key in field.split(".")[1:]:
        value = value.get(key) if isinstance(value, Mapping) else None
    if value is None and by == "case":
        return task.cluster
    return "" if value is None else json.dumps(value, sort_keys=True, default=str)


def _texts(value: Any) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    return tuple(str(v) for v in value) if isinstance(value, list | tuple | set) else (str(value),)


def _label(env_id: str) -> str:
    return registry.spec(env_id).id


def _choose(suite: Suite, part: EnvPart, label: str, env: Env) -> list[Task]:
    ids = list(env.tasks.ids(part.split))
    if not ids:
        raise ConfigError(f"suite {suite.name}: {label} has no tasks in split {part.split!r}")
    if part.tasks is None or part.tasks >= len(ids):
        return [env.tasks.get(task_id) for task_id in ids]
    drawn = generator(suite.seed, "suite", label, part.split).permutation(len(ids))[: part.tasks]
    return [env.tasks.get(ids[i]) for i in sorted(drawn)]


def _hash(suite: Suite, tasks: list[SuiteTask]) -> str:
    """Over what is measured: tasks, weights, samples, arguments, sampling. Gates, prices and slices only read
    the result."""
    listed = [[t.env, t.task.id, t.digest, t.samples, t.weight] for t in tasks]
    arguments = [part.args for part in suite.env]
    return _sha([listed, arguments, suite.sampling.model_dump(mode="json")])


def _sha(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=str)
    return sha256(text.encode()).hexdigest()[:16]
