"""Before a run learns anything: engine, trainer and model agree, and what is exported is what is trained."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM
from typer.testing import CliRunner

from vertigym.cli import app
from vertigym.core.config import parse
from vertigym.core.errors import InputError, RunError
from vertigym.core.files import read_jsonl, write_jsonl
from vertigym.core.types import Prompt, Sampling
from vertigym.policies import agreement, transformers_engine
from vertigym.policies.agreement import greedy_departure
from vertigym.policies.chat import ChatRenderer, TrainingRow
from vertigym.policies.decoder import Decoder
from vertigym.policies.lora import merged_state
from vertigym.policies.model_folder import load_model
from vertigym.policies.sampling import sample_tokens
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.trainer import checkpoints
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import Progress, RunOutcome, train
from vertigym.trainer.model_check import check_model

from .model_families import build
from .returns import ENV

pytestmark = pytest.mark.filterwarnings("ignore")


def sft(tmp_path: Path) -> dict[str, Any]:
    chat = [{"role": "user", "content": "four days"}, {"role": "assistant", "content": "four"}]
    write_jsonl(tmp_path / "rows.jsonl", [{"messages": chat}] * 4)
    return {"algorithm": "sft", "sft": {"data": str(tmp_path / "rows.jsonl"), "batch": 4}}


@pytest.fixture(params=["grpo", "sft"])
def changes(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Of the config, for either algorithm."""
    if request.param == "grpo":
        return {}
    return {**sft(tmp_path), "rollout": {}, "policy": {}}


def steps(tmp_path: Path) -> int:
    file = tmp_path / "run" / "metrics.jsonl"
    return len(read_jsonl(file)) if file.exists() else 0


def run(tmp_path: Path, family: str = "llama", notes: list[str] | None = None, **changes: Any) -> RunOutcome:
    """A run of two steps. Sections that are empty are left out: an algorithm may have no use for them."""
    torch.set_num_threads(1)
    table = {
        "name": "run", "env": ENV, "algorithm": "grpo", "steps": 2, "output": str(tmp_path),
        "model": str(build(family, tmp_path / "model", max_position_embeddings=1024)),
        "rollout": {"tasks": 2, "group_size": 3, "max_tokens": 8}, "optimizer": {"lr": 1e-2},
        "policy": {"advantage": "reinforce++", "entropy": 0.5}, "checkpoint": {"every": 1},
    }  # fmt: skip
    given = {key: value for key, value in (table | changes).items() if value != {}}
    on_note = ([] if notes is None else notes).append
    return train(parse(RunConfig, given, source="test"), progress=Progress(on_note=on_note))


def decode_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        transformers_engine, "sample_tokens", lambda logits_BV, *more: sample_tokens(1.1 * logits_BV, *more)
    )


