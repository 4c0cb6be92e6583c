"""The record of calls: what cannot be recorded is not answered, and a kill in mid-write loses nothing."""

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vertigym.core.errors import ConfigError, DataError
from vertigym.policies.scripted import echo
from vertigym.serving.recorder import Recorder
from vertigym.traces.config import ImportConfig
from vertigym.traces.importer import import_traces
from vertigym.traces.records import Feedback, read_traces

from .served import ask, post, recorded, serving, until


def test_what_cannot_be_recorded_is_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "t.jsonl"
    with serving(echo(), file) as port:
        assert post(port, "/v1/chat/completions", ask("before"))[0] == 200
        real = os.fsync
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left")))
            got, answer = post(port, "/v1/chat/completions", ask("lost"))
        assert os.fsync is real
        assert (got, "No space left" in answer["error"]["message"]) == (500, True)
        assert post(port, "/v1/chat/completions", ask("after"))[0] == 200
    assert [row["completion"] for row in recorded(file)] == ["before", "after"]


def broken(*_: Any) -> Any:
    raise OSError(28, "No space left on device")


def test_half_a_line_that_cannot_be_taken_away_is_never_written_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "t.jsonl"
    with serving(echo(), file) as port:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", broken)
            patch.setattr(os, "ftruncate", broken)
            assert post(port, "/v1/chat/completions", ask("lost"))[0] == 500
            assert post(port, "/v1/chat/completions", ask("lost too"))[0] == 500
        assert post(port, "/v1/chat/completions", ask("after"))[0] == 200
    assert [row["completion"] for row in recorded(file)] == ["after"]


def test_a_record_that_was_deleted_is_not_written_to(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    with serving(echo(), file) as port:
        _, reply = post(port, "/v1/chat/completions", ask("before"))
        file.unlink()
        got, answer = post(port, "/v1/chat/completions", ask("lost"))
        assert (got, "the record was deleted" in answer["error"]["message"]) == (500, True)
        assert post(port, "/feedback", {"id": reply["id"], "thumb": "up"})[0] == 500


@pytest.mark.filterwarnings("ignore")
def test_a_failure_of_another_kind_leaves_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise MemoryError

    with serving(echo(), tmp_path / "t.jsonl") as port:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            assert post(port, "/v1/chat/completions", ask("lost"))[0] == 500
        assert post(port, "/v1/chat/completions", ask("after"))[0] == 200
    assert [row["completion"] for row in recorded(tmp_path / "t.jsonl")][-1] == "after"


def test_a_full_disk_at_the_start_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text('{"id": "torn')
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", broken)
        with pytest.raises(DataError, match="cannot record there"):
            Recorder(file)
    Recorder(file).close()


def test_one_server_a_record_and_a_torn_line_stays_alone(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    file.write_text('{"id": "a", "messages": []}\n{"id": "tor')
    with serving(echo(), file) as port:
        with pytest.raises(ConfigError, match="another server records there"):
            Recorder(file)
        post(port, "/v1/chat/completions", ask("q"))
    lines = file.read_text().splitlines()
    assert lines[1] == '{"id": "tor'
    assert json.loads(lines[2])["completion"] == "q"
    with pytest.raises(DataError, match="cannot record there"):
        Recorder(tmp_path)


def test_the_import_reads_the_record_and_sets_a_torn_line_aside(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    with serving(echo(), file) as port:
        _, first = post(port, "/v1/chat/completions", ask("is it late", user="acme"))
    file.write_text(file.read_text() + '{"id": "torn", "mess')
    with serving(echo(), file) as port:
        _, second = post(port, "/v1/chat/completions", ask("where is my lamp", user="acme"))
        post(port, "/feedback", {"id": first["id"], "thumb": "down", "edit": "shipping"})
    config = ImportConfig.model_validate({"split": {"eval": 0, "test": 0}})
    import_traces([file], tmp_path / "traces", config)
    kept = {trace.id: trace for trace in read_traces(tmp_path / "traces" / "train.jsonl")}
    assert set(kept) == {first["id"], second["id"]}
    assert kept[first["id"]].feedback == Feedback(thumb="down", edit="shipping")
    (aside,) = recorded(tmp_path / "traces" / "rejected.jsonl")
    assert aside["number"] == 2
    assert "torn" in json.dumps(aside)


@contextmanager
def process(record: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`vertigym serve` in a process of its own, and its port."""
    command = "from vertigym.cli import main; main()"
    arguments = ["serve", "scripted:echo", "-o", str(record), "--port", "0", "--rpm", "0", *more]
    started = subprocess.Popen([sys.executable, "-c", command, *arguments], stderr=subprocess.PIPE, text=True)
    assert started.stderr is not None
    try:
        line = started.stderr.readline()
        assert "serving on http://127.0.0.1:" in line, line + started.stderr.read()
        yield started, int(line.partition("127.0.0.1:")[2].partition("/")[0])
    finally:
        started.kill()
        started.wait()
        started.stderr.close()


def test_a_caller_who_hangs_up_stops_nobody_else(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "calls.jsonl")

    async def calls() -> None:
        async with asyncio.timeout(30):
            gone = asyncio.ensure_future(recorder.append("one\n"))
            await asyncio.sleep(0)
            gone.cancel()
            await recorder.append("two\n")

    asyncio.run(calls())
    recorder.close()
    assert recorder.path.read_text() == "one\ntwo\n"


def test_a_server_killed_in_mid_write_loses_no_acknowledged_call(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    acknowledged: list[str] = []

    def keep_asking(port: int, number: int) -> None:
        for count in range(10_000):
            try:
                _, reply = post(
                    port, "/v1/chat/completions", ask(f"{number}-{count} " + "x" * 100_000) | {"model": "echo"}
                )
                acknowledged.append(reply["id"])
            except (OSError, http.client.HTTPException, ValueError):
                return

    for _ in range(2):
        with process(file) as (server, port), ThreadPoolExecutor(8) as pool:
            before = len(acknowledged)
            for number in range(8):
                pool.submit(keep_asking, port, number)
            until(lambda before=before: len(acknowledged) > before + 30)  # type: ignore[misc]
            server.send_signal(signal.SIGKILL)
    kept = set()
    for line in file.read_text(errors="replace").splitlines():
        try:
            kept.add(json.loads(line)["id"])
        except ValueError:
            continue
    assert set(acknowledged) <= kept
    with process(file) as (server, port):  # and it is answered for afterwards
        assert post(port, "/feedback", {"id": acknowledged[0], "thumb": "up"})[0] == 200
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0 or server.returncode == -signal.SIGTERM
