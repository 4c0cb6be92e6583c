"""An import that was broken off goes on: what comes out is the same to the byte, and the key, too."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vertigym.core.config import parse
from vertigym.core.errors import DataError, OutputError
from vertigym.tests.trace_log import Log
from vertigym.tests.trace_vendors import FOLDER
from vertigym.traces import ingest
from vertigym.traces.config import ImportConfig
from vertigym.traces.importer import import_traces


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "_BATCH", 16)
    monkeypatch.setattr(ingest, "_SAVED", 2)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calls with broken lines and feedback, and vendors' files, in which one row holds several calls."""
    folder = tmp_path_factory.mktemp("log")
    Log(folder, 400, seed=4)
    for form in ("openai_batch", "langchain", "langfuse"):
        (folder / f"{form}.jsonl").write_bytes((FOLDER / f"{form}.jsonl").read_bytes())
    asked = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}] * 40}
    (folder / "many.jsonl").write_text((json.dumps(asked) + "\n") * 2)
    return folder


def run(log: Path, out: Path, stop: int = 10**9, seen: list[int] | None = None, **settings: Any) -> None:
    def progress(rows: int, *_: int) -> None:
        if seen is not None:
            seen.append(rows)
        if rows >= stop:
            raise KeyboardInterrupt

    chosen = {"split": {"by": "input"}, "pii": {"key": str(out.with_suffix(".key"))}, **settings}
    import_traces([log], out, parse(ImportConfig, chosen, source="test"), progress)


def content(out: Path) -> dict[str, bytes]:
    said = {file.name: file.read_bytes() for file in out.iterdir()}
    settings = said.pop("traces.toml"), said.pop("manifest.json")
    assert all(settings)  # the settings name the key, whose place differs
    return said | {"key": out.with_suffix(".key").read_bytes()}


@pytest.mark.parametrize("stops", [(30,), (64, 200, 390), (100, 100, 300, 430)])
def test_an_import_broken_off_goes_on_to_the_same_bytes(
    log: Path, tmp_path: Path, stops: tuple[int, ...]
) -> None:
    run(log, tmp_path / "whole")
    begun = []
    for stop in stops:
        seen: list[int] = []
        with pytest.raises(KeyboardInterrupt):
            run(log, tmp_path / "broken", stop, seen)
        begun.append(seen[0])
        assert not (tmp_path / "broken").exists()
    seen = []
    run(log, tmp_path / "broken", seen=seen)
    assert seen[0] > stops[-1] - 64
    assert begun == sorted(begun)
    assert content(tmp_path / "broken") == content(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "broken.key", "whole", "whole.key"]


@pytest.mark.parametrize("step", ["_join_feedback", "_joined"])
def test_it_goes_on_where_the_parts_are_joined(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    run(log, tmp_path / "whole")
    real = getattr(ingest.Reader, step)

    def broken(reader: Any) -> Any:
        done = real(reader)
        for one in done or ():
            reader._take([one])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ingest.Reader, step, broken)
        with pytest.raises(KeyboardInterrupt):
            run(log, tmp_path / "broken")
    run(log, tmp_path / "broken")
    assert content(tmp_path / "broken") == content(tmp_path / "whole")


def test_a_key_that_cannot_be_written_costs_no_reading(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vertigym.traces import importer

    with monkeypatch.context() as patched:
        patched.setattr(importer, "claim_key", lambda _: None)
        (tmp_path / "out.key").touch()
        with pytest.raises(OutputError, match="name a new file"):
            run(log, tmp_path / "out")
    (tmp_path / "out.key").unlink()
    seen: list[int] = []
    run(log, tmp_path / "out", seen=seen)
    assert not seen  # nothing was read again


def test_other_files_or_settings_begin_anew(log: Path, tmp_path: Path) -> None:
    for settings in ({}, {"seed": 1}):
        seen: list[int] = []
        with pytest.raises(KeyboardInterrupt):
            run(log, tmp_path / "out", 200, seen, **settings)
        assert seen[0] == 16
    (log / "many.jsonl").touch()
    seen = []
    run(log, tmp_path / "out", seen=seen, seed=1)
    assert seen[0] == 16


def test_what_cannot_be_used_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n" * 99)
    with pytest.raises(DataError):
        run(tmp_path / "a.jsonl", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_two_imports_into_one_folder_do_not_meet_and_a_kill_is_survived(log: Path, tmp_path: Path) -> None:
    """The first is another process, killed in mid-read."""
    program = (
        "import sys, time; from pathlib import Path; from vertigym.traces import ingest;"
        "from vertigym.tests import test_traces_resuming as own; ingest._BATCH, ingest._SAVED = 16, 2\n"
        "class Slow(list):\n"
        "    def append(self, rows):\n"
        "        rows < 200 or (print('there', flush=True), time.sleep(600))\n"
        "own.run(Path(sys.argv[1]), Path(sys.argv[2]), seen=Slow())"
    )
    command = [sys.executable, "-c", program, str(log), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "there\n"
        with pytest.raises(OutputError, match="another import writes there"):
            run(log, tmp_path / "out")
        os.kill(other.pid, signal.SIGKILL)
    assert [path.name for path in tmp_path.iterdir()] == [".out.work"]
    seen: list[int] = []
    run(log, tmp_path / "out", seen=seen)
    run(log, tmp_path / "whole")
    assert seen[0] > 150
    assert content(tmp_path / "out") == content(tmp_path / "whole")
