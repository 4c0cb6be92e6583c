"""`vertigym train --dry-run`: everything that a run needs is opened and tried, and nothing is written.

The one idea: what a run would refuse is found by the code that refuses it. The environment and the suites
are made, models loaded, adapters put in, rows rendered, the folder tried; so what it accepts runs, as far as
the machine has room for it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any

from vertigym import envs
from vertigym.core.errors import ConfigError, InputError
from vertigym.core.files import claim
from vertigym.core.types import SPLITS
from vertigym.policies import tiny
from vertigym.policies.chat import ChatRenderer
from vertigym.policies.engine import stop_ids
from vertigym.policies.lora import add_lora
from vertigym.policies.model_folder import context_of, load_model, load_tokenizer
from vertigym.policies.model_source import find_model
from vertigym.trainer import setup
from vertigym.trainer.config import RunConfig
from vertigym.trainer.devices import Device
from vertigym.trainer.gatekeeper import evidence, open_suites
from vertigym.trainer.prompt_lengths import FirstPrompts, first_prompts, long_prompts, long_rows
from vertigym.trainer.resource_plan import device_here, largest_step, resource_plan
from vertigym.trainer.sft import Row
from vertigym.trainer.trackers import services


def plan(config: RunConfig, first: RunConfig | None = None, device: Device | None = None) -> dict[str, Any]:
    """Open everything the run needs and describe it.

    Args:
        first: the stage of a recipe that names the model.
        device: a GPU to plan for, which need not be here: then no weights are loaded.

    Raises:
        InputError: as in `train`.
    """
    claim(config.output / config.name / "config.toml", force=True)
    services(config.tracking)
    env = envs.make(config.env)
    if not config.rows and not env.tasks.ids("train"):
        raise ConfigError(f"{config.env} has no tasks in its train split, on which {config.algorithm} trains")
    suites = open_suites(config.eval)
    names = setup.models_of(config)
    opened = _opened(config, first or config, names, weights=device is None)
    renderer, context = opened.renderer, context_of(opened.configs["model"])
    rows, prompts = config.rollout, first_prompts(config, env, suites, renderer)
    taught = setup.taught_rows(config.rows, renderer) if config.rows else ()
    return {
        "run": str(config.output / config.name),
        "environment": config.env,
        "tasks": {split: len(env.tasks.ids(split)) for split in SPLITS},
        **names,
        "algorithm": config.algorithm,
        "steps": config.steps,
        "samples a step": config.rows.batch if config.rows else rows.tasks * rows.group_size,
        "suites": [suite.name for suite in suites],
        "gates": evidence(config, suites),
        "long prompts": [
            *long_rows(chain.from_iterable(chain.from_iterable(taught)), context),
            *long_prompts(prompts, context),
        ],
        "computed": _computed(
            config, env, opened, chain.from_iterable(taught), prompts[0], device or device_here()
        ),
    }


def _computed(
    config: RunConfig,
    env: envs.Env,
    opened: "_Opened",
    taught: Iterable[Row],
    prompts: FirstPrompts,
    device: Device | None,
) -> dict[str, Any] | str:
    """Memory and time; or why they cannot be computed."""
    lengths = [length for length, _ in prompts.lengths]
    step = largest_step(config, taught, lengths, env.max_turns, context_of(opened.configs["model"]))
    scorers = [opened.configs["teacher"]] if "teacher" in opened.configs else []
    if (config.policy.kl or config.dpo) and not config.lora:  # adapters are switched off instead
        scorers.append(opened.configs["model"])
    try:
        return resource_plan(config, opened.configs["model"], step, device, scorers)
    except ConfigError:  # the run would refuse it, too
        raise
    except InputError as error:
        return str(error)


@dataclass(frozen=True, slots=True)
class _Opened:
    """How the run's words become tokens, and the config of each model by its role."""

    renderer: ChatRenderer
    configs: dict[str, Any]


def _opened(config: RunConfig, first: RunConfig, names: dict[str, str], *, weights: bool) -> _Opened:
    """The models, as far as the run's words, context and size go."""
    loaded = {}
    for role, name in names.items():
        if name == "tiny":
            continue
        folder = find_model(name).folder
        if weights:
            model, tokenizer = load_model(folder)
            loaded[role] = tokenizer, model.config, model.generation_config
            if role == "model" and config.lora:
                add_lora(model, config.lora, seed=config.seed)
        else:
            loaded[role] = load_tokenizer(folder)
    configs = {role: model_config for role, (_, model_config, _) in loaded.items()}
    if "model" in loaded:
        tokenizer, model_config, generation = loaded["model"]
        rows = int(model_config.get_text_config().vocab_size)
        renderer = ChatRenderer(tokenizer, stop=stop_ids(generation), rows=rows)
    else:
        tokenizer = tiny.make_tokenizer(setup.texts(first, envs.make(first.env)), first.tiny)
        renderer, configs["model"] = ChatRenderer(tokenizer), tiny.model_config(tokenizer, first.tiny)
    if "teacher" in loaded:
        setup.refuse_other_tokens(names["teacher"], loaded["teacher"][0], tokenizer)
    return _Opened(renderer, configs)
