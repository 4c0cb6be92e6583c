"""`vertigym start`: one file of a team becomes a project.

    DIR/
      environment/        the tasks, and how answers are scored
      eval.toml           the suite that decides in training which checkpoint is promoted
      release.toml        the suite that says whether it ships, on tasks that decided nothing yet
      warm-start.jsonl    the reference answers of the training tasks, as chats
      recipe.toml         the training: a warm start, then GRPO
      README.md           the next commands; what was decided, and why

The one idea: it asks nothing. What must be decided is decided by the file and by what was measured elsewhere,
and said with its reason; `env check` and a dry run of the recipe have tried the project before it is there.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from vertigym import envs
from vertigym.core.errors import ConfigError, DataError, InputError, OutputError
from vertigym.core.files import whole_folder, write_jsonl, write_text
from vertigym.core.types import SPLITS
from vertigym.envs.chat_rows import ChatRows, chat_rows
from vertigym.envs.check import CheckReport, check
from vertigym.envs.registry import is_env_id
from vertigym.policies import tiny
from vertigym.policies.chat import ChatRenderer
from vertigym.policies.engine import stop_ids
from vertigym.policies.model_folder import load_tokenizer
from vertigym.policies.model_source import find_model
from vertigym.projects.sources import ENVIRONMENT, Choice, read_source
from vertigym.projects.written import (
    RECIPE,
    ROWS,
    SUITES,
    Sizes,
    commands,
    readme_text,
    recipe_text,
    suite_text,
)
from vertigym.traces.table_rows import on_hub
from vertigym.trainer.recipe import load_stages, plan_stages

TINY = "tiny"
_STEP_TOKENS = 4000  # of a tiny model's batch, about: minutes on two cores
_SMALL = 300_000_000  # parameters of a model that was measured, at most


@dataclass(frozen=True, slots=True)
class Project:
    """What `start` made. `notes`: what somebody should look at; `next`: commands with what they do."""

    id: str
    folder: Path
    choices: Sequence[Choice]
    notes: Sequence[str]
    check: CheckReport
    next: Sequence[tuple[str, str]]


def start(
    file: Path,
    out: Path,
    *,
    id: str = "",  # noqa: A002
    model: str = TINY,
    seed: int = 0,
    columns: Mapping[str, str] | None = None,
) -> Project:
    """Make a project of a file, or of a folder of tests, in the new folder `out`, whole or not at all.

    Args:
        id: of the environment, namespace/Name-v0; left out: by the file's name.
        model: what is to be trained: `tiny`, or as in a run's config.
        columns: of questions and answers, our name of a column -> theirs.

    Raises:
        InputError: the file cannot be read as anything, or says too little; there is no such model.
        OutputError: something lies in `out`.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputError(f"{out} exists: name a new folder")
    title = re.sub(r"[^A-Za-z0-9]+", "-", _name(file)).strip("-") or "project"
    id = id or f"local/{title[0].upper()}{title[1:]}-v0"  # noqa: A001
    if not is_env_id(id):
        raise ConfigError(f"environment id {id!r}: the form is namespace/Name-v0")
    name = id.rpartition("/")[2].rpartition("-v")[0].lower()
    if model != TINY and Path(model).exists():
        model = os.path.abspath(model)
    with _without_leftovers(out), whole_folder(out) as beside, _named_as(out, beside):
        source = read_source(file, id, beside, seed, columns)
        env = envs.make(str(beside / ENVIRONMENT))
        if lacking := [split for split in SPLITS if not env.tasks.ids(split)]:
            raise DataError(
                f"{file}: no tasks for {' and '.join(lacking)}: {'; '.join(env.notes) or 'too few'}"
            )
        rows = chat_rows(env, seed=seed)
        sizes, why = _sizes(model, rows)
        write_jsonl(beside / ROWS, rows.rows)
        write_text(beside / RECIPE, recipe_text(name, model, sizes))
        for suite in SUITES:
            write_text(beside / f"{suite}.toml", suite_text(name, suite, source.metric, sizes.max_tokens))
        choices = [*source.choices, *_choices(model, rows, sizes, why, source.metric)]
        checked = replace(check(str(beside / ENVIRONMENT), seed=seed), env=id)
        notes = [*source.notes, *env.notes, *_tried(beside / RECIPE)]
        notes += [f"env check: {finding.message} ({finding.advice})" for finding in checked.findings]
        write_text(beside / "README.md", readme_text(name, id, model, choices, notes))
    return Project(id, out, choices, notes, checked, commands(name, model, f"{out}/"))


