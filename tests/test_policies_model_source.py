"""Where a model comes from: folders, runs, the hub's cache, the hub, in this order; or one line and exit 2."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from vertigym.core.config import parse
from vertigym.core.errors import ConfigError, DataError
from vertigym.policies.load import source_of
from vertigym.policies.model_source import ModelSource, find_file, find_model
from vertigym.trainer import setup
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import train
from vertigym.trainer.run import Run

from .conftest import CommandLine
from .hub import COMMIT, hub, put
from .model_families import build
from .returns import suite

NAME = "org/small-model"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("llama", tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def run_folder(folder: Path, model: Path, *steps: int, promoted: int | None = None) -> Path:
    """A run with checkpoints."""
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text('name = "x"\n')
    for step in steps:
        shutil.copytree(model, folder / "checkpoints" / f"step-{step:06d}")
    if promoted is not None:
        Run(folder).promote(promoted, "better")
    return folder


def test_a_cached_model_is_taken_without_a_request(model: Path, cache: Path) -> None:
    snapshot = put(cache, NAME, model)
    assert find_model(NAME) == ModelSource(snapshot, f"{NAME}@{COMMIT}")
    assert find_model(f"{NAME}@{COMMIT}") == find_model(NAME), "its name leads to it again"
    other = put(cache, NAME, model, ref="v2", commit="f" * 40)
    assert find_model(f"{NAME}@v2").folder == other
    assert find_model(NAME).folder == snapshot


def test_a_folder_wins_over_a_model_of_the_hub(model: Path, cache: Path) -> None:
    put(cache, NAME, model)
    shutil.copytree(model, NAME)
    assert find_model(NAME) == ModelSource(Path(NAME), NAME)
    with pytest.raises(DataError, match="is a folder, and only models of the hub have revisions"):
        find_model(f"{NAME}@main")


@pytest.mark.parametrize(
    "broken", ["nothing", "model.safetensors", "config.json", "tokens", "a shard", "the revision"]
)
def test_what_the_cache_lacks_is_named_where_there_is_no_network(broken: str, model: Path, cache: Path) -> None:
    lacking, name = broken, NAME
    if broken == "nothing":
        lacking = "main"
    elif broken == "the revision":
        lacking, name = "v9", f"{NAME}@v9"
        put(cache, NAME, model)
    elif broken == "tokens":
        for file in put(cache, NAME, model).glob("*token*"):
            file.unlink()
        lacking = "a tokenizer"
    elif broken == "a shard":
        snapshot = put(cache, NAME, model)
        (snapshot / "model.safetensors").rename(snapshot / "model-00001-of-00002.safetensors")
        lacking = "model-00002-of-00002.safetensors"
        parts = {"a": "model-00001-of-00002.safetensors", "b": lacking}
        (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    else:
        (put(cache, NAME, model) / broken).unlink()
        lacking = "weights" if broken == "model.safetensors" else broken
    with pytest.raises(
        DataError, match=f"no such folder; .*lacks {lacking}, and HF_HUB_OFFLINE is set: unset it"
    ):
        find_model(name)


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "./no/where", "/no/where", "org/a@b@c", "org/", "../x"])
def test_what_is_neither_is_refused_with_both_readings(name: str, cache: Path) -> None:
    with pytest.raises(
        DataError, match=r"no such folder, and no name of a model .*org/name or org/name@REVISION"
    ):
        find_model(name)


def test_a_run_is_what_was_promoted_in_it(model: Path, cache: Path) -> None:
    run = run_folder(Path("runs/loan"), model, 0, 10, 20, promoted=10)
    checkpoint = run / "checkpoints" / "step-000010"
    assert find_model(run) == ModelSource(checkpoint, str(checkpoint))
    source = source_of("vllm:runs/loan")
    assert source
    assert source.name == f"vllm:{checkpoint}"
    assert source_of("openai:m@http://x/v1") is source_of("scripted:expert") is None
    shutil.rmtree(checkpoint)
    with pytest.raises(DataError, match="which was promoted, is gone"):
        find_model(run)


def test_a_run_that_promoted_nothing_names_its_checkpoints(model: Path, command: CommandLine) -> None:
    run = run_folder(Path("runs/warm"), model, 0, 10)
    Path("suite.toml").write_text(suite(2))
    for words in (("eval", "suite.toml", "--no-gate", "-m"), ("serve",), ("model", "check")):
        code, _, said = command(*words, run)
        assert (code, said.count("\n")) == (2, 1), said
        assert (
            "nothing was promoted in it; name one of its checkpoints: runs/warm/checkpoints/step-000000, "
            in said
        )
    with pytest.raises(DataError, match="no checkpoint yet"):
        find_model(run_folder(Path("runs/new"), model))


def test_a_gguf_file_is_to_be_imported(cache: Path) -> None:
    Path("only").mkdir()
    Path("only/small.gguf").write_bytes(b"GGUF")
    for name in ("only", "only/small.gguf"):
        with pytest.raises(DataError, match=r"vertigym model import only/small\.gguf -o DIR"):
            find_model(name)
    with pytest.raises(
        DataError, match=r"no such file, and no name of one on the Hugging Face hub \(org/name/FILE\)"
    ):
        find_file("no.gguf")
    snapshot = put(cache, "org/files", Path("only"))
    assert find_file("org/files/small.gguf") == snapshot / "small.gguf"
    with pytest.raises(DataError, match=r"lacks other\.gguf"):
        find_file("org/files/other.gguf")


def config(tmp_path: Path, **changes: Any) -> RunConfig:
    table = {
        "name": "tuned", "env": "vertigym/Arithmetic-v0", "algorithm": "grpo", "steps": 0,
        "output": str(tmp_path / "runs"), "rollout": {"tasks": 2, "group_size": 2, "max_tokens": 4},
    }  # fmt: skip
    return parse(RunConfig, table | changes, source="test")


def test_a_run_goes_on_with_the_model_it_began_with(
    model: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The base of adapters is loaded again by every resume, and a branch of the hub moves."""
    snapshot = put(cache, NAME, model)
    settings = config(tmp_path, model=NAME, revision="main", lora={"rank": 2})
    assert train(settings).run.named_model("model") == f"{NAME}@{COMMIT}"
    put(cache, NAME, build("qwen3", tmp_path / "newer"), commit="e" * 40)
    assert find_model(NAME).name == f"{NAME}@{'e' * 40}"
    loaded, real = [], setup.load

    def load(folder: Path) -> tuple[Any, Any]:
        loaded.append(folder)
        return real(folder)

    monkeypatch.setattr(setup, "load", load)
    train(settings, resume=True)
    assert loaded == [snapshot]


