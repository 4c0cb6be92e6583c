"""A remote model's verbs: gradients by closed form, plain sums, and nothing that depends on company."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("peft")
pytest.importorskip("google.protobuf")

from vertigym.dialects.chat_call import RefusedError
from vertigym.policies import tiny
from vertigym.policies.row_memory import rows_are_alike
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.remote import schema
from vertigym.remote.adapted_base import AdaptedBase, read_adapter
from vertigym.remote.call_models import AdamRequest, AdapterShape
from vertigym.remote.datum_passes import DatumPasses
from vertigym.remote.datums import read_forward_backward
from vertigym.remote.trained_model import TrainedModel

from .model_families import build

SHAPE = AdapterShape(rank=4, seed=1)
INPUTS, TARGETS = [5, 6, 7, 8], [6, 7, 8, 9]
OLD, ADVANTAGES = [-1.0, -6.0, -5.0, -5.5], [1.0, -2.0, 0.5, 1.5]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> AdaptedBase:
    folder = tmp_path_factory.mktemp("base")
    tiny.build(["the cat sat on the mat"] * 2, folder, size=tiny.TinySize(hidden=16, layers=2))
    return AdaptedBase("tiny", str(folder))


def tensor(values: list[float], kind: str = "f") -> Any:
    array = np.asarray(values, np.float32 if kind == "f" else np.int64)
    dtype = schema.FLOAT32 if kind == "f" else schema.INT64
    return schema.new("Tensor", dense=array.tobytes(), dtype=dtype, shape=[len(values)])


def call(base: AdaptedBase, loss: str, *data: dict[str, Any], only: bool = False, **config: Any) -> Any:
    message = schema.new("ForwardBackwardRequest", model_id="m", seq_id=1, loss_fn=loss, forward_only=only)
    for name, value in config.items():
        message.loss_fn_config[name] = value
    for one in data or ({},):
        datum = message.data.add()
        tokens = np.asarray(one.pop("tokens", INPUTS), np.int32)
        datum.model_input.add().encoded_text.tokens = tokens.tobytes()
        targets = one.pop("targets", TARGETS)
        datum.loss_fn_inputs["target_tokens"].CopyFrom(tensor(targets, "i"))
        for name, values in one.items():
            datum.loss_fn_inputs[name].CopyFrom(tensor(values))
    return read_forward_backward(message, base.rules)


def output(message: bytes) -> tuple[float, list[float]]:
    read = schema.parsed("ForwardBackwardOutput", message)
    logps = np.frombuffer(read.loss_fn_outputs[0].fields["logprobs"].data, np.float32)
    return read.metrics["loss:sum"], logps.tolist()


def gradients(model: TrainedModel) -> list[torch.Tensor]:
    return [p.grad.clone() for p in model.model.parameters() if p.grad is not None]


def policy() -> dict[str, Any]:
    return {"logprobs": OLD, "advantages": ADVANTAGES}


def by_hand(name: str, logp: torch.Tensor) -> torch.Tensor:
    old, adv = torch.tensor(OLD), torch.tensor(ADVANTAGES)
    ratio = torch.exp(logp - old)
    held = ratio.clamp(0.8, 1.2)
    return {
        "cross_entropy": lambda: -(logp * torch.tensor([0.0, 1.0, -0.5, 2.0])),
        "importance_sampling": lambda: -ratio * adv,
        "ppo": lambda: -torch.minimum(ratio * adv, held * adv),
        "cispo": lambda: -held.detach() * logp * adv,
        "dro": lambda: -(logp * adv - 0.025 * (logp - old) ** 2),
    }[name]().sum()


@pytest.mark.parametrize("name", ["cross_entropy", "importance_sampling", "ppo", "cispo", "dro"])
def test_value_and_gradient_are_those_of_the_written_equation(base: AdaptedBase, name: str) -> None:
    """The reference is autograd through the model's own forward pass and `log_softmax`."""
    model = TrainedModel(base, SHAPE, seed=0)
    with torch.no_grad():  # B starts at zero, where half of the gradient would be
        for key, weight in model.model.named_parameters():
            if ".lora_B" in key:
                weight.copy_(torch.linspace(-0.1, 0.1, weight.numel()).view_as(weight))
    inputs = {"weights": [0.0, 1.0, -0.5, 2.0]} if name == "cross_entropy" else policy()
    loss, logps = output(model.forward_backward(call(base, name, inputs)))
    found = gradients(model)
    model.learner.forget(moments=False)
    logits = model.model(input_ids=torch.tensor([INPUTS])).logits[0]
    logits[:, base.banned] = -torch.inf
    logp = torch.log_softmax(logits, -1)[range(4), TARGETS]
    expected = by_hand(name, logp)
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), abs=1e-5)
    assert logps == pytest.approx(logp.tolist(), abs=1e-5)
    scale = max(float(g.abs().max()) for g in gradients(model))
    for mine, theirs in zip(found, gradients(model), strict=True):
        assert float((mine - theirs).abs().max()) <= 1e-6 * max(1.0, scale)


