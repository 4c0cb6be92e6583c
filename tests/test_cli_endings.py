"""How commands end: whose fault an error is, what is never replaced, and 300 command lines that are wrong."""

import errno
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from vertigym import cli
from vertigym.cli import endings
from vertigym.core.errors import ConfigError, OutputError
from vertigym.core.files import claim, locked, write_text

from . import returns
from .conftest import CommandLine


def raising(error: BaseException) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    def only() -> None:
        raise error

    return app


@pytest.fixture(autouse=True)
def scratch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["vertigym"])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConfigError("a.toml: wrong"), "vertigym: a.toml: wrong"),
        (OSError(errno.EROFS, "Read-only file system", "x/y"), "vertigym: x/y: Read-only file system"),
        (OSError(errno.ENOSPC, "No space left on device"), "vertigym: the disk is full (OSError)"),
        (RuntimeError("torch says: No space left on device"), "vertigym: the disk is full (RuntimeError)"),
        (MemoryError(), "vertigym: out of memory"),
        (
            UnicodeError("two\nlines"),
            "vertigym: your code at ",
        ),  # raised here, and this file is not the package's
    ],
)
def test_what_users_and_machines_do_ends_with_two_and_one_line(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert endings.run(raising(error)) == 2
    err = capsys.readouterr().err
    assert err.startswith(said), err
    assert err.count("\n") == 1


def test_a_fault_of_ours_ends_with_seventy_and_keeps_its_traceback(
    command: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from vertigym.reports import run_summary

    def broken(folder: Path) -> Any:
        raise KeyError("a field")

    broken.__globals__["__name__"], name = "vertigym.reports.run_summary", broken.__globals__["__name__"]
    monkeypatch.setattr(run_summary, "summarize", broken)
    (tmp_path / "config.toml").write_text("")
    try:
        ended = command("report", tmp_path)
    finally:
        broken.__globals__["__name__"] = name
    assert ended.code == 70
    (line,) = ended.err.splitlines()
    kept = Path(line.rpartition(" ")[2])
    assert "a fault of vertigym, not yours: KeyError: 'a field'" in line
    assert "Traceback" in kept.read_text()


AUTHORS_FAULTS = {
    "raises": (b"def load_environment(**_):\n    return 1 / 0\n", "ZeroDivisionError"),
    "passes": (b"import sys\nsys.exit(0)\n", "raised SystemExit: 0"),
    "fails": (b"raise SystemExit(1)\n", "raised SystemExit: 1"),
    "escapes": (b"class Escape(BaseException): ...\nraise Escape('out')\n", "raised Escape: out"),
    "generates": (b"raise GeneratorExit\n", "raised GeneratorExit"),
    "stops": (b"raise StopIteration\n", "raised StopIteration"),
    "asks": (b"input('name? ')\n", "raised EOFError"),
    "stumbles": (b"def f(:\n", "stumbles.py:1: no Python: "),
    "garbles": (b"\xff\x00", ": no Python: "),
}


@pytest.mark.parametrize("name", AUTHORS_FAULTS)
def test_an_environment_whose_module_raises_is_its_authors_fault(
    name: str, command: CommandLine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever it raises: no module of theirs says how a command ends."""
    source, said = AUTHORS_FAULTS[name]
    (tmp_path / f"mine_that_{name}.py").write_bytes(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    ended = command("env", "check", f"mine_that_{name}")
    assert ended.code == 2, ended
    line = ended.err.splitlines()[-1]
    assert line.startswith("vertigym: ")
    assert said in line


def test_an_interrupt_says_what_may_be_resumed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = typer.Typer()
    for command, said in (("train", "go on with --resume"), ("env", "nothing was written")):
        app.command(command)(raising(KeyboardInterrupt()).registered_commands[0].callback)  # type: ignore[type-var]
        app.command("other")(lambda: None)
        monkeypatch.setattr(sys, "argv", ["vertigym", command])
        assert endings.run(app) == 130
        assert said in capsys.readouterr().err


def test_a_second_interrupt_is_a_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted_while_it_ends(**_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["vertigym", "train"])
    assert endings.run(interrupted_while_it_ends) == 130
    assert capsys.readouterr().err == "vertigym: interrupted; what was finished is kept: go on with --resume\n"


class TestNothingIsReplaced:
    def test_a_file_that_holds_something(self, tmp_path: Path) -> None:
        held, empty = tmp_path / "held", tmp_path / "empty"
        held.write_text("1")
        empty.write_text("")
        with pytest.raises(OutputError, match="exists: name another file, or replace it with --force"):
            claim(held)
        claim(held, force=True)
        claim(empty)
        claim(tmp_path / "new" / "file")
        assert held.read_text() == "1"

    @pytest.mark.parametrize("place", ["/proc/no/file", "/dev/null/file"])
    def test_a_place_that_cannot_be_written_is_named(self, place: str) -> None:
        with pytest.raises(OutputError, match="cannot be written"):
            claim(Path(place))

    def test_an_eval_and_its_outputs(self, command: CommandLine) -> None:
        Path("suite.toml").write_text(returns.suite(4))
        words = ("eval", "suite.toml", "-m", "scripted:expert", "--no-gate", "-o", "out")
        assert command(*words).code == 0
        before = Path("out/samples.jsonl").read_text()
        again = command(*words)
        assert again.code == 2
        assert "out/samples.jsonl exists" in again.err
        assert Path("out/samples.jsonl").read_text() == before
        assert command(*words, "--resume").code == 0
        assert command(*words, "--force").code == 0
        assert command(*words, "--resume", "--json", "suite.toml").code == 2, "a suite is not overwritten"
        assert Path("suite.toml").read_text() == returns.suite(4)

    def test_results_do_not_replace_one_another(self, command: CommandLine) -> None:
        Path("suite.toml").write_text(returns.suite(4))
        words = ("eval", "suite.toml", "-m", "scripted:expert", "--no-gate", "-o", "out")
        for outputs in (("--junit", "x", "--json", "./x"), ("--json", "out/report.json")):
            ended = command(*words, *outputs)
            assert ended.code == 2
            assert "two results would be written there" in ended.err
        assert not Path("out").exists()

    def test_a_decision_is_kept_until_its_report_is_replaced(self, command: CommandLine) -> None:
        Path("suite.toml").write_text(returns.suite(4))
        Path("out").mkdir()
        Path("out/decision.json").write_text("mine")
        words = ("eval", "suite.toml", "-m", "scripted:expert", "--no-gate", "-o", "out")
        assert command(*words).code == 2
        assert command(*words, "--resume").code == 0
        assert Path("out/decision.json").read_text() == "mine"
        assert command(*words, "--force").code == 0
        assert not Path("out/decision.json").exists()

    def test_a_place_is_the_same_however_it_is_named(self, command: CommandLine) -> None:
        """`.`, nothing and links: no fault of ours, no litter, no second lock; the root is refused."""
        Path("suite.toml").write_text(returns.suite(4))
        Path("empty").mkdir()
        Path("link").symlink_to("empty")
        words = ("eval", "../suite.toml", "-m", "scripted:expert", "--no-gate", "-o")
        os.chdir("empty")
        for place in (".", "", "../link"):
            with locked(Path("../empty")):
                ended = command(*words, place)
            assert ended.code == 2
            assert "another process writes there" in ended.err
        assert (
            command(*words, "/").err
            == "vertigym: /: nothing can be written in its place: name a folder in it\n"
        )
        assert command(*words, ".").code == 0
        assert command(*words, "../link", "--resume").code == 0

    def test_a_device_is_written_through(self, tmp_path: Path) -> None:
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        write_text(pipe, "text")
        assert os.read(reader, 9) == b"text"
        os.close(reader)
        assert pipe.is_fifo()

    def test_two_runs_or_evals_do_not_share_a_folder(self, command: CommandLine) -> None:
        Path("suite.toml").write_text(returns.suite(4))
        Path("run.toml").write_text(
            f'name = "r"\nenv = "{returns.ENV}"\nmodel = "tiny"\nalgorithm = "grpo"\nsteps = 1\n'
        )
        for place, words in (
            ("runs/r", "train run.toml"),
            ("out", "eval suite.toml -m scripted:expert -o out --no-gate"),
        ):
            for more in ([], ["--resume"]):
                with locked(Path(place)):
                    ended = command(*words.split(), *more)
                said = f"vertigym: {place}: another process writes there: wait for it, or name another\n"
                assert (ended.code, ended.err) == (2, said)
                assert not Path(place).exists(), "nothing was touched"

    def test_two_processes_do_not_share_a_place(self, tmp_path: Path) -> None:
        with locked(tmp_path / "run"):
            with pytest.raises(OutputError, match="another process writes there"), locked(tmp_path / "run"):
                pass
            with locked(tmp_path / "other"):
                pass
        with locked(tmp_path / "run"):
            pass


# Command lines that are wrong in one place each.

PATHS = (
    "no/such/place",
    "/proc/no/file",
    "/dev/null/x",
    "a_folder",
    "latin1",
    "zeros",
    "nested.json",
    "\ud800",
)
NUMBERS = ("x", "nan", "-1", "1e999", "")
NAMES = ("nope/Nope-v0", "..", "[/bold]", "a b", "\udcff")


def commands() -> Iterator[tuple[list[str], Any]]:
    """Every command, with the words that lead to it."""
    root = typer.main.get_command(cli.app)
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            yield from (([name, sub], found) for sub, found in command.commands.items())
        else:
            yield [name], command


def wrong_lines() -> Iterator[list[str]]:
    """A wrong value for every path, number and name; an unknown option; a missing argument."""
    for words, command in commands():
        yield [*words, "--no-such-option"]
        needed = [p for p in command.params if p.required]
        if needed:
            yield words
        for parameter in command.params:
            kind = parameter.type_descriptor.annotation
            if kind is bool:
                continue
            for value in {Path: PATHS, int: NUMBERS, float: NUMBERS}.get(kind, NAMES):
                yield [*words, *_filled(parameter, value, needed)]


def _filled(parameter: Any, value: str, needed: list[Any]) -> list[str]:
    """The wrong value, and plausible ones for what else is required."""
    words: list[str] = []
    for one in {id(p): p for p in [*needed, parameter]}.values():
        filling = value if one is parameter else "no/such.toml"
        words += [filling] if one.param_type_name == "argument" else [one.opts[-1], filling]
    return words


# What is wrong for one option is a good value for another, or for a command that only looks.
GOOD = ("env list", "sandbox doctor", "env new")
FULL = ["traces", "import", ".."]  # there are logs in that folder


def is_good(words: list[str]) -> bool:
    shows_a_folder = words[0] == "studio" and Path(words[1]).is_dir()
    return " ".join(words[:2]) in GOOD or words[:3] == FULL or shows_a_folder


# Lines that would run, but for one output, one setting or one input.
OUTPUTS = ("/proc/no/place", "/dev/null/x", "latin1/x")
LINES = {
    "eval suite.toml -m scripted:expert --no-gate -o @": OUTPUTS,
    "eval suite.toml -m scripted:expert --no-gate --junit @": (*OUTPUTS, "."),
    "eval suite.toml -m scripted:expert --no-gate --summary @": (*OUTPUTS, "."),
    "eval suite.toml -m scripted:expert --no-gate --json @": (*OUTPUTS, "."),
    "eval suite.toml -m @": ("scripted:nobody", "a_folder", "latin1", "openai:x", "vllm:no", "nested.json"),
    "eval suite.toml -m scripted:expert -b @": ("a_folder", "latin1", "nested.json", "zeros"),
    "report done -o @": (*OUTPUTS, "."),
    "report @": ("latin1", "nested.json", "a_folder", "zeros"),
    "compare done @": ("latin1", "nested.json", "a_folder"),
    "env import table.csv --id a/B-v0 -o @": OUTPUTS,
    "env import @ --id a/B-v0": ("latin1", "nested.json", "zeros", "a_folder", "suite.toml"),
    "env import table.csv --id @": ("B", "a/B", "a/b/C-v0", "../B-v0", "a/B-vx", ""),
    "env diff table.csv @": ("latin1", "nested.json", "zeros", "a_folder"),
    "env diff table.csv table.csv -o @": OUTPUTS,
    "env check @": ("latin1", "a_folder", "json", "no_such_module"),
    "env show @": ("latin1", "a_folder", "json"),
    "env new x/Y-v0 -o @": OUTPUTS,
    "env new @": ("", "..", "a/b/C-v0", "/"),
    "traces import @ -o out": ("latin1", "nested.json", "zeros", "a_folder"),
    "traces import log.jsonl -o @": OUTPUTS,
    "train run.toml --dry-run @": (
        "steps=-1", "nonsense", "model=latin1", "env=a_folder", "eval.suites=[1]", "rollout.tasks=x", "=1",
        "a.b.c=1", 'env="a\\u0000b"', "optimizer.lr=nan", "steps=1e99",
    ),
    "train run.toml output=@": OUTPUTS,
}  # fmt: skip


@pytest.fixture
def littered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    here = tmp_path / "here"
    (here / "a_folder").mkdir(parents=True)
    (here / "latin1").write_bytes("Größe;ja\n".encode("latin-1"))
    (here / "zeros").write_bytes(bytes(5000))
    (here / "nested.json").write_text("[" * 100_000)
    (here / "suite.toml").write_text(returns.suite(4))
    (here / "table.csv").write_text("age,out:ok\n> 18,true\n<= 18,false\n")
    (here / "log.jsonl").write_text('{"messages": [{"role": "user", "content": "a"}], "completion": "b"}\n')
    (here / "run.toml").write_text(
        f'name = "r"\nenv = "{returns.ENV}"\nmodel = "tiny"\nalgorithm = "grpo"\nsteps = 1\n'
    )
    monkeypatch.chdir(here)
    return here


def test_three_hundred_wrong_command_lines(command: CommandLine, littered: Path) -> None:
    assert command("eval", "suite.toml", "-m", "scripted:expert", "--no-gate", "-o", "done").code == 0
    lines = [words for words in wrong_lines() if not is_good(words)]
    lines += [
        [word.replace("@", value) for word in line.split(" ")] for line, at in LINES.items() for value in at
    ]
    assert len(lines) >= 300
    before, faults = sorted(littered.rglob("*")), []
    for words in lines:
        code, _, err = command(*words)
        if (code, err.count("\n")) != (2, 1) or "your code" in err:
            faults.append((" ".join(words), code, err[-400:]))
    assert not faults, f"{len(faults)} of {len(lines)}:\n" + "\n".join(map(str, faults))
    assert sorted(littered.rglob("*")) == before, "nothing is left behind"
