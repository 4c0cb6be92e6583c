"""Recipes: stages of training that follow one another in one run folder, such as a warm start and then RL.

    name = "loan"                          # a key outside of the stages is every stage's own
    env = "environment"
    model = "tiny"                         # what the first stage trains

    [[stage]]
    name = "warm-start"
    algorithm = "sft"
    steps = 150
    sft = { data = "warm-start.jsonl" }

    [[stage]]
    algorithm = "grpo"                     # also its name, where it has none
    steps = 60
    takes = "last"                         # of the stage before: "last" weights, or its "champion"
    eval = { suites = ["suite.toml"] }

The one idea: a stage is a run like any other, whose model is what the stage before has left. The last one's
folder is the recipe's, `runs/loan`, so that whatever reads a run reads a recipe; the others lie below it, in
`runs/loan/stages/NAME`. Paths in a recipe are relative to its file.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict

from vertigym.core.config import Config, parse, read_toml
from vertigym.core.errors import ConfigError, UnknownNameError
from vertigym.envs import registry
from vertigym.learner.ranks import Ranks, join_ranks
from vertigym.policies.model_source import is_run
from vertigym.traces.table_rows import on_hub
from vertigym.trainer.config import RunConfig
from vertigym.trainer.device_defaults import device_type, for_device
from vertigym.trainer.devices import Device
from vertigym.trainer.dry_run import plan
from vertigym.trainer.loop import Progress, RunOutcome, train
from vertigym.trainer.run import Run

Takes = Literal["champion", "last"]
Table = dict[str, Any]


class StageHead(Config):
    """What a stage has beside a run's own keys."""

    model_config = ConfigDict(extra="allow")

    takes: Takes | None = None


class RecipeHead(Config):
    """A recipe before its stages are made: `model_extra` is what they share."""

    model_config = ConfigDict(extra="allow")

    name: str
    output: Path = Path("runs")
    stage: dict[str, StageHead]


@dataclass(frozen=True, slots=True)
class Stage:
    """A run of a recipe. `takes`: what it starts from of the stage before; None: from its config's model."""

    name: str
    config: RunConfig
    takes: Takes | None = None

    @property
    def folder(self) -> Path:
        """Its run's folder."""
        return self.config.output / self.config.name


def load_stages(path: Path, overrides: Sequence[str] = (), device: str = "") -> list[Stage]:
    """The stages of a recipe, or the one that a plain config is. `stage.NAME.key=value` overrides
    a key of one stage. Defaults are those of `device`; "": of this machine's.

    Raises:
        DataError: the file is missing. ConfigError: not TOML, an unknown key or stage, a wrong value.
    """
    table, device = read_toml(path), device or device_type()
    if isinstance(table.get("env"), list) or "gate" in table:
        raise ConfigError(f"{path}: a suite, not a run: measure a model with `vertigym eval {path} -m MODEL`")
    if "stage" not in table:
        config = for_device(parse(RunConfig, table, overrides, source=str(path)), device)
        return [Stage(config.name, config)]
    folder = Path(os.path.abspath(path.parent))
    named = {name: _beside(folder, stage) for name, stage in _by_name(table["stage"], str(path)).items()}
    shared = _beside(
        folder, {"output": "runs"} | {key: value for key, value in table.items() if key != "stage"}
    )
    head = parse(RecipeHead, shared | {"stage": named}, overrides, source=str(path))
    for name in head.stage:
        if name not in named:
            raise UnknownNameError("stage", name, list(named))
    return [replace(stage, config=for_device(stage.config, device)) for stage in _stages(head, str(path))]


def train_stages(
    stages: Sequence[Stage],
    *,
    resume: bool = False,
    watch: Callable[[Stage], AbstractContextManager[Progress]] = lambda _: nullcontext(Progress()),
) -> RunOutcome:
    """Run the stages, or go on in the one that was interrupted. Where a stage promotes nothing, what the stage
    before promoted stays the champion: it is the checkpoint of step 0.

    Raises:
        InputError, RunError: as `train`; or a folder holds a run already.
    """
    with join_ranks() as ranks:
        first = ranks.on_leader(lambda: _where_to_begin(stages, resume=resume))
        outcome = None
        for index in range(first, len(stages)):
            stage = stages[index]
            if index:
                stage = _after(stages[index - 1], stage, ranks)
            with watch(stage) as progress:
                outcome = train(stage.config, resume=resume and index == first, progress=progress)
                if index and ranks.leader:
                    _keep_champion(stages[index - 1], stage, outcome, progress)
        assert outcome
        outcome.promoted = ranks.on_leader(outcome.run.promoted)
        return outcome


def plan_stages(
    stages: Sequence[Stage], *, resume: bool = False, device: Device | None = None
) -> list[dict[str, Any]]:
    """Open everything that the stages need and describe them, for a GPU where one is named; writes nothing.

    Raises:
        InputError: as in `train`.
    """
    _where_to_begin(stages, resume=resume)
    found = [plan(stage.config, stages[0].config, device) for stage in stages]
    for before, stage, planned in zip(stages, stages[1:], found[1:], strict=False):
        planned["model"] = f"{stage.takes} of stage {before.name}"
    return found


