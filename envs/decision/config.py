"""The environment folder: all that a decision environment is, without Python.

Loan-v0/
  env.toml              id, which output fields are asked for, weights, tolerance, rules shown or hidden
  decision.json         the decision model (decision.dmn, and the files it imports, for DMN)
  tasks/train.jsonl     one Task a line; also eval.jsonl, test.jsonl
  README.md             what it is, how many tasks, which rules they hit
  manifest.json         the sha256 of each file: what was edited is not replaced by the next import
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from vertigym.core.config import Config
from vertigym.core.files import dumps, write_jsonl, write_text
from vertigym.core.manifest import sealed_folder
from vertigym.core.types import SPLITS, Split, Task
from vertigym.decisions.findings import analyse
from vertigym.decisions.formats import ReadOptions, read_model
from vertigym.decisions.model import Engine
from vertigym.decisions.protocols import RuleModel
from vertigym.envs.folders import EnvFolder

Rules = Literal["shown", "hidden"]

FOLDER = "environment"  # what the manifest of such a folder says it is
MODEL_FILES = ("decision.json", "decision.dmn")
OLD_DECISION = "decision-old.json"  # optional: an earlier version of decision.json
OLD_FILES = (OLD_DECISION, "decision-old.dmn")


class Weights(Config):
    """What each part of the score is worth; together 1, so that the right answer scores 1."""

    parses: float = Field(0.1, ge=0, description="JSON of the answer's shape")
    fields: float = Field(0.3, ge=0, description="the share of right fields")
    exact: float = Field(0.6, ge=0, description="all right, nothing added")

    @model_validator(mode="after")
    def _sum_to_one(self) -> "Weights":
        total = self.parses + self.fields + self.exact
        if abs(total - 1) > 1e-9:
            raise ValueError(f"weights: parses + fields + exact must be 1, got {total:g}")
        return self


class RulesConfig(Config):
    """What every `env.toml` over a decision model may say."""

    id: str = Field(description="namespace/Name-v0")
    kind: str
    description: str = Field("", description="one line about it")
    rules: Rules = Field("hidden", description="in the prompt, or to be known")
    outputs: Annotated[
        tuple[str, ...], Field(min_length=1, description="fields asked for; $: the whole output")
    ]
    tolerance: float = Field(1e-6, ge=0, description="numbers that differ by no more are equal")
    seed: int = Field(0, description="by which the tasks were drawn")
    now: str = Field("", description="the moment at which the model's clock stands")
    decisions: tuple[str, ...] = Field(
        (), description="which of a DMN file are asked for; left out: those that no other requires"
    )

    def model(self, folder: EnvFolder, scripts: Engine | None = None) -> RuleModel:
        """The decision model in the environment's folder, with its clock stopped where this says when.

        Raises:
            InputError: it is not there or cannot be used.
        """
        file = next(
            (f for name in MODEL_FILES if (f := folder.file(name)).is_file()), folder.file(MODEL_FILES[0])
        )
        model = read_model(file, ReadOptions(scripts=scripts, decisions=self.decisions))
        return model.at(self.now) if self.now and model.clock_readers() else model

    def reachable(self, folder: EnvFolder) -> list[str]:
        """The ids of the rules that are not proven unreachable.

        Raises:
            InputError: the model is not there or cannot be used.
        """
        model = self.model(folder)
        gone = analyse(model).unreachable
        return [rule for rule in model.rules if rule not in gone]


class DecisionConfig(RulesConfig):
    """`env.toml` of a decision environment."""

    kind: Literal["decision"]
    weights: Weights = Weights()


_TOML = """\
id = {id}
kind = "decision"
description = {description}

# "shown" puts the rules into the system message, "hidden" keeps them back.
rules = {rules}

# The output fields asked for (dotted paths; "$" is the whole output).
outputs = [{outputs}]

# Two numbers are equal when they differ by no more than this.
tolerance = {tolerance}

# How the tasks were sampled.
seed = {seed}
{now}{decisions}
[weights]
parses = {parses}
fields = {fields}
exact = {exact}
"""


def write_folder(
    folder: Path,
    config: str,
    files: Mapping[str, str],
    tasks: Mapping[Split, Sequence[Task]],
    readme: str,
    *,
    keep: Sequence[str] = (),
    extra: Mapping[str, str] | None = None,
    force: bool = False,
) -> None:
    """Write the whole folder, or nothing; `config` is the text of `env.toml`, `files` are the
    model's. Files named in `keep` are carried
    over from the old one; `extra` are further files by name.

    Raises:
        OutputError: what stands there is no environment that was imported, or was edited and `force` is not
            given.
    """
    kept = {name: (folder / name).read_text("utf-8") for name in keep if (folder / name).is_file()}
    with sealed_folder(folder, FOLDER, force=force) as new:
        write_text(new / "env.toml", config)
        write_text(new / "README.md", readme)
        for name, text in {**files, **kept, **(extra or {})}.items():
            write_text(new / name, text)
        for split in SPLITS:
            write_jsonl(new / "tasks" / f"{split}.jsonl", map(_row, tasks[split]))


def config_text(config: DecisionConfig) -> str:
    """`env.toml`."""
    return _TOML.format(
        id=dumps(config.id),
        description=dumps(config.description),
        rules=dumps(config.rules),
        outputs=", ".join(map(dumps, config.outputs)),
        tolerance=config.tolerance,
        seed=config.seed,
        now=f"now = {dumps(config.now)}\n" if config.now else "",
        decisions=f"decisions = {dumps(config.decisions)}\n" if config.decisions else "",
        **config.weights.model_dump(),
    )


def _row(task: Task) -> dict[str, object]:
    return task.model_dump(exclude_defaults=True)
