"""Every family of models: log-probs and greedy tokens are those of the model's own forward pass, alone or
beside others, or the model is refused in a line."""

from typing import Any

import pytest
import torch

from vertigym.core.errors import InputError
from vertigym.core.types import Prompt, Sampling
from vertigym.policies import tiny
from vertigym.policies.agreement import engine_gap
from vertigym.policies.model_folder import load_model
from vertigym.policies.transformers_engine import TransformersEngine

from .tiny_models import FAMILIES, VOCABULARY, NotTinyError, tiny_model

CACHE, FORWARD = "its own cache", "a forward pass over all tokens for each"
# One of each kind: how it is decoded.
KINDS = {
    "llama": "the fast decoder", "qwen3": "the fast decoder",
    "mistral": CACHE, "gemma2": CACHE, "gemma3_text": CACHE, "phi3": CACHE, "qwen2": CACHE, "olmo3": CACHE,
    "cohere2": CACHE, "gpt2": CACHE, "bloom": CACHE, "gpt_neox": CACHE, "mixtral": CACHE, "gpt_oss": CACHE,
    "qwen3_next": CACHE, "qwen3_5": CACHE, "lfm2": CACHE, "bamba": CACHE, "jamba": CACHE, "falcon_h1": CACHE,
    "granitemoehybrid": CACHE, "mamba2": CACHE, "deepseek_v3": CACHE,
    "mamba": FORWARD, "rwkv": FORWARD, "recurrent_gemma": FORWARD, "openai-gpt": FORWARD, "minimax": FORWARD,
}  # fmt: skip
REFUSED = {"bert": "not causal", "roberta": "not causal", "xmod": "cannot read text"}
SAMPLING = Sampling(max_tokens=6, temperature=0.9)
ROWS = [[30, 31, 32, 33, 34, 35, 36, 37, 38], [40, 41, 42], [30, 31, 32, 33, 34, 35, 36, 37, 38], [50]]
PROMPTS = [Prompt((), token_ids=row, seed=i) for i, row in enumerate(ROWS)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("m") / "tiny"
    size = tiny.TinySize(hidden=16, layers=1, heads=2, key_heads=2, ffn=16, vocabulary=VOCABULARY)
    tiny.build(["approve or reject"] * 2, folder, size=size)
    return load_model(folder)[1]


def check(model: Any, engine: TransformersEngine) -> None:
    together = engine.generate(PROMPTS, SAMPLING)
    gap = engine_gap(model, together, temperature=SAMPLING.temperature, banned=engine.banned)
    assert gap.tokens >= 8
    assert gap.mean < 1e-3, gap
    alone = [engine.generate([prompt], SAMPLING)[0] for prompt in PROMPTS]
    differ = [a.token_ids != b.token_ids for a, b in zip(together, alone, strict=True)]
    assert sum(differ) <= 1, "a sample does not depend on its neighbours but for rounding"
    (greedy,) = engine.generate(PROMPTS[:1], Sampling(max_tokens=4, temperature=0))
    ids = list(ROWS[0])
    for token in greedy.token_ids:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        logits[engine.banned] = -torch.inf
        assert logits[token] >= logits.max() - 1e-3
        ids.append(token)


@pytest.mark.parametrize("family", KINDS)
def test_each_kind_of_model_is_decoded_right(tokenizer: Any, family: str) -> None:
    notes: list[str] = []
    model = tiny_model(family)
    engine = TransformersEngine(model, tokenizer, on_note=notes.append)
    assert engine.way.name == KINDS[family]
    assert bool(notes) == (engine.way.name == FORWARD), "a slower way is told, once"
    check(model, engine)


@pytest.mark.parametrize("family", REFUSED)
def test_what_is_no_language_model_is_refused_in_a_line(tokenizer: Any, family: str) -> None:
    with pytest.raises(InputError, match=REFUSED[family]) as raised:
        TransformersEngine(tiny_model(family), tokenizer)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_right_or_refused(tokenizer: Any, family: str) -> None:
    try:
        model = tiny_model(family)
    except NotTinyError as error:
        pytest.skip(str(error))
    try:
        engine = TransformersEngine(model, tokenizer, on_note=lambda note: None)
    except InputError as error:
        pytest.skip(f"refused: {error}")
    check(model, engine)


def test_a_model_in_training_samples_without_dropout(tokenizer: Any) -> None:
    model = tiny_model("gpt2", resid_pdrop=0.9, attn_pdrop=0.9, embd_pdrop=0.9)
    engine = TransformersEngine(model, tokenizer)
    expected = engine.generate(PROMPTS, SAMPLING)
    model.train()
    assert [c.logprobs for c in engine.generate(PROMPTS, SAMPLING)] == [c.logprobs for c in expected]
    assert model.training


def test_a_copy_keeps_its_weights_until_it_is_told(tokenizer: Any) -> None:
    model = tiny_model("gpt2")
    engine = TransformersEngine(model, tokenizer, copy=True)
    before = engine.generate(PROMPTS, SAMPLING)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    assert engine.generate(PROMPTS, SAMPLING)[0].logprobs == before[0].logprobs
    engine.refresh(1)
    check(model, engine)
