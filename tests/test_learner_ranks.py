"""Several ranks: whole runs under torchrun beside the same runs alone, and the split of the work by itself.

Two ranks add up the same numbers in another order, so they agree to rounding and no further. The bounds: a
step's loss within 1e-5; a weight within 1e-4 at most and 1e-6 on average after ten steps at a learning rate of
1e-3, in which weights move by 1e-2 (Adam divides by the root of a gradient's square, so where a gradient is all
rounding its noise becomes a part of a step).
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from vertigym import __version__
from vertigym.core.config import parse
from vertigym.core.files import read_jsonl
from vertigym.learner.batch import balanced
from vertigym.learner.config import OptimizerConfig, PolicyConfig
from vertigym.learner.learner import Learner
from vertigym.learner.objective import policy_loss
from vertigym.learner.ranks import SINGLE_RANK, Ranks
from vertigym.learner.samples import TokenColumns, TrainingSample
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import train

from .fake_vllm import FakeVLLM
from .returns import ENV, IMPROVES, SHORT, rows, suite, warm
from .torchrun import ended, free_port, started, torchrun

LOSS, WEIGHT, MEAN_WEIGHT = 1e-5, 1e-4, 1e-6
PROGRAM = """
import json, sys, torch
from vertigym.core.config import parse
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import train
from vertigym.learner.ranks import join_ranks

torch.set_num_threads(1)
with join_ranks():
    for resume, config in json.loads(open(sys.argv[1]).read()):
        train(parse(RunConfig, config, source="test"), resume=resume)
"""
SUITE = suite(8, SHORT, IMPROVES)

T = TypeVar("T")


# The split of the work, without processes.


class Pretended(Ranks):
    """One of several ranks that never meet: it does its part, and nobody adds the others'."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def shard(self, model: Any) -> None:
        pass

    def run_forward(self, model: Any, work: Any, *args: Any, **kwargs: Any) -> Any:
        return work(*args, **kwargs)

    def reshard(self, model: Any) -> None:
        pass

    def all_reduce(self, numbers: Tensor) -> Tensor:
        return numbers


def samples(count: int) -> list[TrainingSample]:
    dice = torch.Generator().manual_seed(0)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=dice))

    made = []
    for number in range(count):
        prompt, reply = [number % 3] * draw(2, 6), [draw(0, 50) for _ in range(draw(1, 9))]
        columns: dict[str, Sequence[float]] = {"sampler_logp": [-3.9 for _ in reply]}
        columns |= {name: [draw(-9, 9) / 9 for _ in reply] for name in ("advantage", "weight")}
        made.append(
            TrainingSample([*prompt, *reply], [0] * len(prompt) + [1] * len(reply), TokenColumns(**columns))
        )
    return made


def tiny() -> Any:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, tie_word_embeddings=True,
    )  # fmt: skip
    return Qwen3ForCausalLM(config)


def learner(ranks: Ranks = SINGLE_RANK, tokens: int = 40) -> Learner:
    return Learner(tiny(), OptimizerConfig(), total_steps=1, microbatch_tokens=tokens, ranks=ranks)


