"""The trainer computes what each model does: windows, caps, scales, recurrent layers, experts, adapters."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from vertigym.core.errors import ConfigError, InputError
from vertigym.core.types import Prompt, Sampling
from vertigym.learner import own_forward
from vertigym.learner.batch import Batch
from vertigym.learner.config import OptimizerConfig
from vertigym.learner.learner import Learner
from vertigym.learner.logit_head import LogitHead, find_head
from vertigym.learner.own_forward import BOUND, distances, own_logprobs, settle, some_groups
from vertigym.learner.ranks import SINGLE_RANK
from vertigym.learner.samples import TrainingSample
from vertigym.policies.lora import LoRAConfig, add_lora, merged_state
from vertigym.policies.model_folder import load_model, unreadable_ids
from vertigym.policies.transformers_engine import TransformersEngine

from .model_families import build

pytestmark = pytest.mark.filterwarnings("ignore")  # what transformers says of missing kernels


def samples() -> list[TrainingSample]:
    """Two groups of three, longer than the families' windows."""
    pick, made = random.Random(0), []
    for prompt_length in (12, 5):
        prompt = [pick.randrange(260) for _ in range(prompt_length)]
        for count in (14, 9, 3):
            answer = [pick.randrange(260) for _ in range(count)]
            made.append(TrainingSample([*prompt, *answer], [0] * prompt_length + [1] * count))
    return made


def model_of(name: str, folder: Path, **changes: Any) -> Any:
    torch.set_num_threads(1)
    return load_model(build(name, folder, **changes))[0].float()


def learner(model: Any, **options: Any) -> Learner:
    return Learner(model, OptimizerConfig(lr=1e-2, clip_norm=1e9), total_steps=1, **options)


def trained_logprobs(some: Learner, rows: list[TrainingSample]) -> torch.Tensor:
    """Those that a loss is given, in the order of the samples: each sample alone."""
    found: list[torch.Tensor] = []

    def keep(
        logp_T: torch.Tensor, _: torch.Tensor | None, __: Batch
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        found.append(logp_T.detach())
        return -logp_T.sum(), {}

    for row in rows:
        some.forward_backward([row], keep)
    return torch.cat(found)


def sampled(engine: TransformersEngine) -> list[TrainingSample]:
    prompts = [Prompt((), token_ids=[5, 6, 7], seed=seed) for seed in range(3)]
    return [TrainingSample.of(completion) for completion in engine.generate(prompts, Sampling(max_tokens=8))]


def step(some: Learner) -> None:
    before = some.score(samples())
    some.forward_backward(samples(), lambda logp_T, _, __: (-logp_T.sum(), {}))
    some.optim_step()
    moved = [
        abs(a - b)
        for x, y in zip(before, some.score(samples()), strict=True)
        for a, b in zip(x, y, strict=True)
    ]
    assert max(moved) > 0.01, "a step that changes nothing tests nothing"


# Shared rows.

WINDOWED = [
    "mistral, window",
    "qwen3, window",
    "gemma2",
    "gemma3",
    "gemma3n text",
    "phi3, window",
    "llama4 text",
]


@pytest.mark.parametrize("name", [*WINDOWED, "llama", "gpt2", "opt", "deepseek_v2", "granitemoe"])
def test_shared_rows_have_the_windows_and_positions_of_each_sample_alone(name: str, tmp_path: Path) -> None:
    some = learner(model_of(name, tmp_path))
    assert settle(some, samples()) == []
    assert some.share_rows
    alone, shared = distances(some, some_groups(samples()))
    assert max(alone, shared) < BOUND


def test_a_mask_that_leaves_a_window_out_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vertigym.learner import shared_rows

    real = shared_rows._mask

    def without_window(*, mask_function: Any, **arguments: Any) -> Any:
        own = shared_rows._shared.get() is None
        return real(mask_function=mask_function if own else lambda b, h, q, kv: kv <= q, **arguments)

    monkeypatch.setattr(
        "transformers.masking_utils.AttentionMaskInterface._global_mapping", {"sdpa": without_window}
    )
    some = learner(model_of("mistral, window", tmp_path))
    (note,) = settle(some, samples())
    assert "rows of their own" in note


@pytest.mark.parametrize(
    "name", ["qwen3_5", "lfm2", "bamba", "jamba", "kimi_linear", "recurrent_gemma", "falcon, alibi"]
)
def test_what_cannot_share_rows_gives_it_up_once_and_is_right(name: str, tmp_path: Path) -> None:
    some = learner(model_of(name, tmp_path))
    (note,) = settle(some, samples())
    assert "rows of their own" in note
    assert settle(some, samples()) == [], "said once"
    expected_T = own_logprobs(some, [samples()])
    found = [logp for row in some.score(samples()) for logp in row]
    torch.testing.assert_close(torch.tensor(found), expected_T, atol=BOUND, rtol=0)


def test_a_single_sample_shows_it_too(tmp_path: Path) -> None:
    """The next step may have more."""
    assert settle(learner(model_of("qwen3_5", tmp_path)), samples()[:1])


# After the head, and before it.


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("llama", LogitHead()),
        ("cohere", LogitHead(0.25)),
        ("granite", LogitHead(0.25)),
        ("minicpm3", LogitHead(0.25)),  # before the head
        ("falcon_h1", LogitHead(0.25)),
        ("gemma2", LogitHead(1.0, 3.0)),
        ("gemma4", LogitHead(1.0, 3.0)),  # in its text_config
        ("xlstm", LogitHead(1.0, 30.0)),
        ("opt", None),  # a projection stands between
    ],
)
def test_a_model_is_asked_what_it_does_with_its_head(name: str, head: LogitHead | None, tmp_path: Path) -> None:
    model = model_of(name, tmp_path)
    assert find_head(model) == head
    some = learner(model)
    assert settle(some, samples()[:3]) == [] or not some.share_rows
    assert max(distances(some, some_groups(samples()))) < BOUND
    step(some)
    assert max(distances(some, some_groups(samples()))) < BOUND


