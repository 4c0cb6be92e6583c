"""Defaults by device, without one: a key that is given stays, on a CPU nothing changes."""

from pathlib import Path
from typing import Any

import pytest

from vertigym import envs
from vertigym.core.config import parse
from vertigym.core.errors import ConfigError
from vertigym.policies import tiny
from vertigym.policies.chat import ChatRenderer
from vertigym.trainer.config import RunConfig
from vertigym.trainer.device_defaults import for_device
from vertigym.trainer.prompt_lengths import context_needed
from vertigym.trainer.recipe import load_stages

from .returns import ENV


def config(**more: Any) -> RunConfig:
    table = {"name": "x", "env": ENV, "model": "tiny", "algorithm": "grpo", "steps": 1}
    return parse(RunConfig, table | more, source="test")


def test_a_gpus_defaults_are_its_own() -> None:
    found = for_device(config(), "cuda")
    assert (found.dtype, found.head_precision, found.gradient_checkpointing) == ("bfloat16", "tf32", True)
    assert not found.rollout.vllm.eager
    assert found.rollout.dtype == "float32", "nothing corrects what bfloat16 would sample"
    assert for_device(config(rollout={"engine": "vllm"}), "cuda").rollout.dtype == "bfloat16"


def test_a_cpus_defaults_are_those_of_the_keys() -> None:
    assert for_device(config(), "cpu") == config()


def test_what_is_given_stays() -> None:
    given = {"dtype": "float32", "gradient_checkpointing": False, "rollout": {"vllm": {"eager": True}}}
    assert for_device(config(**given), "cuda") == config(**given)
    given = {"head_precision": "float32"}
    assert for_device(config(**given), "cuda").head_precision == "float32"
    once = for_device(config(), "cuda")
    assert for_device(once, "cuda") == once


def test_a_config_file_and_a_recipe_have_them(tmp_path: Path) -> None:
    head = f'name = "x"\nenv = "{ENV}"\nmodel = "tiny"\n'
    tail = 'algorithm = "grpo"\nsteps = 1\n'
    (tmp_path / "run.toml").write_text(head + tail)
    (tmp_path / "recipe.toml").write_text(
        f"{head}[[stage]]\n{tail}dtype = 'float32'\n[[stage]]\nname = 'b'\n{tail}"
    )
    (one,) = load_stages(tmp_path / "run.toml", device="cuda")
    assert one.config.dtype == "bfloat16"
    assert [s.config.dtype for s in load_stages(tmp_path / "recipe.toml", device="cuda")] == [
        "float32",
        "bfloat16",
    ]
    assert [s.config.dtype for s in load_stages(tmp_path / "recipe.toml", device="cpu")] == [
        "float32",
        "float32",
    ]


def test_tf32_is_refused_where_the_trunk_would_have_it_too() -> None:
    with pytest.raises(ConfigError, match='head_precision "tf32" is set for all float32 products'):
        config(head_precision="tf32")


def test_the_engines_context_is_the_longest_prompt_and_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    env = envs.make(ENV)
    texts = [m["content"] for i in env.tasks.ids("train") for m in env.tasks.get(i).messages()]
    renderer = ChatRenderer(tiny.make_tokenizer(texts, tiny.TinySize()))
    longest = max(len(renderer.prompt(env.tasks.get(i).messages(), ())) for i in env.tasks.ids("train"))
    some = config(rollout={"max_tokens": 40})
    assert context_needed(some, env, [], renderer) == longest + 40
    monkeypatch.setattr(type(env), "max_turns", 2)
    assert context_needed(some, env, [], renderer) == 0, "what is said in between is not known"