@pytest.mark.parametrize(("count", "size", "tokens"), [(13, 2, 40), (13, 3, 40), (2, 5, 40), (13, 2, 10_000)])
def test_gradients_sums_and_scores_of_all_shares_add_up_to_the_whole(
    count: int, size: int, tokens: int
) -> None:
    batch, loss = samples(count), policy_loss(PolicyConfig(normalizer="sequence", entropy=0.1))
    alone = learner(tokens=tokens)
    wanted = alone.forward_backward(batch, loss, entropy=True)
    scores = alone.score(batch)
    found: dict[str, float] = {}
    gradients = [torch.zeros_like(p) for p in alone.model.parameters()]
    summed = [torch.zeros(len(one)) for one in scores]
    for rank in range(size):
        one = learner(Pretended(rank, size), tokens)
        for name, value in one.forward_backward(batch, loss, entropy=True).items():
            found[name] = found.get(name, 0.0) + value
        for gradient, parameter in zip(gradients, one.model.parameters(), strict=True):
            gradient += parameter.grad
        for into, values in zip(summed, one.score(batch), strict=True):
            into += torch.tensor(values)
    assert found == pytest.approx(wanted, abs=1e-6)
    for gradient, parameter in zip(gradients, alone.model.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-6)
    for into, values in zip(summed, scores, strict=True):
        torch.testing.assert_close(into, torch.tensor(values), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_all_ranks_pass_through_the_model_equally_often(size: int) -> None:
    batch = samples(7)
    passes = [list(learner(Pretended(rank, size))._rounds(batch)) for rank in range(size)]
    assert len({len(one) for one in passes}) == 1
    counted = [s for one in passes for part, weight in one for row in part for s in row.samples if weight]
    assert sorted(map(id, counted)) == sorted(map(id, batch)), "every sample counts once"


@pytest.mark.parametrize(("count", "size"), [(64, 2), (64, 4), (64, 8)])
def test_what_fits_into_one_micro_batch_is_still_shared(count: int, size: int) -> None:
    parts = balanced(samples(count), 10_000, share=True, ranks=size)
    fed = [sum(row.length for row in part) for part in parts]
    assert max(fed) <= 1.5 * sum(fed) / size


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_are_even_and_in_order(size: int) -> None:
    shares: Sequence[Sequence[int]] = [Pretended(rank, size).part_of(range(10)) for rank in range(size)]
    assert [item for share in shares for item in share] == list(range(10))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


# Processes.


@dataclass(frozen=True)
class Pair:
    """The folders of the same run on one rank and on two."""

    one: Path
    two: Path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    """Every scenario alone and on two ranks; `resumed`: on the other number of ranks from the middle."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "suite.toml").write_text(SUITE)
    (folder / "program.py").write_text(PROGRAM)
    model = warm(folder, tasks=120)
    alone = {name: scenario(folder / "one", name, model, folder) for name in SCENARIOS}
    together = {name: scenario(folder / "two", name, model, folder) for name in SCENARIOS}
    servers = [FakeVLLM(model, context=1024).start() for _ in range(2)]
    for config, server in zip((alone["vllm"], together["vllm"]), servers, strict=True):
        limits = {"mode": "server", "url": server.url, "probe_every": 1}
        config["rollout"] = config["rollout"] | {"vllm": limits}
    for config in alone.values():
        train(parse(RunConfig, config, source="test"))
    half = halfway(folder / "one" / "grpo", folder / "half-one")
    orders = [[False, config] for config in together.values()]
    (folder / "orders.json").write_text(json.dumps([*orders, [True, at(half, alone["grpo"])]]))
    done = torchrun(folder / "program.py", folder / "orders.json")
    assert done.returncode == 0, done.stderr[-3000:]
    for server in servers:
        server.stop()
    half = halfway(folder / "two" / "grpo", folder / "half-two")
    train(parse(RunConfig, at(half, together["grpo"]), source="test"), resume=True)
    found = {name: Pair(folder / "one" / name, folder / "two" / name) for name in SCENARIOS}
    found["resumed on two"] = Pair(folder / "one" / "grpo", folder / "half-one" / "grpo")
    found["resumed on one"] = Pair(folder / "one" / "grpo", folder / "half-two" / "grpo")
    return found


# Micro-batches small enough that the two ranks have several, of uneven number.
GRPO: dict[str, Any] = {
    "algorithm": "grpo", "steps": 10, "microbatch_tokens": 700,
    "rollout": {"tasks": 5, "group_size": 4, "max_tokens": 24, "save_every": 1},
    "policy": {"minibatches": 2, "entropy": 0.01, "kl": 0.01, "normalizer": "sequence", "ratio_to": "trainer"},
}  # fmt: skip
PPO: dict[str, Any] = {
    "algorithm": "ppo", "steps": 4, "rollout": GRPO["rollout"], "policy": {"minibatches": 2},
    "critic": {"optimizer": {"lr": 1e-3}},
}  # fmt: skip
LORA: dict[str, Any] = GRPO | {
    "steps": 3, "lora": {"rank": 4, "alpha": 8}, "rollout": GRPO["rollout"] | {"staleness": 1},
}  # fmt: skip
VLLM: dict[str, Any] = GRPO | {
    "steps": 3, "rollout": GRPO["rollout"] | {"engine": "vllm", "staleness": 1},
}  # fmt: skip
SFT: dict[str, Any] = {"algorithm": "sft", "steps": 10, "sft": {"data": "rows.jsonl", "batch": 9}}
SCENARIOS = {"grpo": GRPO, "ppo": PPO, "sft": SFT, "lora": LORA, "vllm": VLLM}


def scenario(output: Path, name: str, model: Path, folder: Path) -> dict[str, Any]:
    table: dict[str, Any] = {
        "name": name, "env": ENV, "model": str(model), "output": str(output), "threads": 1,
        "optimizer": {"lr": 1e-3, "schedule": "cosine"}, "checkpoint": {"every": 5},
    } | SCENARIOS[name]  # fmt: skip
    if name == "sft":
        table["sft"] = table["sft"] | {"data": str(folder / "rows.jsonl")}
    if name == "grpo":
        table["eval"] = {"suites": [str(folder / "suite.toml")], "every": 5}
    return table


def halfway(run: Path, output: Path) -> Path:
    """A copy of a run that looks as if it had been killed after its fifth step."""
    copy = output / run.name
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints" / "step-000010")
    text = (copy / "config.toml").read_text()
    (copy / "config.toml").write_text(text.replace(str(run.parent), str(output)))
    return output


def at(output: Path, config: dict[str, Any]) -> dict[str, Any]:
    return config | {"output": str(output)}


NAMES = [*SCENARIOS, "resumed on two", "resumed on one"]


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_of_every_step_is_that_of_one_rank(name: str, pairs: dict[str, Pair]) -> None:
    same_metrics(pairs[name])
    assert len(rows(pairs[name].two)) == SCENARIOS.get(name, GRPO)["steps"]


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_those_of_one_rank(name: str, pairs: dict[str, Pair]) -> None:
    same_weights(pairs[name])


def same_metrics(pair: Pair) -> None:
    one, two = rows(pair.one), rows(pair.two)
    assert [row.keys() for row in one] == [row.keys() for row in two]
    losses = [(m[key], t[key]) for m, t in zip(one, two, strict=True) for key in m if key.endswith("loss")]
    assert len(losses) >= 0.8 * len(one), "few steps learn nothing"
    assert max(abs(mine - theirs) for mine, theirs in losses) < LOSS
    for mine, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(mine, abs=1e-4, rel=1e-3), f"step {mine['step']}"


def same_weights(pair: Pair, *, moved: int = 20) -> None:
    for checkpoint in sorted((pair.one / "checkpoints").iterdir()):
        one = load_file(checkpoint / "model.safetensors")
        two = load_file(pair.two / "checkpoints" / checkpoint.name / "model.safetensors")
        assert one.keys() == two.keys()
        gaps = torch.cat([(one[key] - two[key]).abs().flatten() for key in one])
        assert gaps.max() < WEIGHT
        assert gaps.mean() < MEAN_WEIGHT
    start = load_file(pair.one / "checkpoints" / "step-000000" / "model.safetensors")
    assert max((one[key] - start[key]).abs().max() for key in one) > moved * WEIGHT, (
        "the run has moved the weights"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_two_ranks_leaves_the_same_files(name: str, pairs: dict[str, Pair]) -> None:
    assert files(pairs[name].one) == files(pairs[name].two)


def files(run: Path) -> set[str]:
    found = (str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    return {file for file in found if "tensorboard" not in file}


@pytest.mark.parametrize("name", ["grpo", "ppo", "lora", "vllm"])
def test_both_sample_the_same_episodes(name: str, pairs: dict[str, Pair]) -> None:
    def sampled(run: Path) -> list[Any]:
        files = sorted((run / "rollouts").iterdir())
        kept = [row for file in files for row in read_jsonl(file)]
        return [(row["task_id"], row["seed"], [s["token_ids"] for s in row["segments"]]) for row in kept]

    assert sampled(pairs[name].one) == sampled(pairs[name].two)


def test_the_gates_decide_the_same(pairs: dict[str, Pair]) -> None:
    for name in ("grpo", "resumed on two", "resumed on one"):
        one, two = (
            [(row["step"], row["verdict"], row["reason"]) for row in read_jsonl(run / "gates.jsonl")]
            for run in (pairs[name].one, pairs[name].two)
        )
        assert [row[0] for row in one] == [5, 10]
        assert one == two


# What the policy starts from in the last two is not the model that teaches it, else nothing but noise moves it.
RARE: dict[str, dict[str, Any]] = {
    "checkpointing": GRPO | {"steps": 3, "gradient_checkpointing": True},
    "curriculum": GRPO | {"steps": 3, "rollout": GRPO["rollout"] | {"curriculum": {}, "rounds": 2}},
    "rolled back": GRPO | {"steps": 3, "eval": {"every": 1, "roll_back": True}},
    "distilled": {"algorithm": "distill", "steps": 3, "rollout": GRPO["rollout"], "policy": {"kl": 0.01}},
    "no decoder of ours": {"algorithm": "distill", "steps": 3, "rollout": GRPO["rollout"], "lora": {"rank": 4}},
}


@pytest.mark.slow
def test_rarer_settings_too_give_what_one_rank_gives(tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text(SUITE)
    (tmp_path / "program.py").write_text(PROGRAM)
    model = warm(tmp_path, tasks=120)
    tokenizer = AutoTokenizer.from_pretrained(model)
    size: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 1024,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None,
    }  # fmt: skip
    torch.manual_seed(0)
    for name, pupil in {
        "distilled": Qwen3ForCausalLM(Qwen3Config(**size, tie_word_embeddings=True)),
        "no decoder of ours": Gemma2ForCausalLM(Gemma2Config(**size, query_pre_attn_scalar=16)),
    }.items():
        pupil.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)

    def orders(output: str) -> list[dict[str, Any]]:
        found = []
        for name, changes in RARE.items():
            config = scenario(tmp_path / output, "grpo", model, tmp_path) | changes
            config |= {"name": name.replace(" ", "-"), "optimizer": {"lr": 1e-3}}
            config["eval"] = {"suites": [str(tmp_path / "suite.toml")], **changes.get("eval", {"every": 3})}
            if config["algorithm"] == "distill":
                config |= {"model": str(tmp_path / name), "distill": {"teacher": str(model)}}
            found.append(config)
        return found

    for config in orders("one"):
        train(parse(RunConfig, config, source="test"))
    (tmp_path / "orders.json").write_text(json.dumps([[False, config] for config in orders("two")]))
    done = torchrun(tmp_path / "program.py", tmp_path / "orders.json")
    assert done.returncode == 0, done.stderr[-3000:]
    for config in orders("one"):
        pair = Pair(tmp_path / "one" / config["name"], tmp_path / "two" / config["name"])
        same_metrics(pair)
        same_weights(pair, moved=5)  # one step, where all but that is rolled back


MEETING = {
    "c10d": "--rdzv-backend=c10d --rdzv-endpoint=localhost:{port}",
    "static": "--node-rank={node} --master-addr=localhost --master-port={port}",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", MEETING)
def test_two_launchers_of_one_rank_each_give_what_one_rank_gives(how: str, tmp_path: Path) -> None:
    """As on two machines. The second is given another output folder, in which nothing may appear."""
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "suite.toml").write_text(SUITE)
    model, port, launchers = warm(tmp_path, tasks=120), free_port(), []
    one, two, other = (tmp_path / name for name in ("one", "two", "other"))
    for node, output in enumerate((two, other)):
        orders = tmp_path / f"{output.name}.json"
        orders.write_text(json.dumps([[False, scenario(output, "grpo", model, tmp_path)]]))
        meeting = MEETING[how].format(port=port, node=node).split()
        launchers.append(started("--nnodes=2", "--nproc-per-node=1", *meeting, tmp_path / "program.py", orders))
    train(parse(RunConfig, scenario(one, "grpo", model, tmp_path), source="test"))
    for done in map(ended, launchers):
        assert done.returncode == 0, done.stderr[-3000:]
    pair = Pair(one / "grpo", two / "grpo")
    same_metrics(pair)
    same_weights(pair)
    assert files(pair.one) == files(pair.two)
    assert not other.exists(), "the leader alone writes"


def test_the_package_can_be_run_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "vertigym", "--version"], capture_output=True, text=True)
    assert done.stdout.startswith(f"vertigym {__version__}, ")
    assert done.returncode == 0
