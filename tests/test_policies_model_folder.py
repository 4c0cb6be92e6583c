"""Model folders: what is missing, unused, misshapen or no number is refused by name."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, Gemma3Config, GPT2Config, MambaConfig, Qwen3Config

from vertigym.core.errors import DataError
from vertigym.core.manifest import seal
from vertigym.policies import tiny
from vertigym.policies.model_folder import context_of, load_model, load_tokenizer, unreadable_ids

State = dict[str, Tensor]
UP = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny.build(["approve or reject"] * 3, path, size=tiny.TinySize(hidden=32, layers=2, heads=2, ffn=48))
    return path


def changed(folder: Path, copy: Path, change: Callable[[State], object]) -> Path:
    shutil.copytree(folder, copy)
    state = load_file(copy / "model.safetensors")
    change(state)
    save_file(state, copy / "model.safetensors", {"format": "pt"})
    return copy


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(UP), f"that the model needs are not in its files: {UP}$"),
        (lambda s: [s.pop(n) for n in list(s) if "mlp" in n], "not in its files: .* and 3 more$"),
        (lambda s: s.pop("model.embed_tokens.weight"), "not in its files: .*embed_tokens"),
        (
            lambda s: s.update({"model.layers.7.x": torch.zeros(2)}),
            r"not used by the model: model\.layers\.7\.x$",
        ),
        (lambda s: s.update({UP: torch.zeros(7)}), f"another shape than the model: {UP}$"),
        (lambda s: s[UP].view(-1)[3].fill_(float("nan")), f"NaN or infinite: {UP}$"),
        (lambda s: s["model.norm.weight"].fill_(float("inf")), r"NaN or infinite: model\.norm\.weight$"),
    ],
)
def test_faulty_weights_are_refused_by_name(
    folder: Path,
    tmp_path: Path,
    change: Callable[[State], object],
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(DataError, match=message):
        load_model(changed(folder, tmp_path / "m", change))
    assert capfd.readouterr().err == "", "one line, and no table beside it"


def test_a_sealed_model_that_was_changed_is_refused_by_file(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "m")
    seal(tmp_path / "m", step=3)
    (tmp_path / "m" / "generation_config.json").unlink()  # what is gone is for the loader to miss
    load_model(tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    save_file({name: weight + 0.1 for name, weight in weights.items()}, tmp_path / "m" / "model.safetensors")
    with pytest.raises(DataError, match=r"model\.safetensors is damaged or was edited"):
        load_model(tmp_path / "m")
    with pytest.raises(DataError, match=r"model\.safetensors is damaged or was edited"):
        load_tokenizer(tmp_path / "m")
    (tmp_path / "m" / "manifest.json").write_text('{"files": ["of somebody else"]}')
    load_model(tmp_path / "m")


def test_a_copy_of_a_tied_head_in_the_file_is_no_fault(folder: Path, tmp_path: Path) -> None:
    def add_head(state: State) -> None:
        state["lm_head.weight"] = state["model.embed_tokens.weight"].clone()

    load_model(changed(folder, tmp_path / "m", add_head))


@pytest.mark.parametrize(
    ("name", "text"), [("tokenizer.json", "{}"), ("config.json", "[]"), ("config.json", "{")]
)
def test_a_broken_file_is_one_line(folder: Path, tmp_path: Path, name: str, text: str) -> None:
    shutil.copytree(folder, tmp_path / "m")
    (tmp_path / "m" / name).write_text(text)
    with pytest.raises(DataError, match="cannot be loaded") as raised:
        load_model(tmp_path / "m")
    assert "\n" not in str(raised.value)


def test_the_context_is_that_of_the_part_that_reads_text() -> None:
    assert context_of(Qwen3Config(max_position_embeddings=77)) == 77
    assert context_of(GPT2Config(n_positions=66)) == 66
    conditional = Gemma3Config(text_config={"max_position_embeddings": 55})
    assert context_of(conditional) == 55
    assert context_of(MambaConfig()) > 1 << 20
    assert context_of(AutoConfig.for_model("mpt", max_seq_len=44)) == 44


def test_padded_ids_are_those_the_tokenizer_cannot_read(folder: Path) -> None:
    _, tokenizer = load_model(folder)
    size = len(tokenizer)
    assert unreadable_ids(tokenizer, size) == []
    assert unreadable_ids(tokenizer, size + 3) == [size, size + 1, size + 2]