def test_a_head_that_is_not_its_weight_alone_is_left_to_the_model(tmp_path: Path) -> None:
    model = model_of("gemma2", tmp_path)
    forward = model.lm_head.forward
    model.lm_head.forward = lambda states: 0.125 * forward(states)
    some = learner(model)
    (note,) = settle(some, samples())
    assert "all logits are computed" in note
    assert max(distances(some, some_groups(samples()))) < BOUND


def test_temperature_and_scale_go_together(tmp_path: Path) -> None:
    some = learner(model_of("granite", tmp_path), temperature=0.5)
    assert max(distances(some, some_groups(samples()))) < BOUND


@pytest.mark.parametrize("name", ["llama, padded vocabulary", "gemma2, padded vocabulary"])
def test_ids_that_the_tokenizer_cannot_read_are_no_part_of_the_distribution(name: str, tmp_path: Path) -> None:
    model = model_of(name, tmp_path)
    tokenizer = load_model(tmp_path)[1]
    banned = unreadable_ids(tokenizer, 300)
    some, engine = learner(model, banned=banned), TransformersEngine(model, tokenizer)
    settle(some, samples())
    assert some.fuses_head == (name[0] == "l"), "a soft cap and a ban need all logits"
    step(some)
    engine.refresh(1)
    rows = sampled(engine)
    for row, scored in zip(rows, some.score(rows), strict=True):
        assert scored == pytest.approx(row.columns.sampler_logp, abs=BOUND)
    free = learner(model)
    assert any(abs(a - b) > BOUND for a, b in zip(free.score(rows)[0], some.score(rows)[0], strict=True))


# Dropout.


