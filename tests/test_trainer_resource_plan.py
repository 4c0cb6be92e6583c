"""A plan for a GPU that is not here: what is computed, what does not fit, and the smallest change that fits."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import Qwen3Config

from vertigym.core.config import parse
from vertigym.core.errors import ConfigError, UnknownNameError
from vertigym.learner.model_numbers import ModelNumbers
from vertigym.trainer.config import RunConfig
from vertigym.trainer.device_defaults import for_device
from vertigym.trainer.devices import DEVICES, find_device
from vertigym.trainer.memory_plan import MemoryPlan, sampled_step
from vertigym.trainer.memory_remedies import fitting
from vertigym.trainer.resource_plan import plan_rows, resource_plan
from vertigym.trainer.time_plan import seconds_by_phase

from .conftest import CommandLine
from .returns import ENV, SIZE
from .test_cli import one_line

# A model of few layers with a large vocabulary: it is counted in a moment, and takes much.
SHAPE: dict[str, Any] = {
    "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 4, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936, "tie_word_embeddings": True,
}  # fmt: skip
ROLLOUT = {"tasks": 8, "group_size": 8, "max_tokens": 512}
STEP = sampled_step([512] * 8, 8, 512)


def config_of(**more: Any) -> RunConfig:
    table = {"name": "x", "env": ENV, "model": "tiny", "algorithm": "grpo", "steps": 1, "rollout": ROLLOUT}
    return parse(RunConfig, table | more, source="test")


@pytest.fixture(scope="module")
def numbers() -> ModelNumbers:
    return ModelNumbers(Qwen3Config(**SHAPE))


def plan_for(numbers: ModelNumbers, gpu: str, **more: Any) -> MemoryPlan:
    return MemoryPlan(numbers, config_of(**more), STEP, find_device(gpu))


def test_states_are_sixteen_bytes_a_parameter_and_shared_by_ranks(numbers: ModelNumbers) -> None:
    for count in (1, 4):
        plan = plan_for(numbers, f"h100x{count}")
        found = plan.states["weights"] + plan.states["Adam"] + plan.phases["training"]["gradients"]
        assert found * count == 16 * numbers.parameters


@pytest.mark.parametrize(
    ("more", "phase", "part"),
    [
        ({"microbatch_tokens": 4096}, "training", "activations"),
        ({"gradient_checkpointing": True}, "training", "activations"),
        ({"dtype": "bfloat16"}, "training", "activations"),
        ({"rollout": {"batch": 8}}, "sampling", "KV cache"),
        ({"rollout": {"dtype": "bfloat16"}}, "sampling", "KV cache"),
        ({"lora": {}}, "training", "gradients"),
    ],
)
def test_what_saves_memory_is_computed_to(
    numbers: ModelNumbers, more: dict[str, Any], phase: str, part: str
) -> None:
    before = plan_for(numbers, "h100")
    counted = ModelNumbers(Qwen3Config(**SHAPE), config_of(**more).lora) if "lora" in more else numbers
    assert plan_for(counted, "h100", **more).phases[phase][part] < before.phases[phase][part]


def test_what_does_not_fit_comes_with_the_smallest_change_that_fits(numbers: ModelNumbers) -> None:
    large = {"microbatch_tokens": 65_536}  # the whole step in one pass
    plan = plan_for(numbers, "rtx4090", **large)
    (misfit,) = plan.misfits()
    assert misfit.startswith("training takes ")
    assert "of 24 GB on each rtx4090, activations most" in misfit
    found = fitting(plan, Qwen3Config(**SHAPE))
    assert found
    change, changed = found
    assert len(change) == 1, "one key does"
    assert changed.peak()[1] <= DEVICES["rtx4090"].memory < plan.peak()[1]
    assert not plan_for(numbers, "rtx4090", **(large | change)).misfits(), "given in the config it fits as well"


def test_an_engine_with_too_small_a_share_is_said_to_be_so() -> None:
    eight = ModelNumbers(Qwen3Config(**(SHAPE | {"hidden_size": 4096, "num_hidden_layers": 2})))
    plan = plan_for(eight, "rtx4090", rollout={"engine": "vllm", "vllm": {"memory": 0.1}})
    assert any("rollout.vllm.memory gives it 2.4 GB" in line for line in plan.misfits())


def test_nothing_fits_a_model_too_large_and_that_is_said(numbers: ModelNumbers) -> None:
    step = sampled_step([100_000] * 2, 1, 8)
    plan = MemoryPlan(numbers, config_of(microbatch_tokens=1), step, find_device("rtx4090x64"))
    assert plan.misfits()
    found = resource_plan(plan.config, Qwen3Config(**SHAPE), step, plan.device)
    rows = {what: computed for what, computed, _ in plan_rows(found, {})}
    assert rows["would fit with"] == "no change of keys that is known here" or "=" in rows["would fit with"]


def test_time_follows_the_device_and_the_config(numbers: ModelNumbers) -> None:
    slow, fast = (seconds_by_phase(plan_for(numbers, gpu)) for gpu in ("a100-80", "h100"))
    assert all(slow[phase] > fast[phase] for phase in ("training", "sampling", "optimizer"))
    plain, again = (
        seconds_by_phase(plan_for(numbers, "h100", gradient_checkpointing=on))["training"]
        for on in (False, True)
    )
    assert again > plain
    one, two = (
        seconds_by_phase(plan_for(numbers, "h100", policy={"ratio_to": "trainer", "minibatches": count}))
        for count in (1, 2)
    )
    assert not one["logprobs"], "the only update's own pass says them"
    assert two["logprobs"] > 0
    half = seconds_by_phase(MemoryPlan(numbers, for_device(config_of(), "cuda"), STEP, find_device("h100")))
    assert half["training"] < plain / 2, "bfloat16 and tf32"


@pytest.mark.parametrize(
    ("name", "said"),
    [("h1000", "unknown gpu 'h1000'"), ("h100x0", "a count of at least 1")],
)
def test_an_unknown_gpu_is_refused(name: str, said: str) -> None:
    with pytest.raises((UnknownNameError, ConfigError), match=said):
        find_device(name)


def test_the_dry_run_plans_for_a_gpu_and_runs_nothing(command: CommandLine, tmp_path: Path) -> None:
    size = "".join(f"{key} = {value}\n" for key, value in SIZE.items())
    text = f'name = "x"\nenv = "{ENV}"\nmodel = "tiny"\nalgorithm = "grpo"\nsteps = 3\n[tiny]\n{size}'
    (tmp_path / "run.toml").write_text(text)
    words = ("train", str(tmp_path / "run.toml"), "--dry-run", "--gpu", "h100x8")
    shown = command(*words)
    assert shown.code == 0
    assert "memory and time, h100 x8" in shown.out
    assert "peak, in " in shown.out
    assert "measuring" not in shown.err
    found = json.loads(command(*words, "--json").out)
    assert found["computed"]["for"] == "h100 x8"
    assert found["computed"]["does not fit"] == []
    assert not (tmp_path / "runs").exists()


def test_a_gpu_is_for_dry_runs(command: CommandLine, tmp_path: Path) -> None:
    assert "add --dry-run" in one_line(command("train", "run.toml", "--gpu", "h100"))
