"""The transformers engine: same tokens and log-probs as transformers, tokens in and out, seeds, stops."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from vertigym.core.errors import ConfigError, DataError, InputError
from vertigym.core.types import Prompt, Sampling, StopReason
from vertigym.policies import tiny
from vertigym.policies import transformers_engine as engine_module
from vertigym.policies.chat import ids_of
from vertigym.policies.decoder import Decoder, supports
from vertigym.policies.load import load_policy
from vertigym.policies.lora import LoRAConfig, add_lora, merged_state
from vertigym.policies.model_folder import load_model
from vertigym.policies.sampling import sample_tokens
from vertigym.policies.steppers import DecoderStepper
from vertigym.policies.transformers_engine import TransformersEngine

TEXTS = ['{"days": 12, "tier": "gold"}', "approve or reject the return of 40 items"] * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("models") / "tiny"
    size = tiny.TinySize(hidden=32, layers=2, heads=4, key_heads=2, ffn=48, context=64, init_std=0.3)
    tiny.build(TEXTS, path, size=size)
    return path


@pytest.fixture(scope="module")
def engine(folder: Path) -> TransformersEngine:
    return TransformersEngine.load(folder)


def prompts(rows: Sequence[Sequence[int]], seed: int = 0) -> list[Prompt]:
    return [Prompt(messages=(), token_ids=row, seed=seed + i) for i, row in enumerate(rows)]


ROWS = [[5, 6, 7], [9, 8, 7, 6, 5, 4], [11], [5, 6, 7]]


def logprobs_by_forward(
    model: Any, row: Sequence[int], reply: Sequence[int], temperature: float
) -> torch.Tensor:
    ids = torch.tensor([[*row, *reply]])
    logits = model(ids).logits[0, len(row) - 1 : -1].float() / temperature
    return torch.log_softmax(logits, -1).gather(1, torch.tensor(reply)[:, None])[:, 0]


def test_greedy_tokens_equal_those_of_transformers_generate(engine: TransformersEngine) -> None:
    wrote = engine.generate(prompts(ROWS), Sampling(temperature=0, max_tokens=12))
    for row, completion in zip(ROWS, wrote, strict=True):
        expected = engine.model.generate(
            torch.tensor([row]), attention_mask=torch.ones(1, len(row)), do_sample=False, max_new_tokens=12
        )[0, len(row) :].tolist()
        assert list(completion.token_ids) == expected


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_are_those_of_the_distribution_sampled_from(
    engine: TransformersEngine, temperature: float
) -> None:
    for row, completion in zip(
        ROWS, engine.generate(prompts(ROWS), Sampling(temperature=temperature, max_tokens=12)), strict=True
    ):
        with torch.no_grad():
            expected = logprobs_by_forward(engine.model, row, completion.token_ids, temperature)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-5, rtol=0)


def test_a_sample_depends_on_its_seed_and_not_on_its_batch(engine: TransformersEngine) -> None:
    sampling = Sampling(max_tokens=10)
    together = engine.generate(prompts(ROWS), sampling)
    alone = [engine.generate([prompt], sampling)[0] for prompt in prompts(ROWS)]
    assert [c.token_ids for c in together] == [c.token_ids for c in alone]
    other = engine.generate(prompts(ROWS, seed=100), sampling)
    assert [c.token_ids for c in other] != [c.token_ids for c in together]


def test_batches_smaller_than_the_request_change_nothing(folder: Path, engine: TransformersEngine) -> None:
    small = TransformersEngine.load(folder, max_batch=2)
    sampling = Sampling(max_tokens=8)
    expected = [c.token_ids for c in engine.generate(prompts(ROWS), sampling)]
    assert [c.token_ids for c in small.generate(prompts(ROWS), sampling)] == expected


def test_the_generic_path_writes_the_same_tokens(
    folder: Path, engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "supports", lambda _: False)
    generic = TransformersEngine.load(folder)
    assert generic.way.name == "its own cache"
    many = ROWS * 8  # enough rows for the finished ones to be dropped on the way
    a = engine.generate(prompts(many), Sampling(max_tokens=16))
    b = generic.generate(prompts(many), Sampling(max_tokens=16))
    assert [c.token_ids for c in a] == [c.token_ids for c in b]
    for ours, theirs in zip(a, b, strict=True):
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-5)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_the_decoder_equals_the_forward_pass_of_its_whole_family(kind: str) -> None:
    shape: dict[str, Any] = {
        "vocab_size": 60, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 40, "eos_token_id": 1, "initializer_range": 0.3,
    }  # fmt: skip
    torch.manual_seed(0)
    model: Any = (
        LlamaForCausalLM(LlamaConfig(**shape)) if kind == "llama" else Qwen2ForCausalLM(Qwen2Config(**shape))
    )
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    assert supports(model)
    stepper = DecoderStepper(Decoder(model.eval(), torch.float32))
    with torch.no_grad():
        first = stepper.prefill(torch.tensor([[3, 4, 5], [0, 6, 7]]), torch.tensor([0, 1]), 2)
        second = stepper.step(torch.tensor([8, 9]))
        for row, (ids, a, b) in enumerate([([3, 4, 5, 8], 2, 3), ([6, 7, 9], 1, 2)]):
            logits = model(torch.tensor([ids])).logits[0]
            torch.testing.assert_close(first[row], logits[a], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(second[row], logits[b], atol=1e-4, rtol=1e-4)


def test_generation_stops_at_the_end_of_turn_token_and_says_so(engine: TransformersEngine) -> None:
    stop = engine.tokenizer.eos_token_id
    wrote = engine.generate(prompts([[7, 8]] * 64), Sampling(max_tokens=40, temperature=1.5))
    reasons = {c.stop_reason for c in wrote}
    assert reasons == {StopReason.STOP, StopReason.LENGTH}, "this test needs samples of both kinds"
    for completion in wrote:
        inner = list(completion.token_ids[:-1])
        assert stop not in inner
        assert (completion.token_ids[-1] == stop) == (completion.stop_reason is StopReason.STOP)
        assert "<|im_end|>" not in completion.text
        assert len(completion.logprobs) == len(completion.token_ids) == completion.completion_tokens


def test_a_sample_has_all_the_room_that_its_own_prompt_leaves(engine: TransformersEngine) -> None:
    rows = [[6, 7], [5] * 60, [5] * 64, [5] * 70, [6, 7]]
    together = engine.generate(prompts(rows), Sampling(max_tokens=40))
    for place, row in enumerate(rows):
        (alone,) = engine.generate(prompts([row], seed=place), Sampling(max_tokens=40))
        assert together[place].token_ids == alone.token_ids
        assert len(alone.token_ids) <= max(64 - len(row), 0)
    assert [len(together[place].token_ids) for place in (2, 3)] == [0, 0]
    assert max(len(together[place].token_ids) for place in (0, 4)) > 4
    assert together[2].stop_reason is StopReason.LENGTH


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_ids_that_the_tokenizer_cannot_read_are_never_sampled(
    folder: Path, generic: bool, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load_model(folder)
    known = len(tokenizer)
    model.resize_token_embeddings(known + 50, mean_resizing=False)
    with torch.no_grad():
        model.lm_head.weight[known:] = model.lm_head.weight[:50] * 3
    if generic:
        monkeypatch.setattr(engine_module, "supports", lambda _: False)
    engine = TransformersEngine(model, tokenizer)
    wrote = engine.generate(prompts(ROWS * 8), Sampling(max_tokens=16, temperature=temperature))
    assert max(i for c in wrote for i in c.token_ids) < known
    row, reply = wrote[0].prompt_ids, wrote[0].token_ids
    with torch.no_grad():
        logits = model(torch.tensor([[*row, *reply]])).logits[0, len(row) - 1 : -1, :known]
    expected = torch.log_softmax(logits, -1).gather(1, torch.tensor(reply)[:, None])[:, 0]
    assert wrote[0].logprobs == pytest.approx(expected.tolist(), abs=1e-4), (
        "under the distribution sampled from"
    )


def test_generation_stops_at_the_token_that_the_template_ends_turns_with(folder: Path) -> None:
    model, tokenizer = load_model(folder)
    tokenizer.eos_token = "<|endoftext|>"  # and so says the config
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    engine = TransformersEngine(model, tokenizer)
    wrote = engine.generate(prompts([[7, 8]] * 64), Sampling(max_tokens=40, temperature=1.5))
    ends = {c.token_ids[-1] for c in wrote if c.stop_reason is StopReason.STOP}
    assert ends == set(ids_of(tokenizer, ["<|endoftext|>", "<|im_end|>"]))


def test_refresh_takes_over_changed_weights(folder: Path) -> None:
    engine = TransformersEngine.load(folder)
    before = engine.generate(prompts(ROWS), Sampling(temperature=0, max_tokens=6))
    with torch.no_grad():
        for parameter in engine.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    engine.refresh(version=3)
    after = engine.generate(prompts(ROWS), Sampling(temperature=0, max_tokens=6))
    assert {c.policy_version for c in after} == {3}
    assert [c.logprobs for c in after] != [c.logprobs for c in before]
    with torch.no_grad():
        expected = logprobs_by_forward(engine.model, ROWS[0], after[0].token_ids, 1.0)
    assert after[0].logprobs == pytest.approx(expected.tolist(), abs=1e-5)


def test_the_decoder_takes_adapters_into_account(folder: Path) -> None:
    model, tokenizer = load_model(folder)
    add_lora(model, LoRAConfig(rank=2, alpha=8), seed=0)
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert trainable
    assert all(".lora_" in name for name in trainable)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B" in name:  # zero at first: give it something to say
                parameter.normal_(std=0.5)
    engine = TransformersEngine(model, tokenizer)
    (wrote,) = engine.generate(prompts(ROWS[:1]), Sampling(max_tokens=8))
    with torch.no_grad():
        expected = logprobs_by_forward(model, ROWS[0], wrote.token_ids, 1.0)
    assert wrote.logprobs == pytest.approx(expected.tolist(), abs=1e-4)
    plain, _ = load_model(folder)
    plain.load_state_dict(merged_state(model))
    with torch.no_grad():
        merged = logprobs_by_forward(plain, ROWS[0], wrote.token_ids, 1.0)
    torch.testing.assert_close(merged, expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(ConfigError, match=r"lora\.targets: .*nothing"):
        add_lora(load_model(folder)[0], LoRAConfig(targets=("nothing",)), seed=0)


def test_bfloat16_stays_near_float32(folder: Path, engine: TransformersEngine) -> None:
    half = TransformersEngine.load(folder, dtype="bfloat16")
    wrote = half.generate(prompts(ROWS), Sampling(max_tokens=10))
    for row, completion in zip(ROWS, wrote, strict=True):
        with torch.no_grad():
            exact = logprobs_by_forward(engine.model, row, completion.token_ids, 1.0)
        assert (torch.tensor(completion.logprobs) - exact).abs().mean() < 0.1


def test_inverse_cdf_draws_in_proportion_and_never_an_impossible_token() -> None:
    logits = torch.log(torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]])).expand(1000, 5)
    uniform = (torch.arange(1000) + 0.5) / 1000
    token, logp = sample_tokens(logits, uniform, Sampling())
    assert torch.bincount(token, minlength=5).tolist() == [0, 250, 0, 750, 0]
    torch.testing.assert_close(logp.exp().unique(), torch.tensor([0.25, 0.75]))
    edge = torch.tensor([0.0, 1 - 2**-24])
    assert sample_tokens(logits[:2], edge, Sampling())[0].tolist() == [1, 3]


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.5, 0.15, 0.25]])).expand(400, 4)
    uniform = (torch.arange(400) + 0.5) / 400
    token, logp = sample_tokens(logits, uniform, Sampling(top_p=0.7))
    assert set(token.tolist()) == {1, 3}
    torch.testing.assert_close(logp.exp().unique(), torch.tensor([1 / 3, 2 / 3]))


def test_text_round_trips_through_the_tiny_tokenizer(engine: TransformersEngine) -> None:
    for text in ['{"days": 12, "tier": "gold"}', "päivää 🎉 9999", "a\n\tb  c", "\x00"]:
        ids = engine.renderer.ids(text)
        assert engine.tokenizer.decode(ids) == text
    assert len(engine.renderer.ids('{"days": 12, "tier": "gold"}')) == 9


def test_a_missing_or_empty_model_folder_is_one_clear_line(tmp_path: Path) -> None:
    for name in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match="folder"):
            load_model(name)
    with pytest.raises(DataError, match="no such folder"):
        load_policy("no/such/model")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="cannot be loaded"):
        load_model(tmp_path)


def test_a_tokenizer_without_a_chat_template_is_refused(folder: Path) -> None:
    model, tokenizer = load_model(folder)
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="chat template"):
        TransformersEngine(model, tokenizer)