@pytest.mark.parametrize("name", ["gpt2", "starcoder2", "opt"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_no_pass_has_dropout(name: str, checkpointing: bool, tmp_path: Path) -> None:
    some = learner(model_of(name, tmp_path), checkpointing=checkpointing)
    rows = samples()
    expected_T = torch.cat([own_logprobs(some, [[row]]) for row in rows])
    torch.testing.assert_close(trained_logprobs(some, rows), expected_T, atol=BOUND, rtol=0)


def test_checkpointing_still_keeps_fewer_activations(tmp_path: Path) -> None:
    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[-1] += tensor.numel()
        return tensor

    for checkpointing in (False, True):
        some = learner(model_of("gpt2", tmp_path / str(checkpointing)), checkpointing=checkpointing)
        kept.append(0)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            some.forward_backward(samples(), lambda logp_T, _, __: (-logp_T.sum(), {}))
    assert kept[1] < 0.7 * kept[0]


# Adapters.


@pytest.mark.parametrize(
    "name", ["llama", "qwen3_moe", "mixtral", "deepseek_v3", "gpt_oss", "phimoe", "falcon", "gpt2"]
)
def test_adapters_are_exported_as_they_are_trained(name: str, tmp_path: Path) -> None:
    model = model_of(name, tmp_path / "start")
    add_lora(model, LoRAConfig(rank=4, alpha=8), seed=0)
    some = learner(model)
    assert settle(some, samples()) == []
    step(some)
    assert max(distances(some, some_groups(samples()))) < BOUND
    model.save_pretrained(tmp_path / "exported", state_dict=merged_state(model))
    load_model(tmp_path / "start")[1].save_pretrained(tmp_path / "exported")
    assert own_forward.loaded_distance(some, tmp_path / "exported", SINGLE_RANK) < BOUND
    loaded, _ = load_model(tmp_path / "exported")
    assert loaded.state_dict().keys() == load_model(tmp_path / "start")[0].state_dict().keys()


def test_an_export_with_other_experts_is_seen(tmp_path: Path) -> None:
    model = model_of("qwen3_moe", tmp_path / "start")
    state = {name: value + 0.1 * ("down_proj" in name) for name, value in merged_state(model).items()}
    model.save_pretrained(tmp_path / "exported", state_dict=state)
    load_model(tmp_path / "start")[1].save_pretrained(tmp_path / "exported")
    assert own_forward.loaded_distance(learner(model), tmp_path / "exported", SINGLE_RANK) > BOUND


def test_an_adapter_on_the_head_is_trained(tmp_path: Path) -> None:
    model = model_of("llama", tmp_path)
    add_lora(model, LoRAConfig(rank=4, alpha=8, targets=("lm_head", "q_proj")), seed=0)
    some = learner(model)
    step(some)
    assert model.lm_head.lora_B.default.weight.abs().max() > 0
    assert max(distances(some, some_groups(samples()))) < BOUND


def test_an_adapter_on_the_embedding_is_trained_and_sampled_with(tmp_path: Path) -> None:
    model = model_of("llama", tmp_path)
    add_lora(model, LoRAConfig(rank=4, alpha=8, targets=("lm_head", "embed_tokens")), seed=0)
    some, engine = learner(model), TransformersEngine(model, load_model(tmp_path)[1])
    step(some)
    engine.refresh(1)
    rows = sampled(engine)
    for row, scored in zip(rows, some.score(rows), strict=True):
        assert scored == pytest.approx(row.columns.sampler_logp, abs=BOUND)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_an_adapter_on_half_of_a_tied_weight_is_refused(target: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one weight"):
        add_lora(model_of("llama, tied", tmp_path), LoRAConfig(targets=(target,)), seed=0)


# What nothing mends.


def test_a_trainer_that_disagrees_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = learner(model_of("llama", tmp_path))
    real = some.own_logprobs

    def off(batch: Any, **options: Any) -> Any:  # as a model whose forward pass changes from call to call
        return real(batch, **options)[0] + 0.01 * (1 + len(batch.targets_T)), None

    monkeypatch.setattr(some, "own_logprobs", off)
    with pytest.raises(
        InputError, match=r"nats from the model's own forward pass .*cannot be trained here"
    ) as caught:
        settle(some, samples())
    assert "\n" not in str(caught.value)


def test_a_model_that_cannot_be_run_is_refused_in_one_line(tmp_path: Path) -> None:
    model = model_of("llama", tmp_path)
    model.model.norm.forward = None
    with pytest.raises(InputError, match="LlamaForCausalLM: the model's own forward pass fails: TypeError"):
        learner(model)
