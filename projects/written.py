"""The files of a project beside its environment: two suites, the recipe, and the README.

Sizes follow what was measured (docs/recipes.md): the tiny model takes large steps, a pretrained one small ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from shlex import join

from vertigym.core.files import dumps
from vertigym.core.types import Split
from vertigym.projects.sources import ENVIRONMENT, Choice

SUITES: dict[str, Split] = {"eval": "eval", "release": "test"}
ROWS = "warm-start.jsonl"
RECIPE = "recipe.toml"
_WHAT_A_SUITE_IS = {
    "eval": "Which checkpoint is promoted in training: one that is better than the champion on these tasks.",
    "release": "Whether it ships: better than what training started from, on tasks that decided nothing yet.",
}


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much a recipe trains at once. `rates`: the learning rates of the warm start and of RL; None: the
    defaults, for large models. `context`: of a tiny model, where it needs more than usual."""

    max_tokens: int
    rows: int
    tasks: int
    rates: tuple[float, float] | None
    context: int = 0


def suite_text(name: str, suite: str, metric: str, max_tokens: int) -> str:
    """A suite file."""
    return f"""\
# {_WHAT_A_SUITE_IS[suite]}
name = "{name}-{suite}"
metrics = ["{metric}"]

[[env]]
id = "{ENVIRONMENT}"
split = "{SUITES[suite]}"

[sampling]
max_tokens = {max_tokens}

[[gate]]
rule = "improves"
metric = "{metric}"
"""


def recipe_text(name: str, model: str, sizes: Sizes) -> str:
    """The recipe: a warm start on the reference answers, then RL."""
    tiny = model == "tiny"
    warm, rl = (f"lr = {rate}, " for rate in sizes.rates) if sizes.rates else ("", "")
    about = "a 0.9 M model made on the spot; any Hugging Face folder or org/name works" if tiny else ""
    context = f"tiny = {{ context = {sizes.context} }}\n" if sizes.context else ""
    warm_steps, rl_steps, every = (450, 60, 10) if tiny else (120, 20, 10)
    slow = "" if tiny else ", warmup_steps = 10"
    careful = 'schedule = "cosine"' if tiny else "warmup_steps = 3"
    groups = ", max_groups = 32, entropy = 0.02" if tiny else ", entropy = 0.01"
    return f"""\
# Run with `vertigym train {RECIPE}`; paths are relative to this file.
name = "{name}"
env = "{ENVIRONMENT}"
model = {dumps(model)}{f"  # {about}" if about else ""}
{context}{"" if tiny else 'dtype = "bfloat16"' + chr(10)}
[eval]
suites = ["eval.toml"]

# The model learns the form of the answers, and what it can, from the references of the training tasks.
[[stage]]
name = "warm-start"
algorithm = "sft"
steps = {warm_steps}
sft = {{ data = "{ROWS}", batch = {sizes.rows} }}
optimizer = {{ {warm}schedule = "cosine"{slow} }}
eval = {{ every = {warm_steps} }}

# It writes answers of its own and learns from their scores.
[[stage]]
name = "grpo"
algorithm = "grpo"
steps = {rl_steps}
rollout = {{ tasks = {sizes.tasks}, group_size = 8, max_tokens = {sizes.max_tokens} }}
policy = {{ minibatches = 2{groups} }}
optimizer = {{ {rl}{careful} }}
eval = {{ every = {every} }}
"""


def commands(name: str, model: str, place: str = "") -> list[tuple[str, str]]:
    """The next commands, with what each does. `place`: what leads to the project's folder, with its slash."""
    run = f"{place}runs/{name}"
    start = f"{run}/stages/warm-start/checkpoints/step-000000" if model == "tiny" else model
    told = {
        ("train", place + RECIPE): "train, and promote what is shown to be better",
        (
            "eval",
            f"{place}release.toml",
            "-m",
            run,
            "-b",
            start,
            "-o",
            f"{place}release",
        ): "exit 0: it may ship",
        ("report", run, "-o", f"{place}report.html"): "a page to read",
    }
    return [(join(["vertigym", *words]), what) for words, what in told.items()]


def readme_text(name: str, id: str, model: str, choices: Sequence[Choice], notes: Sequence[str]) -> str:  # noqa: A002
    """The README: what to do next, what lies here, what was decided and why."""
    steps = "\n".join(f"    # {what}\n    {command}" for command, what in commands(name, model))
    cells = [tuple(text.replace("|", "\\|") for text in (c.what, c.chosen, c.why)) for c in choices]
    decided = "\n".join(f"| {' | '.join(row)} |" for row in cells)
    noted = "".join(f"- {note}\n" for note in notes)
    return f"""\
# {id}

Next, in this folder:

{steps}

- `{ENVIRONMENT}/`: the tasks and how answers are scored; `vertigym env show {ENVIRONMENT}`.
- `eval.toml`, `release.toml`: the suites. The first decides in training which checkpoint is promoted, the
  second whether it ships, on tasks that decided nothing yet.
- `{ROWS}`: the reference answers of the training tasks, as chats. Your own logs in this form are better.
- `{RECIPE}`: the training, in two stages.

## What was decided, and why

| | | |
|---|---|---|
{decided}

{f"## To look at{chr(10)}{chr(10)}{noted}" if notes else ""}"""
