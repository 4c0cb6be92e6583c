"""The learner: gradients equal a slow reference, and padding, order and micro-batches change nothing."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from vertigym.learner import learner as learner_module
from vertigym.learner.batch import Batch, PackedRow, PrefixTree, collate, lay_out, microbatches, packed
from vertigym.learner.config import OptimizerConfig
from vertigym.learner.leader_engine import LeaderEngine
from vertigym.learner.learner import Learner, Loss, tokenwise
from vertigym.learner.ranks import SINGLE_RANK
from vertigym.learner.samples import TokenColumns, TrainingSample
from vertigym.policies import tiny
from vertigym.policies.model_folder import load_model
from vertigym.policies.transformers_engine import TransformersEngine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("models") / "tiny"
    size = tiny.TinySize(hidden=16, layers=2, heads=2, key_heads=1, ffn=24, context=64, init_std=0.3)
    tiny.build(["a b c"] * 2, path, size=size)
    return path


def test_the_leaders_engine_ends_turns_as_the_one_inside_it(folder: Path) -> None:
    model, tokenizer = load_model(folder)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, 5]
    inner = TransformersEngine(model, tokenizer)
    leader = LeaderEngine(SINGLE_RANK, model, tokenizer, lambda weights: inner)
    assert leader.renderer.stop == inner.renderer.stop == {tokenizer.eos_token_id, 5}


SAMPLES = [
    TrainingSample([3, 4, 5, 6], [0, 0, 1, 1], TokenColumns(weight=[1.0, -2.0])),
    TrainingSample([7, 8, 9, 10, 11, 12, 13], [0, 1, 1, 0, 0, 1, 0], TokenColumns(weight=[0.5, 0.0, 3.0])),
    TrainingSample([20, 21], [0, 1], TokenColumns(weight=[1.5])),
]


def weighted(logp_T: Tensor, _: Tensor | None, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    assert batch.columns.weight is not None
    return -(batch.columns.weight * logp_T).sum(), {"w": batch.columns.weight.sum()}


def learner(folder: Path, **kwargs: Any) -> Learner:
    model, _ = load_model(folder)
    return Learner(model, OptimizerConfig(lr=1e-2), total_steps=10, **kwargs)


def gradients(
    some: Learner, samples: list[TrainingSample], **kwargs: Any
) -> tuple[dict[str, float], list[Tensor]]:
    got = some.forward_backward(samples, weighted, **kwargs)
    return got, [p.grad.clone() for p in some.model.parameters() if p.grad is not None]


def reference(folder: Path, temperature: float) -> tuple[float, list[Tensor]]:
    """One row at a time, no padding, float64 log-softmax over the whole row."""
    model, _ = load_model(folder)
    total = sum(sample.trained for sample in SAMPLES)
    loss: Any = 0.0
    for sample in SAMPLES:
        logits = model(torch.tensor([sample.token_ids])).logits[0].double() / temperature
        logp = torch.log_softmax(logits, -1)
        weights = iter(sample.columns.weight or ())
        for place, (token, trained) in enumerate(zip(sample.token_ids, sample.loss_mask, strict=True)):
            if trained:
                loss = loss - next(weights) * logp[place - 1, token]
    (loss / total).backward()
    return float(loss.detach() / total), [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_loss_and_gradient_equal_a_slow_reference(folder: Path, temperature: float) -> None:
    got, grads = gradients(learner(folder, temperature=temperature), SAMPLES)
    expected, expected_grads = reference(folder, temperature)
    assert got["loss"] == pytest.approx(expected, abs=1e-6)
    assert got["w"] == pytest.approx(4.0 / 6)
    for ours, theirs in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("tokens", [1, 8, 1000])
def test_micro_batches_and_order_change_nothing(folder: Path, tokens: int) -> None:
    _, whole = gradients(learner(folder), SAMPLES)
    _, split = gradients(learner(folder, microbatch_tokens=tokens), SAMPLES[::-1])
    for a, b in zip(whole, split, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_accumulating_over_calls_equals_one_call(folder: Path) -> None:
    _, whole = gradients(learner(folder), SAMPLES)
    some = learner(folder)
    some.forward_backward(SAMPLES[:1], weighted, normalizer=6)
    _, both = gradients(some, SAMPLES[1:], normalizer=6)
    for a, b in zip(whole, both, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_gradients_taken_with_the_logits_at_hand_are_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @tokenwise
    def loss(logp_T: Tensor, entropy_T: Tensor | None, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        assert entropy_T is not None
        assert batch.columns.weight is not None
        return -(batch.columns.weight * logp_T.exp()).sum() - 0.1 * entropy_T.sum(), {}

    def run() -> tuple[dict[str, float], list[Tensor]]:
        some = learner(folder)
        got = some.forward_backward(SAMPLES, loss, entropy=True)
        return got, [p.grad.clone() for p in some.model.parameters() if p.grad is not None]

    asked: list[int] = []
    expected, plain = run()
    foretell = learner_module._upstream
    monkeypatch.setattr(learner_module, "_LARGE_VOCABULARY", 1)

    def spied(loss: Loss, batch: Batch) -> Any:
        asked.append(len(batch.targets_T))
        return foretell(loss, batch)

    monkeypatch.setattr(learner_module, "_upstream", spied)
    got, eager = run()
    assert asked, "the kernel must have been told the gradients"
    assert got == pytest.approx(expected, abs=1e-6)
    for a, b in zip(plain, eager, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_tokens_outside_the_mask_get_no_gradient(folder: Path) -> None:
    """Only position 0 predicts a trained token, so what stands after it cannot matter."""
    a = [TrainingSample([3, 4, 5, 6], [0, 1, 0, 0], TokenColumns(weight=[1.0]))]
    b = [TrainingSample([3, 4, 30, 31], [0, 1, 0, 0], TokenColumns(weight=[1.0]))]
    for x, y in zip(gradients(learner(folder), a)[1], gradients(learner(folder), b)[1], strict=True):
        assert torch.equal(x, y)


def test_score_gives_each_samples_log_probs_in_the_order_asked(folder: Path) -> None:
    some = learner(folder, microbatch_tokens=8)
    rows = some.score(SAMPLES)
    assert [len(row) for row in rows] == [2, 3, 1]
    alone = [some.score([sample])[0] for sample in SAMPLES]
    for a, b in zip(rows, alone, strict=True):
        assert a == pytest.approx(b, abs=1e-5)


def test_microbatches_hold_every_sample_once_within_the_budget() -> None:
    parts = list(microbatches(SAMPLES, 8, share=True))
    assert sorted(id(s) for part in parts for row in part for s in row.samples) == sorted(map(id, SAMPLES))
    assert all(len(part) == 1 or collate(part).ids_BS.numel() <= 8 for part in parts)


PROMPT = [3, 4, 5, 6, 7]
GROUP = [
    TrainingSample([*PROMPT, 8, 9, 10], [0] * 5 + [1, 1, 1], TokenColumns(weight=[1.0, -1.0, 0.5])),
    TrainingSample([*PROMPT, 11], [0] * 5 + [1], TokenColumns(weight=[2.0])),  # nothing of its own is fed
    TrainingSample([*PROMPT, 8, 20, 21, 12, 13], [0] * 5 + [1, 0, 0, 1, 0], TokenColumns(weight=[-0.5, 3.0])),
    TrainingSample([9, 8, 7], [0, 1, 1], TokenColumns(weight=[1.0, 1.0])),
]


def test_a_shared_prompt_is_computed_once_and_changes_nothing(folder: Path) -> None:
    shared, alone = learner(folder), learner(folder)
    alone.share_rows = False
    assert [len(row.samples) for row in lay_out(GROUP, share=True)] == [3, 1]
    assert shared.share_rows, "the tiny model must use the attention that takes a mask"
    (got, grads), (expected, expected_grads) = gradients(shared, GROUP), gradients(alone, GROUP)
    assert got == pytest.approx(expected, abs=1e-6)
    for a, b in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)
    for a_row, b_row in zip(shared.score(GROUP), alone.score(GROUP), strict=True):
        assert a_row == pytest.approx(b_row, abs=1e-5)


def test_branches_stand_at_their_own_positions_and_never_see_each_other() -> None:
    batch = collate(lay_out(GROUP[:3], share=True))
    assert batch.positions_BS is not None
    assert batch.mask_B1SS is not None
    assert batch.ids_BS.tolist() == [[3, 4, 5, 6, 7, 8, 9, 8, 20, 21]]
    assert batch.positions_BS.tolist() == [[0, 1, 2, 3, 4, 5, 6, 5, 6, 7]]
    assert batch.hidden_index_T.tolist() == [4, 5, 6, 4, 4, 9]
    assert batch.targets_T.tolist() == [8, 9, 10, 11, 8, 12]
    assert batch.mask_B1SS[0, 0, 8].tolist() == [True] * 5 + [False, False, True, True, False]


def test_long_branches_over_a_short_prompt_are_not_put_into_one_row() -> None:
    long = [TrainingSample([1, 2, *range(3, 13)], [0, 0] + [1] * 10) for _ in range(3)]
    assert [len(row.samples) for row in lay_out(long, share=True)] == [1, 1, 1]


def test_a_trained_first_token_is_refused() -> None:
    with pytest.raises(AssertionError, match="first token"):
        TrainingSample([1, 2], [1, 0])


def test_learning_rate_warms_up_and_then_follows_its_schedule(folder: Path) -> None:
    model, _ = load_model(folder)
    cosine = OptimizerConfig(lr=1.0, schedule="cosine", warmup_steps=2, final_lr=0.1)
    rates = [Learner(model, cosine, total_steps=10).learning_rate(s) for s in range(11)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[6] == pytest.approx(0.55)
    assert rates[10] == pytest.approx(0.1)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    constant = OptimizerConfig(lr=0.3)
    assert {Learner(model, constant, total_steps=10).learning_rate(s) for s in range(5)} == {0.3}


def test_a_resumed_optimizer_goes_on_to_the_same_bits(folder: Path, tmp_path: Path) -> None:
    straight = learner(folder)
    for _ in range(2):
        straight.forward_backward(SAMPLES, weighted)
        straight.optim_step()
    straight.save_state(tmp_path)
    straight.model.save_pretrained(tmp_path)
    model, _ = load_model(folder)
    model.load_state_dict(straight.model.state_dict())
    resumed = Learner(model, OptimizerConfig(lr=1e-2), total_steps=10)
    resumed.load_state(tmp_path)
    for some in (straight, resumed):
        some.forward_backward(SAMPLES, weighted)
        some.optim_step()
    for a, b in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_gradients_are_clipped_to_the_norm_and_the_norm_before_is_reported(folder: Path) -> None:
    some = learner(folder)
    some.forward_backward(SAMPLES, weighted, normalizer=1e-3)
    before = [p.detach().clone() for p in some.model.parameters()]
    reported = some.optim_step()
    assert reported["grad_norm"] > 1.0
    assert any(not torch.equal(a, b) for a, b in zip(before, some.model.parameters(), strict=True))


def test_a_gradient_that_is_not_finite_leaves_the_weights_alone(folder: Path) -> None:
    some = learner(folder)
    some.forward_backward(SAMPLES, lambda logp, _, __: ((logp * float("nan")).sum(), {}))
    before = [p.detach().clone() for p in some.model.parameters()]
    assert not math.isfinite(some.optim_step()["grad_norm"])
    assert all(torch.equal(a, b) for a, b in zip(before, some.model.parameters(), strict=True))


# Packing.

UNLIKE = [
    TrainingSample(
        [3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
        [0, 0, 0, 0, 1, 1, 1, 1, 1, 1],
        TokenColumns(weight=[1, -1, 2, 0.5, 0.1, 1]),
    ),
    TrainingSample([13, 14, 15], [0, 1, 1], TokenColumns(weight=[1.0, -0.5])),
    TrainingSample([16, 17, 18, 19], [0, 1, 0, 1], TokenColumns(weight=[-2.0, 1.0])),
    TrainingSample([16, 17, 20], [0, 1, 1], TokenColumns(weight=[0.3, 0.7])),
    TrainingSample([21, 22], [0, 1], TokenColumns(weight=[1.5])),
]


def test_unlike_samples_share_rows_where_that_saves_padding_and_nothing_changes(folder: Path) -> None:
    (part,) = microbatches(UNLIKE, 1000, share=True)
    assert [len(row.samples) for row in part] == [4, 1]
    batch = collate(part)
    assert batch.ids_BS.shape == (2, 9)
    assert batch.positions_BS is not None
    assert batch.positions_BS[0].tolist() == [0, 1, 2, 0, 1, 0, 1, 0, 0], "positions begin anew with each tree"
    packed, alone = learner(folder), learner(folder)
    alone.share_rows = False
    (got, grads), (expected, expected_grads) = gradients(packed, UNLIKE), gradients(alone, UNLIKE)
    assert got == pytest.approx(expected, abs=1e-6)
    for a, b in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)
    for a_row, b_row in zip(packed.score(UNLIKE), alone.score(UNLIKE), strict=True):
        assert a_row == pytest.approx(b_row, abs=1e-5)


def test_no_token_sees_another_tree() -> None:
    trees = [PrefixTree([UNLIKE[1]]), PrefixTree([UNLIKE[2], UNLIKE[3]])]
    mask_B1SS = collate([PackedRow(trees), PackedRow([PrefixTree([UNLIKE[0]])])]).mask_B1SS
    assert mask_B1SS is not None
    #                     a a | p b b | c    (b, c: branches of p)
    assert mask_B1SS[0, 0, :6, :6].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 1, 0, 0, 1],
    ]


def test_rows_of_like_length_are_left_alone() -> None:
    like = [TrainingSample([i, i + 1, i + 2], [0, 0, 1]) for i in range(3, 9)]
    (part,) = microbatches(like, 1000, share=True)
    assert [len(row.samples) for row in part] == [1] * 6
    assert collate(part).mask_B1SS is None, "they keep the attention that needs no mask"


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_packed_rows_hold_every_tree_once_and_are_no_longer_than_the_longest(lengths: list[int]) -> None:
    laid = [PackedRow([PrefixTree([TrainingSample([1] * (n + 1), [0] * n + [1])])]) for n in lengths]
    tight = packed(laid)
    assert sorted(id(tree) for row in tight for tree in row.trees) == sorted(id(row.trees[0]) for row in laid)
    assert max(row.length for row in tight) == max(row.length for row in laid)
    assert len(tight) <= len(laid)
    half_empty = [row for row in tight if row.length <= max(lengths) / 2]
    assert len(half_empty) <= 1, "two of them would have gone into one"


# Cheaper passes.


def test_bfloat16_passes_keep_weights_gradients_and_head_in_float32(folder: Path) -> None:
    exact, coarse = learner(folder), learner(folder, dtype=torch.bfloat16)
    seen: list[torch.dtype] = []
    layer = coarse.model.model.layers[0].mlp.down_proj
    layer.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    (got, grads), (expected, expected_grads) = gradients(coarse, SAMPLES), gradients(exact, SAMPLES)
    assert set(seen) == {torch.bfloat16}
    assert {p.dtype for p in coarse.model.parameters()} == {g.dtype for g in grads} == {torch.float32}
    assert got["loss"] == pytest.approx(expected["loss"], rel=0.05)
    assert got["loss"] != expected["loss"]
    for a, b in zip(grads, expected_grads, strict=True):
        assert float((a - b).norm()) <= 0.1 * float(b.norm())


def test_under_bfloat16_passes_log_probs_are_those_of_a_float32_head(folder: Path) -> None:
    some = learner(folder, dtype=torch.bfloat16)
    (part,) = microbatches(SAMPLES, 1000, share=True)
    batch = collate(part)
    with torch.no_grad():
        logp_T, _ = some.logprobs(batch)
        logits_TV = some.hidden(batch).double() @ some.model.lm_head.weight.double().T
    expected_T = torch.log_softmax(logits_TV, -1).gather(1, batch.targets_T[:, None])[:, 0]
    torch.testing.assert_close(logp_T.double(), expected_T, atol=1e-5, rtol=0)


def test_a_step_too_small_for_bfloat16_is_not_lost(folder: Path) -> None:
    model, _ = load_model(folder)
    some = Learner(model, OptimizerConfig(lr=1e-6), total_steps=10, dtype=torch.bfloat16)
    norm = model.model.norm.weight
    before = norm.detach().clone()
    some.forward_backward(SAMPLES, weighted)
    some.optim_step()
    assert not torch.equal(norm, before)
    assert torch.equal(norm.bfloat16(), before.bfloat16()), "in bfloat16 nothing would have happened"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_checkpointing_computes_layers_twice_and_changes_nothing(
    folder: Path, dtype: torch.dtype
) -> None:
    calls: list[int] = []
    results = []
    for checkpointing in (False, True):
        some = learner(folder, checkpointing=checkpointing, dtype=dtype)
        layers = some.model.model.layers
        for layer in layers:
            layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
        results.append(gradients(some, GROUP))
        assert len(calls) == len(layers) * (2 if checkpointing else 1)
        calls.clear()
        some.score(GROUP)
        assert len(calls) == len(layers), "without a backward pass there is nothing to compute again"
        calls.clear()
    (plain, plain_grads), (again, again_grads) = results
    assert again == plain
    assert all(torch.equal(a, b) for a, b in zip(again_grads, plain_grads, strict=True))