def test_a_revision_is_of_a_model_of_the_hub(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="revision is of a model on the hub, org/name, and model is 'tiny'"):
        config(tmp_path, model="tiny", revision="v2")


def test_every_command_takes_a_model_of_the_hub(model: Path, cache: Path, command: CommandLine) -> None:
    put(cache, NAME, model)
    Path("suite.toml").write_text(suite(1, "[sampling]\nmax_tokens = 2\n"))
    code, out, said = command("eval", "suite.toml", "-m", NAME, "--no-gate", "--json", "-")
    assert code == 0, said
    assert json.loads(out)["report"]["model"] == f"{NAME}@{COMMIT}"
    Path("run.toml").write_text(
        f'name = "x"\nenv = "vertigym/Arithmetic-v0"\nmodel = "{NAME}"\nalgorithm = "grpo"\nsteps = 1\n'
        "rollout = { tasks = 2, group_size = 2, max_tokens = 2 }\n"
    )
    code, out, said = command("train", "run.toml", "--dry-run", "--json", f"revision={COMMIT}")
    assert code == 0, said
    assert json.loads(out)["model"] == f"{NAME}@{COMMIT}"
    code, _, said = command("train", "run.toml", "model=org/other")
    assert (code, said.count("\n")) == (2, 1), said
    assert not Path("runs/x").exists(), "and leaves nothing behind"


ASK = "import sys; from vertigym.policies.model_source import find_model; print(find_model(sys.argv[1]).name)"


def asked(tmp_path: Path, endpoint: str, name: str, code: str = ASK) -> subprocess.CompletedProcess[str]:
    """A fresh process that may ask the hub: huggingface_hub reads its settings once."""
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    kept = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    return subprocess.run(
        [sys.executable, "-c", code, name],
        env=kept | settings,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_is_not_cached_is_downloaded_once(model: Path, tmp_path: Path) -> None:
    (extra := tmp_path / "with-more").mkdir()
    for file in model.iterdir():
        shutil.copy(file, extra)
    (extra / "consolidated.safetensors").write_bytes(b"the same weights again")
    (extra / "rust_model.ot").write_bytes(b"and again")
    with hub(NAME, extra) as (endpoint, requests):
        first = asked(tmp_path, endpoint, NAME)
        assert first.stdout.strip() == f"{NAME}@{COMMIT}", first.stderr
        fetched = {path.rpartition("/")[2] for path in requests if "/resolve/" in path}
        assert "model.safetensors" in fetched
        assert not fetched & {"consolidated.safetensors", "rust_model.ot"}
        requests.clear()
        assert asked(tmp_path, endpoint, NAME).stdout == first.stdout
        assert not requests
        wrong = asked(tmp_path, endpoint, "org/other")
    assert "has none of this name" in wrong.stderr.splitlines()[-1]


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    main = "import sys; from vertigym import cli; sys.argv[1:] = ['model', 'check', sys.argv[1]]; cli.main()"
    done = asked(tmp_path, "http://127.0.0.1:9", NAME, main)
    assert done.returncode == 2, done.stderr
    assert "did not give it" in done.stderr
    assert f"with `hf download {NAME}` where there is a network" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