def test_gspo_takes_one_ratio_a_sequence(base: AdaptedBase) -> None:
    model = TrainedModel(base, SHAPE, seed=0)
    inputs = policy() | {"sequence_ratio_mask": [0.0, 1.0, 1.0, 1.0]}
    bounds: dict[str, Any] = {"clip_low_threshold": 0.0, "clip_high_threshold": 1e9}
    loss, logps = output(model.forward_backward(call(base, "gspo", inputs, **bounds)))
    ratio = np.exp(np.mean(np.array(logps[1:]) - np.array(OLD[1:])))
    assert loss == pytest.approx(-ratio * sum(ADVANTAGES[1:]), rel=1e-5)


def test_chunks_and_calls_add_up_to_the_same_bits(base: AdaptedBase) -> None:
    data = [{"tokens": INPUTS[:n], "targets": TARGETS[:n], "weights": [0.5] * n} for n in (4, 1, 3, 2, 4)]
    found = []
    for cuts in ([5], [2, 3], [1, 1, 1, 1, 1]):
        model, at = TrainedModel(base, SHAPE, seed=0), 0
        for cut in cuts:
            model.forward_backward(call(base, "cross_entropy", *(dict(d) for d in data[at : at + cut])))
            at += cut
        model.optim_step(AdamRequest(learning_rate=0.1))
        found.append([p.detach() for p in model.model.parameters() if p.requires_grad])
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_models_over_one_base_share_its_weights_and_nothing_else(base: AdaptedBase) -> None:
    one, other = TrainedModel(base, SHAPE, seed=0), TrainedModel(base, SHAPE, seed=0)
    alone = TrainedModel(base, SHAPE, seed=0)
    before = base.model.get_input_embeddings().weight.clone()
    for _ in range(3):
        for model, sign in ((one, 1.0), (other, -1.0)):
            model.forward_backward(call(base, "cross_entropy", {"weights": [sign] * 4}))
            model.optim_step(AdamRequest(learning_rate=0.05))
    for _ in range(3):
        alone.forward_backward(call(base, "cross_entropy", {"weights": [1.0] * 4}))
        alone.optim_step(AdamRequest(learning_rate=0.05))
    mine, theirs = one.model.state_dict(), alone.model.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert one.model.get_input_embeddings().weight is base.model.get_input_embeddings().weight
    assert torch.equal(before, base.model.get_input_embeddings().weight)
    apart = other.model.state_dict()
    assert any(not torch.equal(mine[name], apart[name]) for name in mine)


def test_forward_only_adds_no_gradient(base: AdaptedBase) -> None:
    model = TrainedModel(base, SHAPE, seed=0)
    loss, logps = output(model.forward_backward(call(base, "ppo", policy(), only=True)))
    again, same = output(model.forward_backward(call(base, "ppo", policy())))
    assert loss == pytest.approx(again, abs=1e-5)
    assert logps == pytest.approx(same, abs=1e-6)
    model.learner.forget(moments=False)
    model.forward_backward(call(base, "ppo", policy(), only=True))
    assert not gradients(model)


