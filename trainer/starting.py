"""What a run starts from: a model to train, the text that a tiny one is made from, and what would run."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from vertigym import envs
from vertigym.core.errors import ConfigError
from vertigym.core.files import read_jsonl
from vertigym.core.types import SPLITS
from vertigym.policies.engine import Engine, load_model
from vertigym.policies.ray_workers import open_workers
from vertigym.policies.scripted import reference_text
from vertigym.policies.vllm import open_vllm
from vertigym.policies.worker import Spec, skeleton
from vertigym.trainer.config import RunConfig
from vertigym.trainer.gatekeeper import evidence, open_suites
from vertigym.trainer.sft import chat


def load(folder: Path) -> tuple[Any, Any]:
    """A model to train, in float32 whatever the folder holds: bfloat16 is too coarse for small steps."""
    model, tokenizer = load_model(folder)
    return model.float(), tokenizer


def texts(config: RunConfig, env: envs.Env) -> list[str]:
    """What a tiny model's tokenizer is made from: the training tasks, their answers, and the rows of [sft].

    Raises:
        ConfigError: the environment has no training tasks.
    """
    tasks = [env.tasks.get(i) for i in env.tasks.ids("train")]
    if not tasks:
        raise ConfigError(
            f"model 'tiny' is made from the environment's text, and {config.env} has no training tasks"
        )
    texts = [m["content"] for task in tasks for m in task.messages()] + [reference_text(task) for task in tasks]
    if config.sft:
        data = config.sft.data
        rows = enumerate(read_jsonl(data), 1)
        texts += [m["content"] for number, row in rows for m in chat(row, f"{data}:{number}")]
    return texts


def plan(config: RunConfig) -> dict[str, Any]:
    """Open everything the run needs and describe it; writes nothing.

    Raises:
        InputError: as in `train`.
    """
    env = envs.make(config.env)
    suites = open_suites(config.eval)
    if config.model != "tiny":
        load_model(config.model)
    if config.sft:
        read_jsonl(config.sft.data)
    rows = config.rollout
    return {
        "run": str(config.output / config.name),
        "environment": config.env,
        "tasks": {split: len(env.tasks.ids(split)) for split in SPLITS},
        "model": config.model,
        "algorithm": config.algorithm,
        "steps": config.steps,
        "samples a step": config.sft.batch if config.sft else rows.tasks * rows.group_size,
        "suites": [suite.name for suite in suites],
        "gates": evidence(config, suites),
    }


def engine_elsewhere(
    config: RunConfig, folder: Path, model: Any, on_note: Callable[[str], None]
) -> Callable[..., Engine] | None:
    """How to open an engine with weights of its own, where the config asks for one: workers, or vLLM. A keyword
    `weights` may say where it is to take them from, in place of `model`."""
    rows = config.rollout
    if rows.workers:
        spec = Spec(
            skeleton(folder),
            partial(envs.make, envs.absolute(config.env)),
            engine=rows.engine,
            vllm=rows.vllm,
            dtype=rows.dtype,
            batch=rows.batch,
            threads=config.threads or max(1, int(rows.ray.cpus)),
            count=rows.ray.count,
        )
        return partial(open_workers, rows.workers, folder, spec, rows.ray, model=model, on_note=on_note)
    if rows.engine == "vllm":
        return partial(open_vllm, folder, rows.vllm, dtype=rows.dtype, model=model, on_note=on_note)
    return None


def fits_several_ranks(config: RunConfig) -> None:
    """
    Raises:
        ConfigError: something in the config works on one rank only.
    """
    rows = config.rollout
    if config.algorithm == "sft":
        return
    if rows.engine == "vllm" and rows.vllm.mode == "process" and not rows.workers:
        raise ConfigError(
            'rollout.vllm.mode "process" would put vLLM into the process of one of several ranks, which has '
            'process groups of its own: mode = "server"'
        )
    if not rows.deterministic:
        raise ConfigError(
            "rollout.deterministic = false lets each process take new weights when it is ready, and several "
            "ranks must take them together: deterministic = true"
        )
