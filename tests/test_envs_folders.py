"""A folder of somebody else is data: it reads nothing outside itself, runs no code and calls no machine."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.test_envs_decision_import import LOAN, SIZES
from vertigym import envs
from vertigym.core.errors import ConfigError, DataError
from vertigym.core.files import write_jsonl
from vertigym.envs.agent.importer import import_agent
from vertigym.envs.decision.importer import import_decision
from vertigym.envs.folders import EnvFolder
from vertigym.traces.config import ImportConfig
from vertigym.traces.importer import import_traces

CODE = {"id": "t", "prompt": "?", "info": {"tests": {"kind": "calls", "entry": "f", "cases": []}}}
TRACES = [
    {"id": f"c{i}", "messages": [{"role": "user", "content": f"{i}?"}], "completion": "x", "label": "ab"[i % 2]}
    for i in range(8)
]
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}}}
# A folder of each kind that names a file: the line that names it, and what lies there.
NAMED: dict[str, tuple[str, list[Any]]] = {
    "rows": ('reward = {{name = "exact"}}\nfiles = {{train = "{}"}}', [{"question": "1?", "answer": "1"}]),
    "code": ('files = ["{}"]', [CODE]),
    "extract": ('schema = "{}"', [SCHEMA]),
    "rewrite": ('documents = "{}"', [{"id": "d", "text": "words of a document"}]),
    "classify": ('traces = "{}"', TRACES),
}


def made(folder: Path, kind: str, name: str) -> Path:
    """A folder of this kind that names `name`; with traces of its own, where it reads some."""
    folder.mkdir(exist_ok=True)
    line, _ = NAMED[kind]
    (folder / "env.toml").write_text(f'id = "acme/Mine-v0"\nkind = "{kind}"\n{line.format(name)}\n')
    if kind in ("extract", "rewrite"):
        write_jsonl(
            folder / "train.jsonl",
            [{**TRACES[0], "label": '{"a": "b"}', "documents": [{"id": "d", "text": "words"}]}],
        )
    return folder


def there(path: Path, kind: str) -> None:
    """What a folder of this kind names, outside of it."""
    rows = NAMED[kind][1]
    write_jsonl(path / "train.jsonl" if kind == "classify" else path, rows)


@pytest.mark.parametrize("kind", NAMED)
@pytest.mark.parametrize("way", ["absolute", "upwards", "link", "link of a folder"])
def test_a_folder_names_only_what_lies_in_it(kind: str, way: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    there(outside / "secret", kind)
    (tmp_path / "env").mkdir()
    name = {"absolute": str(outside / "secret"), "upwards": "../outside/secret"}.get(way, "inner")
    if way == "link":
        (tmp_path / "env" / "inner").symlink_to(outside / "secret")
    elif way == "link of a folder":
        (tmp_path / "env" / "there").symlink_to(outside)
        name = "there/secret"
    folder = made(tmp_path / "env", kind, name)
    with pytest.raises(ConfigError, match=r"leads out of the folder: .*trust"):
        envs.make(str(folder))
    assert envs.make(f"{folder}?trust=true").tasks.ids("train")


@pytest.mark.parametrize("mode", ["decision", "agent"])
@pytest.mark.parametrize("name", ["tasks/train.jsonl", "decision.json"])
def test_the_files_of_a_decision_model_are_no_links_to_elsewhere(mode: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "loan.json").write_text(LOAN)
    make = import_agent if mode == "agent" else import_decision
    make(tmp_path / "loan.json", "acme/Loan-v0", tmp_path / "env", sizes=SIZES, rules="shown")
    file = tmp_path / "env" / name
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="leads out of the folder"):
        envs.make(str(tmp_path / "env"))


def test_links_inside_a_folder_are_followed_and_those_in_a_circle_refused(tmp_path: Path) -> None:
    folder = made(tmp_path / "env", "rows", "inner")
    write_jsonl(folder / "data.jsonl", NAMED["rows"][1])
    (folder / "inner").symlink_to("data.jsonl")
    (tmp_path / "link").symlink_to(folder)
    assert envs.make(str(tmp_path / "link")).tasks.ids("train")
    (folder / "inner").unlink()
    (folder / "inner").symlink_to("inner")
    with pytest.raises(DataError, match="inner: cannot be read"):
        envs.make(str(folder))


def test_traces_may_lie_elsewhere_where_vertigym_imported_them(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "log.jsonl", TRACES)
    import_traces([tmp_path / "log.jsonl"], tmp_path / "traces", ImportConfig())
    folder = made(tmp_path / "env", "classify", "../traces")
    assert envs.make(str(folder)).tasks.ids("train")
    (tmp_path / "traces" / "manifest.json").unlink()
    with pytest.raises(ConfigError, match="leads out"):
        envs.make(str(folder))


@pytest.mark.parametrize(
    "reward", ["os:system", "subprocess:run", "vertigym.rewards.text:exact", "no:such", ":"]
)
def test_a_reward_is_a_ready_one_or_needs_trust(reward: str, tmp_path: Path) -> None:
    folder = made(tmp_path / "env", "rows", "data.jsonl")
    write_jsonl(folder / "data.jsonl", [{"question": "1?", "answer": "1", "command": f"touch {tmp_path}/ran"}])
    toml = (folder / "env.toml").read_text().replace('"exact"', json.dumps(reward))
    (folder / "env.toml").write_text(toml)
    with pytest.raises(ConfigError, match=r"is code: .*trust=true"):
        envs.make(str(folder))
    if reward == "os:system":
        env = envs.make(f"{folder}?trust=true")
        env.reset(seed=0)
        env.step("1")
    assert (tmp_path / "ran").exists() == (reward == "os:system")


def test_a_folder_sends_no_key_to_an_address_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "loan.json").write_text(LOAN)
    import_agent(tmp_path / "loan.json", "acme/Loan-v0", tmp_path / "env", sizes=SIZES)
    toml = tmp_path / "env" / "env.toml"
    asked = 'endpoint = "http://127.0.0.1:9/v1"\nmodel = "m"\nkey_variable = "AWS_SECRET_ACCESS_KEY"'
    toml.write_text(
        toml.read_text().replace('endpoint = ""\nmodel = ""\nkey_variable = "OPENAI_API_KEY"', asked)
    )
    assert "127.0.0.1" in toml.read_text()
    with pytest.raises(ConfigError, match=r"sends requests to http://127\.0\.0\.1:9/v1: .*trust"):
        envs.make(str(tmp_path / "env"))
    assert envs.make(f"{tmp_path / 'env'}?trust=true").max_turns
    assert not EnvFolder(tmp_path / "env").trusted
