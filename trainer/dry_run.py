"""`vertigym train --dry-run`: everything that a run needs is opened and tried, and nothing is written.

The one idea: what a run would refuse is found by the code that refuses it. The environment and the suites
are made, models loaded, adapters put in, rows rendered, the folder tried; so what it accepts runs, as far as
the machine has room for it.
"""

from itertools import chain
from typing import Any

from vertigym import envs
from vertigym.core.errors import ConfigError
from vertigym.core.files import claim
from vertigym.core.types import SPLITS
from vertigym.policies import tiny
from vertigym.policies.chat import ChatRenderer
from vertigym.policies.engine import stop_ids
from vertigym.policies.lora import add_lora
from vertigym.policies.model_folder import context_of, load_model
from vertigym.policies.model_source import find_model
from vertigym.trainer import setup
from vertigym.trainer.config import RunConfig
from vertigym.trainer.gatekeeper import evidence, open_suites
from vertigym.trainer.prompt_lengths import long_prompts, long_rows
from vertigym.trainer.trackers import services


def plan(config: RunConfig, first: RunConfig | None = None) -> dict[str, Any]:
    """Open everything the run needs and describe it. `first`: the stage of a recipe that names the model.

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
    renderer, context = _opened(config, first or config, names)
    rows = config.rollout
    taught = chain.from_iterable(setup.taught_rows(config.rows, renderer)) if config.rows else ()
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
            *long_rows(list(chain.from_iterable(taught)), context),
            *long_prompts(config, env, suites, renderer, context),
        ],
    }


def _opened(config: RunConfig, first: RunConfig, names: dict[str, str]) -> tuple[ChatRenderer, int]:
    """The models, as far as the run's words and context go."""
    loaded = {role: load_model(find_model(name).folder) for role, name in names.items() if name != "tiny"}
    if "model" in loaded:
        model, tokenizer = loaded["model"]
        stop, context = stop_ids(model.generation_config), context_of(model.config)
        renderer = ChatRenderer(tokenizer, stop=stop, rows=model.get_input_embeddings().weight.shape[0])
        if config.lora:
            add_lora(model, config.lora, seed=config.seed)
    else:
        tokenizer = tiny.make_tokenizer(setup.texts(first, envs.make(first.env)), first.tiny)
        renderer, context = ChatRenderer(tokenizer), first.tiny.context
    if "teacher" in loaded:
        setup.refuse_other_tokens(names["teacher"], loaded["teacher"][1], tokenizer)
    return renderer, context
