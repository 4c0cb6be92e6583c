"""Weights of `vertigym tinker` as models: the same tokens and log-probs as the server samples, to the bit."""

import shutil
from pathlib import Path

import pytest
import torch

pytest.importorskip("peft")
pytest.importorskip("google.protobuf")

from vertigym.core.errors import DataError
from vertigym.core.types import Prompt, Sampling
from vertigym.policies import tiny
from vertigym.policies.load import load_policy, source_of
from vertigym.policies.model_source import ModelSource, find_model
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.remote.adapted_base import AdaptedBase
from vertigym.remote.call_models import AdapterShape
from vertigym.remote.checkpoint_store import CheckpointStore, write_saved
from vertigym.remote.samplers import SamplingEngines

from . import returns
from .conftest import CommandLine

PATH = "tinker://0a1b:train:0/sampler_weights/one"
SHAPE = AdapterShape(rank=4, seed=1)
PROMPTS = ["the cat", "on the mat"]


@pytest.fixture
def base(tmp_path: Path) -> AdaptedBase:
    tiny.build(["the cat sat on the mat"] * 2, tmp_path / "base", size=tiny.TinySize(hidden=16, layers=2))
    return AdaptedBase("tiny", str(tmp_path / "base"))


def save(base: AdaptedBase, store: Path, *, scale: float = 0.3, path: str = PATH) -> Path:
    """Adapters that change what the model writes, as the server keeps them."""
    model = base.with_adapters(SHAPE, seed=0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_B" in name:
                weight.copy_(torch.linspace(-scale, scale, weight.numel()).view_as(weight))
    folder = CheckpointStore(store / "checkpoints").folder(path)
    write_saved(
        folder,
        lambda beside: base.write_adapter(model, SHAPE, beside),
        base_model="tiny",
        shape=SHAPE,
        path=path,
    )
    return folder


def written(engine: TransformersEngine) -> list[tuple[list[int], list[float]]]:
    asked = [Prompt([{"role": "user", "content": one}], seed=3) for one in PROMPTS]
    found = engine.generate(asked, Sampling(max_tokens=12))
    return [(list(one.token_ids), list(one.logprobs)) for one in found]


def test_a_policy_of_the_path_writes_what_the_server_samples(base: AdaptedBase, tmp_path: Path) -> None:
    """The base's embedding and head are one weight, and the head has an adapter."""
    assert base.model.get_output_embeddings().weight is base.model.get_input_embeddings().weight
    save(base, tmp_path)
    saved = CheckpointStore(tmp_path / "checkpoints").find(PATH)
    server = written(SamplingEngines(base).engine(saved))
    name = f"{PATH}@{tmp_path}"
    policy = load_policy(name)
    assert isinstance(policy, TransformersEngine)
    assert [tokens for tokens, _ in written(policy)] == [tokens for tokens, _ in server]
    assert written(TransformersEngine(policy.model, policy.tokenizer)) == server, "log-probs, too"
    assert server != written(TransformersEngine.load(base.folder)), "the adapters count"
    source = source_of(name)
    assert source
    assert source.name == name, "the name leads to it again"
    assert source_of(f"vllm:{name}") == ModelSource(source.folder, f"vllm:{name}")


def test_weights_that_are_saved_again_are_merged_again(base: AdaptedBase, tmp_path: Path) -> None:
    name = f"{PATH}@{tmp_path}"
    save(base, tmp_path)
    first = written(TransformersEngine.load(find_model(name).folder))
    save(base, tmp_path, scale=0.6)
    assert written(TransformersEngine.load(find_model(name).folder)) != first


def test_what_is_not_there_says_where_it_was_looked_for(base: AdaptedBase, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing is saved there in runs/tinker; .* say tinker://.*@DIR"):
        find_model(PATH)
    with pytest.raises(DataError, match="no path of saved weights"):
        find_model("tinker://0a1b/sampler_weights/../..")
    save(base, tmp_path)
    shutil.rmtree(base.folder)
    with pytest.raises(DataError, match=r"base: no config\.json"):
        find_model(f"{PATH}@{tmp_path}")


def test_a_gate_judges_it_and_a_folder_is_made_of_it(
    base: AdaptedBase, tmp_path: Path, command: CommandLine
) -> None:
    save(base, tmp_path)
    (tmp_path / "suite.toml").write_text(returns.suite(4, returns.SHORT, returns.IMPROVES))
    name = f"{PATH}@{tmp_path}"
    judged = command("eval", str(tmp_path / "suite.toml"), "-m", name, "-b", str(base.folder), "--json", "-")
    assert judged.code == 1, judged.said  # both write nonsense: no improvement
    assert "improves" in judged.said
    made = command("model", "import", name, "-o", str(tmp_path / "made"), "--json")
    assert made.code == 0, made.said
    assert written(TransformersEngine.load(tmp_path / "made")) == written(
        TransformersEngine.load(find_model(name).folder)
    )
    refused = command("model", "import", name, "-o", str(tmp_path / "made2"), "--tokenizer", str(base.folder))
    assert refused.code == 2
    assert "tokenizer of their base" in refused.said
