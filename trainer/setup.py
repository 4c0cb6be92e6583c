"""What a run starts from: a model to train, the text that a tiny one is made from, and what samples."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from vertigym import envs
from vertigym.core.config import with_key
from vertigym.core.errors import ConfigError
from vertigym.policies.chat import ChatRenderer
from vertigym.policies.engine import Engine, stop_ids
from vertigym.policies.lora import merged_state
from vertigym.policies.model_folder import load_model
from vertigym.policies.model_source import find_model
from vertigym.policies.registry import EngineSetup, find_engine
from vertigym.policies.scripted import reference_text
from vertigym.rollouts.ray_backend import open_workers
from vertigym.rollouts.rollout_worker import WorkerSpec, skeleton
from vertigym.traces.table_rows import read_table
from vertigym.trainer.config import DPOConfig, RunConfig, SFTConfig
from vertigym.trainer.dpo import pair_texts, read_pairs
from vertigym.trainer.gatekeeper import open_suites
from vertigym.trainer.prompt_lengths import context_needed
from vertigym.trainer.sft import Row, chat_texts, read_samples


def load(folder: Path) -> tuple[Any, Any]:
    """A model to train, in float32 whatever the folder holds: bfloat16 is too coarse for small steps."""
    model, tokenizer = load_model(folder)
    return model.float(), tokenizer


def models_of(config: RunConfig) -> dict[str, str]:
    """The names of the run's `model` and `teacher` that will mean the same when it is resumed.

    Raises:
        DataError: there is no such model.
    """
    named = {"model": config.starting_model, **({"teacher": config.distill.teacher} if config.distill else {})}
    return {role: name if name == "tiny" else find_model(name).name for role, name in named.items()}


def texts(config: RunConfig, env: envs.Env) -> list[str]:
    """What a tiny model's tokenizer is made from: the training tasks, their answers, and what rows to learn
    from add (a number that one task has is not to become a word because a row repeats it).

    Raises:
        ConfigError: the environment has no training tasks.
    """
    tasks = [env.tasks.get(i) for i in env.tasks.ids("train")]
    if not tasks:
        raise ConfigError(
            f"model 'tiny' is made from the environment's text, and {config.env} has no training tasks"
        )
    texts = [m["content"] for task in tasks for m in task.messages()] + [reference_text(task) for task in tasks]
    if config.rows:
        known, texts_of = set(texts), chat_texts if config.sft else pair_texts
        shown = [text for where, row in read_table(config.rows.data) for text in texts_of(row, where)]
        texts += [text for text in shown if text not in known]
    return texts


def taught_rows(rows: SFTConfig | DPOConfig, renderer: ChatRenderer) -> tuple[Sequence[Row], Sequence[Row]]:
    """What the run learns from, and what it only looks at: pairs that are held out.

    Raises:
        DataError: a file is missing, or has a row that cannot be learnt from.
    """
    if isinstance(rows, SFTConfig):
        return read_samples(rows.data, renderer), []
    return read_pairs(rows.data, renderer), read_pairs(rows.held_out, renderer) if rows.held_out else []


def refuse_other_tokens(teacher: str, tokenizer: Any, policys: Any) -> None:
    """
    Raises:
        ConfigError: the teacher's tokens are not the policy's.
    """
    if tokenizer.get_vocab() != policys.get_vocab():
        raise ConfigError(f"distill.teacher {teacher}: its tokenizer is not the policy's")


def with_engine_context(config: RunConfig, env: envs.Env, model: Any, tokenizer: Any) -> RunConfig:
    """The config with as much context for its engine as the run will ask of it, where the engine takes such a
    number and none was given: the model's own may ask for more cache than a device has."""
    rows = config.rollout
    given = getattr(rows.engine_config, "context", 1)
    if config.rows or given:
        return config
    renderer = ChatRenderer(
        tokenizer, stop=stop_ids(model.generation_config), rows=model.get_input_embeddings().weight.shape[0]
    )
    needed = context_needed(config, env, open_suites(config.eval), renderer)
    return with_key(config, f"rollout.{find_engine(rows.engine).name}.context", needed)


def engine_elsewhere(
    config: RunConfig, folder: Path, model: Any, on_note: Callable[[str], None]
) -> Callable[..., Engine] | None:
    """How to open an engine with weights of its own, where the config asks for one: workers, or vLLM. A keyword
    `weights` may say where it is to take them from, in place of `model`."""
    rows, kind = config.rollout, find_engine(config.rollout.engine)
    opened: Callable[..., Engine]
    if rows.workers:
        spec = WorkerSpec(
            skeleton(folder),
            partial(envs.make, envs.absolute(config.env)),
            engine=rows.engine,
            config=rows.engine_config,
            dtype=rows.dtype,
            batch=rows.batch,
            threads=config.threads or max(1, int(rows.ray.cpus)),
            count=rows.ray.count,
        )
        opened = partial(open_workers, rows.workers, folder, spec, rows.ray, on_note=on_note)
    elif kind.shares_model:
        return None
    else:
        setup = EngineSetup(folder, rows.engine_config, rows.dtype, on_note=on_note)
        opened = lambda weights: kind.open_engine(replace(setup, weights=weights))  # noqa: E731
    return partial(opened, weights=lambda: merged_state(model))


def shared_engine(config: RunConfig, folder: Path, model: Any, tokenizer: Any, *, copy: bool) -> Engine:
    """An engine that decodes with the model in training."""
    rows = config.rollout
    return find_engine(rows.engine).open_engine(
        EngineSetup(folder, rows.engine_config, rows.dtype, model=model, tokenizer=tokenizer, copy=copy)
    )


def fits_several_ranks(config: RunConfig) -> None:
    """
    Raises:
        ConfigError: something in the config works on one rank only.
    """
    rows = config.rollout
    if config.rows:
        return
    if reason := rows.misfit(ranks=2):
        raise ConfigError(reason)
    if not rows.deterministic:
        raise ConfigError(
            "rollout.deterministic = false lets each process take new weights when it is ready, and several "
            "ranks must take them together: deterministic = true"
        )
