"""DPO: its gradient is the textbook's, it tells held-out pairs apart, a killed run goes on to the bit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from vertigym.benchmarks.learning import correction_pairs, dpo_table
from vertigym.core.config import parse
from vertigym.core.errors import InputError
from vertigym.core.files import write_jsonl
from vertigym.learner.config import OptimizerConfig
from vertigym.learner.learner import Learner
from vertigym.learner.samples import TrainingSample
from vertigym.policies.chat import ChatRenderer
from vertigym.policies.model_folder import load_model
from vertigym.trainer.config import RunConfig
from vertigym.trainer.dpo import PairUpdate, read_pairs
from vertigym.trainer.dry_run import plan
from vertigym.trainer.loop import Progress, train

from .returns import rows, warm


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and pairs in which an agent has put right what last year's rules say."""
    made = tmp_path_factory.mktemp("dpo")
    warm(made, tasks=440, steps=40)
    correction_pairs(made)
    return made


def table(folder: Path, **changes: Any) -> dict[str, Any]:
    return dpo_table(folder, folder / "warm/checkpoints/step-000040", **changes)


def learner(folder: Path) -> tuple[Learner, ChatRenderer]:
    model, tokenizer = load_model(folder / "warm/checkpoints/step-000040")
    return Learner(model.float(), OptimizerConfig(lr=1e-2), total_steps=4), ChatRenderer(tokenizer)


def gradient(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def test_loss_and_gradient_are_the_textbooks(folder: Path) -> None:
    trained, renderer = learner(folder)
    start, _ = learner(folder)
    pairs = read_pairs(folder / "train.jsonl", renderer)[:6]
    update = PairUpdate(trained, start, beta=0.3)
    first = update(pairs)
    assert first["loss"] == pytest.approx(0.693147, abs=1e-6)
    assert first["accuracy"] == 0.0  # nothing is told apart before the first step
    trained.optim_step()
    metrics = update(pairs)
    ours = gradient(trained.model)
    trained.model.zero_grad()

    def logp(model: Any, sample: TrainingSample) -> torch.Tensor:
        ids = torch.tensor([sample.token_ids])
        logp_TV = torch.log_softmax(model(ids).logits[0, :-1].float(), -1)
        taken_T = logp_TV.gather(1, ids[0, 1:, None])[:, 0]
        return (taken_T * torch.tensor(sample.loss_mask[1:])).sum()

    losses = []
    for chosen, rejected in pairs:
        gained = [logp(trained.model, one) - logp(start.model, one).detach() for one in (chosen, rejected)]
        losses.append(-torch.nn.functional.logsigmoid(0.3 * (gained[0] - gained[1])))
    loss = torch.stack(losses).mean()
    loss.backward()
    assert metrics["loss"] == pytest.approx(loss.item(), abs=1e-5)
    torch.testing.assert_close(ours, gradient(trained.model), atol=1e-5, rtol=1e-3)


def test_only_the_last_answer_is_trained(tmp_path: Path, folder: Path) -> None:
    _, renderer = learner(folder)
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    write_jsonl(tmp_path / "pairs.jsonl", [{"messages": turns, "chosen": "d", "rejected": "e"}])
    (pair,) = read_pairs(tmp_path / "pairs.jsonl", renderer)
    for sample, said in zip(pair, "de", strict=True):
        written = [token for token, on in zip(sample.token_ids, sample.loss_mask, strict=True) if on]
        assert str(renderer.tokenizer.decode(written, skip_special_tokens=True)).strip() == said
        assert sample.loss_mask == sorted(sample.loss_mask)


def test_it_tells_held_out_pairs_apart_and_resumes_to_the_bit(tmp_path: Path, folder: Path) -> None:
    whole = train(parse(RunConfig, table(folder), source="test"))
    found = rows(whole.run.folder)
    assert [("held_out_accuracy" in row) for row in found] == [False] * 9 + [True] + [False] * 9 + [True]
    assert found[-1]["held_out_low"] > 0.5
    assert found[-1]["loss"] < found[0]["loss"]

    def stop(step: int, _: dict[str, float]) -> None:
        if step > 6:
            raise KeyboardInterrupt

    config = parse(RunConfig, table(folder, output=str(tmp_path)), source="test")
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=Progress(on_step=stop))
    again = train(config, resume=True)
    assert rows(again.run.folder) == found
    weights = [(outcome.last / "model.safetensors").read_bytes() for outcome in (whole, again)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": [], "chosen": "a", "rejected": "b"}, "pairs.jsonl:1: a row is"),
        ({"prompt": "x", "chosen": "a", "rejected": "b"}, "vertigym traces pairs makes such rows"),
        ({"messages": [{"role": "user", "content": "x"}], "chosen": "a", "rejected": " a"}, "the same answer"),
    ],
)
def test_what_is_no_pair_is_refused_with_its_line(
    row: dict[str, Any], said: str, tmp_path: Path, folder: Path
) -> None:
    write_jsonl(tmp_path / "pairs.jsonl", [row])
    config = table(folder, dpo={"data": str(tmp_path / "pairs.jsonl")}, output=str(tmp_path))
    with pytest.raises(InputError, match=said):
        plan(parse(RunConfig, config, source="test"))


def test_the_dry_run_reads_the_held_out_pairs_too(folder: Path, tmp_path: Path) -> None:
    config = table(folder, output=str(tmp_path))
    assert plan(parse(RunConfig, config, source="test"))["samples a step"] == 16
    config["dpo"]["held_out"] = "missing.jsonl"
    with pytest.raises(InputError, match=r"missing\.jsonl: no such file"):
        plan(parse(RunConfig, config, source="test"))