def test_an_engine_that_decodes_another_model_is_refused_before_the_first_step(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode_another_model(monkeypatch)
    with pytest.raises(RunError, match=r"the engine's log-probs differ from the trainer's by .*model check"):
        run(tmp_path, **changes)
    assert steps(tmp_path) == 0


def test_a_generate_that_raises_is_named_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("this cache is not written yet")

    monkeypatch.setattr(LlamaForCausalLM, "generate", broken)
    notes: list[str] = []
    run(tmp_path, notes=notes)
    said = "its generate raises ValueError: this cache is not written yet"
    assert f"greedy decoding is not generate's: {said}" in notes
    greedy = next(check for check in check_model(tmp_path / "model") if check.name == "greedy")
    assert (greedy.verdict, greedy.detail) == ("mended", said)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (lambda ours, tied, bad: ours, ""),
        (lambda ours, tied, bad: [*ours[:3], tied, *ours[4:]], ""),
        (lambda ours, tied, bad: [*ours[:3], bad], "its generate takes a token whose log-prob is .* below"),
        (lambda ours, tied, bad: ours[:-2], "its generate ends 2 tokens earlier"),
    ],
)
def test_greedy_decoding_is_that_of_generate_but_at_a_tie(
    written: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load_model(build("llama", tmp_path / "model", tie_word_embeddings=False))
    model.generation_config.repetition_penalty = 1.5  # not what greedy means
    engine = TransformersEngine(model, tokenizer)
    (done,) = engine.generate([Prompt((), token_ids=range(40, 60))], Sampling(temperature=0, max_tokens=8))
    ours, head = list(done.token_ids), model.get_output_embeddings().weight
    assert greedy_departure(model, done, stop=[2], banned=engine.banned) == "", "no double here"
    bad = (ours[3] + 7) % 250
    tied = next(i for i in range(60, 250) if i not in ours and i != bad)
    head.data[tied] = head.data[ours[3]]
    monkeypatch.setattr(agreement, "_generated", lambda *_: written(ours, tied, bad))
    found = greedy_departure(model, done, stop=[2])
    assert re.fullmatch(f"{said}.*" if said else "", found), found
    wrong = replace(done, token_ids=[*ours[:3], bad, *ours[4:]])
    with pytest.raises(InputError, match="greedy decoding takes a token whose log-prob is"):
        greedy_departure(model, wrong, stop=[2])


def test_an_engine_that_does_not_follow_is_refused_after_the_first_step(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Decoder.refresh
    calls: list[int] = []

    def only_once(self: Decoder) -> None:
        if not calls:
            real(self)
            for name in ("layers", "embed_VH", "norm_H", "head_VH"):  # the model's own tensors change in place
                value = getattr(self, name)
                setattr(self, name, value.clone() if isinstance(value, torch.Tensor) else value)
        calls.append(1)

    monkeypatch.setattr(Decoder, "refresh", only_once)
    with pytest.raises(RunError, match="the engine's log-probs differ from the trainer's"):
        run(tmp_path, **changes)
    assert steps(tmp_path) <= 1


def test_what_is_given_up_is_said_once(tmp_path: Path) -> None:
    notes: list[str] = []
    outcome = run(tmp_path, "falcon, alibi", notes, policy={"advantage": "reinforce++", "kl": 0.01})
    assert [note for note in notes if "rows of their own" in note] == notes[:1]
    assert steps(tmp_path) == 2
    assert outcome.last.is_dir()


@pytest.mark.parametrize("family", ["qwen3_moe", "granite"])
def test_a_run_with_adapters_exports_what_it_trained(family: str, tmp_path: Path) -> None:
    run(tmp_path, family, lora={"rank": 4})
    assert steps(tmp_path) == 2


def test_an_export_that_loses_the_adapters_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def base_only(model: Any, keep: Any) -> dict[str, Any]:
        for module in model.modules():
            if hasattr(module, "get_delta_weight"):
                module.get_delta_weight = lambda name, module=module: torch.zeros(())
        return merged_state(model, keep)

    monkeypatch.setattr(checkpoints, "merged_state", base_only)
    with pytest.raises(RunError, match=r"step-000001: loaded again, .* what would ship is not what is trained"):
        run(tmp_path, lora={"rank": 4})


def test_model_check_says_what_is_right_and_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build("gemma2", tmp_path / "model")
    done = CliRunner().invoke(app, ["model", "check", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["verdict"] == "right"
    assert {check["name"] for check in found["checks"]} >= {
        "engine",
        "trainer",
        "exported",
        "exported, adapters",
    }
    build("llama", tmp_path / "other")
    decode_another_model(monkeypatch)
    done = CliRunner().invoke(app, ["model", "check", str(tmp_path / "other")])
    assert done.exit_code == 1
    assert "refused" in done.stdout


def test_an_answer_that_would_be_trained_without_its_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ChatRenderer.training_rows

    def endless(self: ChatRenderer, *arguments: Any) -> list[TrainingRow]:
        rows = real(self, *arguments)
        return [TrainingRow(row.token_ids[:-1], row.loss_mask[:-1]) for row in rows]

    monkeypatch.setattr(ChatRenderer, "training_rows", endless)
    done = CliRunner().invoke(app, ["model", "check", str(build("llama", tmp_path / "model")), "--json"])
    assert done.exit_code == 1
    (check, *_) = json.loads(done.stdout)["checks"]
    assert "without an end of turn" in check["detail"]


def test_memory_that_runs_out_is_not_taken_for_what_a_model_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("no room")

    folder = build("llama", tmp_path / "model")
    monkeypatch.setattr("vertigym.learner.learner.Learner.pass_through", no_room)
    done = CliRunner().invoke(app, ["model", "check", str(folder)])
    assert isinstance(done.exception, torch.OutOfMemoryError)
