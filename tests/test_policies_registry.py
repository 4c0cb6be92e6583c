"""The registry of engines: one from elsewhere trains, evaluates and serves without a change to the package."""

import json
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from pydantic import Field

from vertigym.core.config import parse
from vertigym.core.errors import ConfigError, DataError, UnknownNameError
from vertigym.core.types import Prompt, Sampling
from vertigym.envs.decision.builtin import RETURNS
from vertigym.policies import registry, tiny
from vertigym.policies.engine import GenerationRequest, GenerationResult
from vertigym.policies.load import load_policy
from vertigym.policies.registry import EngineKind, EngineSetup, ProbedConfig, engine_names, find_engine
from vertigym.policies.scripted import Scripted
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.serving.service import with_engine
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import train

PATH = "toy_engine:ENGINE"


class ToyConfig(ProbedConfig):
    """Settings of the toy."""

    shift: float = Field(0.0, description="added to every log-prob")


class Toy(TransformersEngine):
    """The transformers engine, with a fault at will."""

    shift = 0.0
    runs = 0

    def run(self, requests: Sequence[GenerationRequest]) -> list[GenerationResult]:
        Toy.runs += 1
        return [
            GenerationResult(r.token_ids, [logp + self.shift for logp in r.logprobs])
            for r in super().run(requests)
        ]


def open_toy(setup: EngineSetup) -> Toy:
    engine = Toy(*_model(setup.folder), dtype=setup.dtype, weights=setup.weights)
    engine.has_copy, engine.shift = True, setup.config.shift
    return engine


def _model(folder: Path) -> tuple[Any, Any]:
    from vertigym.policies.model_folder import load_model

    model, tokenizer = load_model(folder)
    return model.float(), tokenizer


ENGINE = EngineKind("toy", load=lambda folder, _: Toy(*_model(Path(folder))), open=open_toy, config=ToyConfig)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module `toy_engine`, and an installed package that registers it."""
    module = ModuleType("toy_engine")
    module.ENGINE, module.OTHER = ENGINE, 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "toy_engine", module)
    points = EntryPoints([EntryPoint("toy", PATH, registry.GROUP)])
    ours = {registry.GROUP: points}
    monkeypatch.setattr("vertigym.core.plugins.entry_points", lambda group: ours.get(group, ()))
    Toy.runs = 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("models") / "tiny"
    size = tiny.TinySize(hidden=32, layers=1, heads=2, key_heads=2, ffn=48, init_std=0.3)
    tiny.build(["approve or reject the return of 40 items"] * 3, path, size=size)
    return path


def config(folder: Path, output: Path, engine: str, **toy: Any) -> RunConfig:
    table: dict[str, Any] = {
        "name": "run", "env": RETURNS, "model": str(folder), "output": str(output), "steps": 2, "threads": 1,
        "policy": {"advantage": "reinforce++", "entropy": 0.5}, "optimizer": {"lr": 0.01}, "algorithm": "grpo",
        "rollout": {"tasks": 4, "group_size": 2, "max_tokens": 6, "engine": engine},
    }  # fmt: skip
    table["rollout"] |= {"toy": toy} if toy else {}
    return parse(RunConfig, table, source="run.toml")


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("engine", ["toy", PATH])
def test_a_registered_engine_trains_and_is_probed(folder: Path, tmp_path: Path, engine: str) -> None:
    found = config(folder, tmp_path, engine, probe_every=1)
    assert found.policy.correction == "token", "its log-probs are not the trainer's"
    outcome = train(found)
    rows = [json.loads(line) for line in (outcome.run.folder / "metrics.jsonl").read_text().splitlines()]
    assert Toy.runs >= 2
    assert all(row["probe_mean"] < 1e-5 for row in rows)
    assert "[rollout.toy]" in (outcome.run.folder / "config.toml").read_text()


@pytest.mark.usefixtures("toy")
def test_its_settings_reach_it_and_a_wrong_log_prob_ends_the_run(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"differ from the trainer's by 0\.7 .*probe_stop"):
        train(config(folder, tmp_path, "toy", shift=0.7))


@pytest.mark.usefixtures("toy")
def test_its_section_is_read_by_its_own_config(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'rollout\.toy\.shfit'"):
        config(folder, tmp_path, "toy", shfit=1)
    with pytest.raises(ConfigError, match=r"rollout\.toy\.shift: .*number"):
        config(folder, tmp_path, "toy", shift="far")
    with pytest.raises(ConfigError, match=r"unknown key 'rollout\.toy'"):
        config(folder, tmp_path, "transformers", shift=1)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("name", ["toy", PATH])
def test_evals_and_servers_find_it_by_the_same_name(folder: Path, name: str) -> None:
    policy = load_policy(f"{name}:{folder}")
    assert isinstance(policy, Toy)
    assert policy.generate([Prompt((), token_ids=[5, 6])], Sampling(max_tokens=2))[0].token_ids
    assert isinstance(load_policy(with_engine(str(folder), name)), Toy)
    assert "toy" in engine_names()


@pytest.mark.usefixtures("toy")
def test_what_is_no_engine_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown engine 'vlm'; did you mean 'vllm'"):
        find_engine("vlm")
    for path, message in (
        ("no_such_module:ENGINE", "does not load"),
        ("toy_engine:NOTHING", "does not load"),
        ("toy_engine:OTHER", "is no EngineKind but int"),
    ):
        with pytest.raises(ConfigError, match=message):
            find_engine(path)
    with pytest.raises(ConfigError, match=r"rollout\.engine: .*evals only \(got 'openai'\)"):
        config(folder, tmp_path, "openai")
    with pytest.raises(ConfigError, match=r"rollout\.engine: unknown engine 'vlm'"):
        config(folder, tmp_path, "vlm")
    with pytest.raises(DataError, match="no such folder"):
        load_policy("no/such:model")


def test_the_engines_here_are_known_by_name() -> None:
    assert engine_names() == ["openai", "scripted", "transformers", "vllm"]
    assert isinstance(load_policy("scripted:echo"), Scripted)
    trainable = {name for name in engine_names() if find_engine(name).open}
    assert trainable == {"transformers", "vllm"}
    probed = {name for name in engine_names() if issubclass(find_engine(name).config, ProbedConfig)}
    assert probed == {"vllm"}
