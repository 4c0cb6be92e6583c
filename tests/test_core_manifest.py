"""What a command wrote and nobody edited may be replaced by the same command; all else is left alone."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.test_envs_decision_import import LOAN
from vertigym.cli import app
from vertigym.core.errors import InputError, OutputError
from vertigym.core.files import write_jsonl
from vertigym.core.manifest import MANIFEST, claim_folder, sealed_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with sealed_folder(tmp_path / "out", "import") as made:
        (made / "a").mkdir()
        (made / "a" / "b.txt").write_text("written")
    return tmp_path / "out"


def claim(folder: Path, **options: bool) -> None:
    claim_folder(folder, "import", **options)


def edit(folder: Path) -> None:
    (folder / "a" / "b.txt").write_text("edited")


def add(folder: Path) -> None:
    (folder / "a" / "notes.txt").write_text("mine")


def hide(folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("mine")


def link(folder: Path) -> None:
    (folder / "b.txt").symlink_to(folder / "a" / "b.txt")


def test_what_nobody_edited_may_be_replaced(folder: Path) -> None:
    claim(folder)
    (folder / "a" / "b.txt").unlink()  # what is gone cannot be lost
    claim(folder)
    claim(folder.parent / "new")
    (folder.parent / "empty").mkdir()
    claim(folder.parent / "empty")


def test_a_link_and_the_working_folder_lead_to_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.parent / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    for place, text in ((folder.parent / "link", "by a link"), (Path(), "from inside")):
        with sealed_folder(place, "import") as made:
            (made / "b.txt").write_text(text)
        assert (folder / "b.txt").read_text() == text
        os.chdir(folder)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["link", "out"], "nothing else is left"
    assert (folder.parent / "link").is_symlink()


@pytest.mark.parametrize("change", [edit, add, hide, link])
def test_what_was_edited_is_replaced_only_by_force(change: Callable[[Path], None], folder: Path) -> None:
    change(folder)
    with pytest.raises(OutputError, match=r"was edited: .*--force"):
        claim(folder)
    claim(folder, force=True)
    with pytest.raises(OutputError, match="was edited"), sealed_folder(folder, "import"):
        pass


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '{"kind": "other", "sha256": {}}',
        '{"kind": "import"}',
        '{"kind": "import", "sha256": 3}',
    ],
)
def test_a_folder_of_somebody_else_is_not_replaced_even_by_force(text: str, folder: Path) -> None:
    (folder / MANIFEST).write_text(text)
    for force in (False, True):
        with pytest.raises(OutputError, match="no import that vertigym wrote"):
            claim(folder, force=force)
    with pytest.raises(InputError):
        claim(folder / "a" / "b.txt", force=True)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vertigym.envs.decision.diff._CASES", 300)
    Path("loan.json").write_text(LOAN)
    Path("later.json").write_text(LOAN.replace("> 40", "> 30"))
    asked = [f"What is {word}?" for word in ("one", "two", "three", "four", "five")]
    rows = [{"messages": [{"role": "user", "content": q}], "completion": "this"} for q in asked]
    write_jsonl(Path("log.jsonl"), rows)
    return {
        "import": ["env", "import", "loan.json", "--id", "acme/Loan-v0", "-o", "out"],
        "agent": ["env", "import", "loan.json", "--id", "acme/Loan-v0", "-o", "out", "--mode", "agent"],
        "diff": ["env", "diff", "loan.json", "later.json", "-o", "out"],
        "traces": ["traces", "import", "log.jsonl", "-o", "out"],
    }


@pytest.mark.parametrize("name", ["import", "diff", "traces"])
def test_a_command_never_replaces_what_somebody_edited(name: str, commands: dict[str, list[str]]) -> None:
    run = CliRunner().invoke
    Path("out").mkdir()
    Path("out", "report.json").write_text("{}")  # a report of anything else
    Path("out", "env.toml").write_text("x = 1")
    assert isinstance(run(app, [*commands[name], "--force"]).exception, OutputError)
    assert sorted(p.name for p in Path("out").iterdir()) == ["env.toml", "report.json"]
    for file in Path("out").iterdir():
        file.unlink()
    for _ in range(2):
        assert run(app, commands[name]).exit_code == 0
    edited = next(p for p in sorted(Path("out").iterdir()) if p.suffix == ".toml")
    edited.write_text(edited.read_text() + "\n# mine\n")
    for other in commands.values():
        assert isinstance(run(app, other).exception, OutputError)
    assert edited.read_text().endswith("# mine\n")
    assert run(app, [*commands[name], "--force"]).exit_code == 0
    assert not edited.read_text().endswith("# mine\n")