def _by_name(listed: Any, source: str) -> dict[str, Table]:
    """The `[[stage]]` tables by their names."""
    if not isinstance(listed, list) or not listed or not all(isinstance(one, dict) for one in listed):
        raise ConfigError(f"{source}: stages are tables in a list: write [[stage]] above each")
    named: dict[str, Table] = {}
    for number, table in enumerate(listed, 1):
        name = table.get("name", table.get("algorithm"))
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{source}: stage {number} has no algorithm")
        if name in named:
            raise ConfigError(f'{source}: two stages are called {name}: give them names, name = "…"')
        named[name] = {key: value for key, value in table.items() if key != "name"}
    return named


def _stages(head: RecipeHead, source: str) -> Iterator[Stage]:
    shared = head.model_extra or {}
    own = {name: stage.model_extra or {} for name, stage in head.stage.items()}
    for key in shared:
        if all(key in table and not isinstance(table[key], dict) for table in own.values()):
            raise ConfigError(f"{source}: {key} does nothing, every stage has its own: set stage.NAME.{key}")
    before: RunConfig | None = None
    for index, (name, stage) in enumerate(head.stage.items()):
        last = index == len(own) - 1
        where = f"{source}: stage {name}"
        if index and "model" in own[name]:
            raise ConfigError(
                f'{where}: its model is what the stage before leaves: takes = "champion" or "last"'
            )
        if not index and stage.takes:
            raise ConfigError(f"{where}: takes: there is no stage before it")
        if "output" in own[name]:
            raise ConfigError(f"{where}: output is the recipe's: set it above the stages")
        place = {"name": head.name, "output": str(head.output)}
        if not last:
            place = {"name": name, "output": str(head.output / head.name / "stages")}
        if before:
            place["model"] = before.model
        config = parse(RunConfig, _merged(shared, own[name]) | place, source=where)
        yield Stage(name, config, (stage.takes or _usual(before)) if before else None)
        before = config


def _usual(before: RunConfig) -> Takes:
    """What is taken of a stage unless told otherwise: what its gates chose, where it has some."""
    return "champion" if before.eval else "last"


def _merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> Table:
    """A stage's keys over those of all, section by section."""
    both = dict(shared)
    for key, value in own.items():
        under = both.get(key)
        both[key] = _merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return both


def _beside(folder: Path, table: Mapping[str, Any]) -> Table:
    """The table with its paths as they are from anywhere. A name of an environment or a model that is no folder
    there is left alone: it is an id, or a model of the hub."""
    found = dict(table)
    for key, value in table.items():
        match key, value:
            case "env", str() if (folder / value.partition("?")[0] / "env.toml").is_file():
                found[key] = registry.absolute(str(folder / value))
            case ("model" | "teacher", str()) if (folder / value).exists():
                found[key] = str(folder / value)
            case ("data" | "held_out" | "output", str()) if not on_hub(value):
                found[key] = str(folder / value)
            case "suites", list():
                found[key] = [str(folder / suite) if isinstance(suite, str) else suite for suite in value]
            case ("sft" | "dpo" | "distill" | "eval", dict()):
                found[key] = _beside(folder, value)
    return found


def _where_to_begin(stages: Sequence[Stage], *, resume: bool) -> int:
    """The place of the stage to start or to go on with.

    Raises:
        ConfigError: a folder holds a run and `resume` is not given, or a finished stage had another config.
    """
    begun = [index for index, stage in enumerate(stages) if is_run(stage.folder)]
    if not begun:
        return 0
    if not resume:
        raise ConfigError(
            f"{stages[begun[0]].folder} already holds a run: continue it with --resume, rename the new one, or "
            "delete it"
        )
    for index in range(begun[-1]):
        stage = stages[index]
        earlier = _started(stages[index - 1], stage) if index else stage
        Run(stage.folder).refuse_changes(earlier.config)
    return begun[-1]


def _started(before: Stage, stage: Stage) -> Stage:
    """The stage with the model that the finished one before it has left."""
    run = Run.open(before.folder)
    left = run.checkpoints()[-1] if stage.takes == "last" else run.promoted() or run.checkpoint(0)
    return replace(stage, config=stage.config.model_copy(update={"model": str(left), "revision": ""}))


def _after(before: Stage, stage: Stage, ranks: Ranks) -> Stage:
    return ranks.on_leader(lambda: _started(before, stage))


def _keep_champion(before: Stage, stage: Stage, outcome: RunOutcome, progress: Progress) -> None:
    """Let what the stage before promoted stay promoted, where nothing in this one was judged to be better."""
    kept = Run.open(before.folder).promotion()
    if kept and stage.takes == "champion" and outcome.gated and not outcome.run.promoted():
        reason = f"stage {before.name}: {kept['reason']}; stage {stage.name} was not shown to be better"
        outcome.run.promote(0, reason)
        progress.on_note(f"what stage {before.name} promoted stays the champion")