def _name(file: Path) -> str:
    """What it is called: of a folder of tests the project's folder, of a data set its own name."""
    if on_hub(file):
        return re.split("[:@]", str(file).removeprefix("hf:").strip("/"))[0].split("/")[:2][-1]
    named = file.absolute().parent if file.name in ("tests", "test") else file
    return named.name.partition(".")[0]


@contextmanager
def _without_leftovers(out: Path) -> Iterator[None]:
    """Where nothing comes of it, the folders above are gone again that were not there."""
    missing = [folder for folder in out.absolute().parents if not folder.exists()]
    try:
        yield
    except BaseException:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        raise


@contextmanager
def _named_as(out: Path, beside: Path) -> Iterator[None]:
    """Errors name the folder that was asked for, not the one that is being filled."""
    try:
        yield
    except InputError as error:
        if str(beside) not in str(error):
            raise
        raise DataError(str(error).replace(str(beside), str(out))) from error


def _tried(recipe: Path) -> list[str]:
    """What a dry run of the recipe warns of.

    Raises:
        InputError: it would not run.
    """
    planned = plan_stages(load_stages(recipe))
    return list(dict.fromkeys(note for stage in planned for note in (*stage["gates"], *stage["long prompts"])))


def _sizes(model: str, found: ChatRows) -> tuple[Sizes, str]:
    """What a step holds, and why."""
    texts = [message["content"] for row in found.rows for message in row["messages"]]
    if model == TINY:
        size = tiny.TinySize()
        renderer = ChatRenderer(tiny.make_tokenizer(texts, size))
        parameters = 0
    else:
        tokenizer, config, generation = load_tokenizer(find_model(model, weights=False).folder)
        renderer, parameters = ChatRenderer(tokenizer, stop=stop_ids(generation)), _parameters(config)
    samples = [
        one for row in found.rows for one in renderer.training_rows(row["messages"], row.get("tools") or ())
    ]
    answer = max(sum(sample.loss_mask) for sample in samples)
    max_tokens = max(8, answer + answer // 2)
    if model != TINY:
        small = parameters <= _SMALL
        rates = (2e-4, 1e-5) if small else None
        return Sizes(max_tokens, 16, 24, rates), f"{parameters / 1e6:.0f} M parameters: " + (
            "the rates that were measured for 135 M" if small else "the careful defaults; adapters: add [lora]"
        )
    batch = max(8, min(64, int(_STEP_TOKENS / fmean(len(sample.token_ids) for sample in samples))))
    longest = max(len(sample.token_ids) for sample in samples) + max_tokens
    context = 0 if longest * 5 // 4 <= size.context else 2 ** (longest * 5 // 4).bit_length()
    return Sizes(max_tokens, batch, batch, (2e-3, 2e-4), context), f"about {_STEP_TOKENS} tokens a step"


def _parameters(config: object) -> int:
    """How many a model has, without loading it."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())


def _choices(model: str, rows: ChatRows, sizes: Sizes, why: str, metric: str) -> list[Choice]:
    named = "built on the spot, to see the whole in minutes" if model == TINY else "as you said"
    earned = "could not be scored" if rows.mean is None else f"earn {rows.mean:.3f} on average"
    return [
        Choice("model", model, named),
        Choice(
            "warm start", f"{len(rows.rows)} chats", f"the references of the training tasks, which {earned}"
        ),
        Choice("a step", f"{sizes.rows} rows, {sizes.tasks} tasks x 8 samples", why),
        Choice(
            "an answer", f"at most {sizes.max_tokens} tokens", "half as much again as the longest reference"
        ),
        Choice(
            "gates",
            f"improves, on {metric}",
            "a checkpoint ships if it is shown to be better, on the same tasks",
        ),
    ]