def test_adam_steps_as_each_step_says(base: AdaptedBase) -> None:
    """Against torch's Adam on the same gradients, with other settings at each step."""
    model = TrainedModel(base, SHAPE, seed=0)
    copies = [p.detach().clone().requires_grad_() for p in model.model.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(copies)
    steps = [(0.1, 0.9, 0.95, 0.0, 0.0), (0.02, 0.5, 0.9, 0.1, 0.3)]
    for lr, beta1, beta2, decay, clip in steps:
        model.forward_backward(call(base, "cross_entropy", {"weights": [1.0] * 4}))
        for copy, p in zip(copies, (p for p in model.model.parameters() if p.requires_grad), strict=True):
            copy.grad = None if p.grad is None else p.grad.clone()
        if clip:
            torch.nn.utils.clip_grad_norm_(copies, clip)
        for group in adam.param_groups:
            group |= {"lr": lr, "betas": (beta1, beta2), "eps": 1e-8, "weight_decay": decay}
        adam.step()
        model.optim_step(
            AdamRequest(
                learning_rate=lr, beta1=beta1, beta2=beta2, eps=1e-8, weight_decay=decay, grad_clip_norm=clip
            )
        )
    for copy, p in zip(copies, (p for p in model.model.parameters() if p.requires_grad), strict=True):
        assert torch.allclose(copy, p, atol=1e-6)


@pytest.mark.parametrize("optimizer", [True, False])
def test_what_was_saved_goes_on_with_or_without_its_optimizer(
    base: AdaptedBase, tmp_path: Path, optimizer: bool
) -> None:
    def step(model: TrainedModel) -> None:
        model.forward_backward(call(base, "cross_entropy", {"weights": [1.0] * 4}))
        model.optim_step(AdamRequest(learning_rate=0.05))

    model = TrainedModel(base, SHAPE, seed=0)
    step(model)
    model.save(tmp_path)
    loaded = TrainedModel(base, SHAPE, seed=7)
    loaded.load(tmp_path, optimizer=optimizer)
    assert all(torch.equal(v, loaded.model.state_dict()[n]) for n, v in model.model.state_dict().items())
    step(model)
    step(loaded)
    same = all(torch.equal(v, loaded.model.state_dict()[n]) for n, v in model.model.state_dict().items())
    assert same is optimizer


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings:UserWarning")
def test_saved_adapters_are_a_folder_that_peft_loads(base: AdaptedBase, tmp_path: Path) -> None:
    from peft import PeftModel

    model = TrainedModel(base, SHAPE, seed=0)
    model.forward_backward(call(base, "cross_entropy", {"weights": [1.0] * 4}))
    model.optim_step(AdamRequest(learning_rate=0.1))
    model.save(tmp_path)
    ids = torch.tensor([INPUTS])
    with torch.no_grad():
        expected = model.model(input_ids=ids).logits
        theirs = PeftModel.from_pretrained(base.view(), tmp_path)(input_ids=ids).logits
        mine = base.with_adapters(SHAPE, seed=3)
        read_adapter(mine, tmp_path)
        assert torch.allclose(expected, theirs, atol=1e-5)
        assert torch.equal(expected, mine(input_ids=ids).logits)


def test_targets_of_adapters_are_told_apart(base: AdaptedBase) -> None:
    def adapted(**kinds: bool) -> set[str]:
        none: dict[str, Any] = {"train_attn": False, "train_mlp": False, "train_unembed": False}
        model = base.with_adapters(AdapterShape(rank=2, **(none | kinds)), seed=0)
        return {name.split(".")[-4] for name in model.state_dict() if ".lora_A" in name}

    assert adapted(train_attn=True) == {"q_proj", "k_proj", "v_proj", "o_proj"} or adapted(train_attn=True) == {
        "self_attn"
    }
    assert adapted(train_unembed=True).isdisjoint(adapted(train_mlp=True))


@pytest.mark.parametrize(
    ("loss", "data", "config", "said"),
    [
        ("stable_reinforce", {}, {}, "not public"),
        ("custom", {}, {}, "forward_backward_custom"),
        ("mse", {}, {}, "not known here"),
        ("ppo", {"weights": [1.0] * 4}, {}, "this loss reads logprobs, advantages"),
        ("ppo", policy(), {"clip": 0.2}, "'clip' is not known"),
        ("gspo", policy() | {"sequence_ratio_mask": [1.0] * 4}, {}, "must say clip_low_threshold"),
        ("cross_entropy", {"weights": [1.0] * 3}, {}, "3 numbers for 4 tokens"),
        ("cross_entropy", {"weights": [float("nan")] * 4}, {}, "finite"),
        ("cross_entropy", {"tokens": [5, 6, 7, 10**6]}, {}, "token 1000000"),
        ("cross_entropy", {"targets": [5, 6, 7, 10**6]}, {}, "none that the tokenizer knows"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(
    base: AdaptedBase, loss: str, data: dict[str, Any], config: dict[str, Any], said: str
) -> None:
    with pytest.raises(RefusedError, match=said):
        call(base, loss, dict(data), **config)


@pytest.mark.parametrize("unembed", [True, False])
def test_datums_side_by_side_count_as_if_each_were_alone(
    base: AdaptedBase, unembed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = TransformersEngine.load(base.folder)._decoder
    if not decoder or not rows_are_alike(decoder):
        pytest.skip("rows are not alike on this machine")
    monkeypatch.setattr(DatumPasses, "_alike", lambda _: True)  # where it finds out, each is a pass
    draw = np.random.default_rng(0)
    sizes = [3, 4, 12, 15, 15, 16, 40, 41, 47, 33, 5, 100, 7, 7]
    data = [
        {"tokens": draw.integers(3, 90, size).tolist(), "targets": draw.integers(3, 90, size).tolist()}
        | {"weights": draw.normal(size=size).tolist()}
        for size in sizes
    ]
    shape = AdapterShape(rank=4, seed=1, train_unembed=unembed)

    def found(cuts: list[int]) -> tuple[list[torch.Tensor], list[bytes]]:
        model, said = TrainedModel(base, shape, seed=0), []
        for step in range(2):  # the second after a step, when no adapter is 0 any more
            for start, end in pairwise([0, *cuts, len(data)]):
                said.append(model.forward_backward(call(base, "cross_entropy", *map(dict, data[start:end]))))
            if not step:
                model.optim_step(AdamRequest(learning_rate=0.1))
        return gradients(model), said

    alone, each = found(list(range(1, len(data))))
    for cuts in ([], [5], [2, 3, 9]):
        together, said = found(cuts)
        assert len(together) == len(alone)
        assert all(map(torch.equal, together, alone))
        assert [logp for one in said for logp in output(one)[1]] == [
            logp for one in each for logp in output(one)[1]
        ]


@pytest.mark.parametrize(("family", "changes"), [("gpt2", {"n_positions": 50}), ("qwen2_moe", {})])
def test_other_families_count_each_datum_as_alone(family: str, changes: dict[str, Any], tmp_path: Path) -> None:
    """One has as many positions as tokens it reads, the other adapters that are fed an expert's
    tokens, which are of many datums."""
    base = AdaptedBase(family, str(build(family, tmp_path / family, **changes)))
    sizes = [base.rules.context if changes else 40, 40, 41, 9]
    data = [{"tokens": [5 + i % 9 for i in range(n)], "targets": [6 + i % 9 for i in range(n)]} for n in sizes]
    found = []
    for cuts in ([[0, 4]], [[0, 1], [1, 2], [2, 4]]):
        model = TrainedModel(base, SHAPE, seed=0)
        for start, end in cuts:
            rows = [{**one, "weights": [1.0] * len(one["tokens"])} for one in data[start:end]]
            model.forward_backward(call(base, "cross_entropy", *rows))
        found.append(gradients(model))
    assert found[0]
    assert all(map(torch.equal, *found))
