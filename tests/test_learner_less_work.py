"""What is not computed, held or waited for twice, and is the same all the same."""

import copy
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from vertigym.learner.adapters_off import AdaptersOff
from vertigym.learner.batch import collate, microbatches
from vertigym.learner.config import OptimizerConfig, PolicyConfig
from vertigym.learner.learner import Learner
from vertigym.learner.objective import policy_loss
from vertigym.learner.samples import TokenColumns, TrainingSample
from vertigym.policies.lora import LoRAConfig, add_lora
from vertigym.trainer.config import EvalConfig
from vertigym.trainer.gatekeeper import Gatekeeper
from vertigym.trainer.run import Run

LAYERS = 2
SIZES = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}


def model() -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {**SIZES, "num_hidden_layers": LAYERS, "intermediate_size": 24, "vocab_size": 64}
    config = Qwen3Config(**sizes, tie_word_embeddings=False)
    return Qwen3ForCausalLM(config)


def samples() -> list[TrainingSample]:
    """Two of one prompt, which share a row, and another one."""
    ids = ([3, 4, 5, 6, 7], [3, 4, 8, 9], [10, 11, 12])
    masks = ([0, 0, 1, 1, 1], [0, 0, 1, 1], [0, 1, 1])
    return [
        TrainingSample(one, mask, TokenColumns(sampler_logp=[-2.0] * sum(mask), advantage=[a] * sum(mask)))
        for one, mask, a in zip(ids, masks, (1.0, -1.0, 0.5), strict=True)
    ]


def learner(some: Any, **more: Any) -> Learner:
    return Learner(some, OptimizerConfig(lr=1e-2), total_steps=4, **more)


def test_without_its_adapters_a_trained_model_is_the_one_it_started_from() -> None:
    start = model()
    trained = copy.deepcopy(start)
    add_lora(trained, LoRAConfig(rank=2, targets=("q_proj", "down_proj", "lm_head")), seed=0)
    policy = learner(trained)
    expected = learner(start).score(samples())
    before = [name for name, p in trained.named_parameters() if p.requires_grad]
    for sample in (taught := samples()):
        sample.columns.weight = [1.0] * sample.trained
    for _ in range(2):
        policy.forward_backward(taught, policy_loss(PolicyConfig(ratio_to="trainer")))
        policy.optim_step()
    now = policy.score(samples())
    assert now != expected
    assert AdaptersOff(policy).score(samples()) == expected
    assert policy.score(samples()) == now, "they are on again"
    assert [name for name, p in trained.named_parameters() if p.requires_grad] == before


@pytest.mark.parametrize(
    "more", [{}, {"correction": "token"}, {"loss": "gspo"}, {"correction": "sequence-sum"}]
)
def test_the_first_pass_after_sampling_says_what_a_pass_before_it_would(more: dict[str, Any]) -> None:
    loss = policy_loss(PolicyConfig(ratio_to="trainer", **more))
    found = []
    for scored in (True, False):
        some, taught = learner(model()), samples()
        logps = some.score(taught)
        for sample, logp in zip(taught, logps, strict=True):
            sample.columns.weight = [1.0] * sample.trained
            sample.columns.trainer_logp = logp if scored else None
        metrics = some.forward_backward(taught, loss)
        found.append((metrics, [p.grad for p in some.model.parameters()]))
    assert found[0][0] == found[1][0]
    assert found[0][0]["sampler_kl"] > 0, "the sampler's log-probs are others"
    assert all(torch.equal(one, other) for one, other in zip(found[0][1], found[1][1], strict=True))


def test_a_shared_row_has_one_mask_for_all_layers() -> None:
    some, seen = learner(model()), []
    attend = torch.nn.functional.scaled_dot_product_attention

    def note(query: Any, key: Any, value: Any, **more: Any) -> Any:
        seen.append(more["attn_mask"])
        return attend(query, key, value, **more)

    (part,) = microbatches(samples(), 64, share=True)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.nn.functional, "scaled_dot_product_attention", note)
        some.logprobs(collate(part))
    assert len(seen) == LAYERS
    assert seen[0].dtype is torch.float32
    assert {mask.data_ptr() for mask in seen} == {seen[0].data_ptr()}


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_the_heads_precision_is_the_heads_alone(precision: str) -> None:
    exact, rounded = (learner(model(), head_precision=one) for one in ("float32", precision))
    expected, found = (torch.tensor([*chain(*some.score(samples()))]) for some in (exact, rounded))
    assert torch.allclose(found, expected, atol=2e-2)
    assert torch.equal(found, expected) is (precision == "tf32"), "a CPU has no tf32"
    with rounded.in_float32():
        assert torch.equal(torch.tensor([*chain(*rounded.score(samples()))]), expected)
    assert not torch.backends.cuda.matmul.allow_tf32


def test_decisions_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    for step, verdict in enumerate(["promoted", "rejected", "rejected"], 1):
        run.record_gate({"step": step, "verdict": verdict, "reason": ""})
    config = EvalConfig(suites=(Path("suite.toml"),), patience=2)
    keeper = Gatekeeper([], config, run, None, seed=0, steps=3)  # type: ignore[arg-type]
    monkeypatch.setattr(Run, "gates", lambda self: pytest.fail("read again"))
    assert keeper.is_hopeless()
    assert keeper.was_rejected(2)
    assert not keeper.was_rejected(1)
