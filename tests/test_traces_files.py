"""Files and folders of logs: known by their content, joined, counted, refused."""

import gzip
import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from vertigym.core.config import parse
from vertigym.core.errors import DataError, MissingDependencyError
from vertigym.tests.trace_vendors import FOLDER
from vertigym.traces.config import ImportConfig
from vertigym.traces.importer import import_traces
from vertigym.traces.reading import log_files, rows
from vertigym.traces.records import read_traces

from .trace_rows import CHATML, one

ASKED = [{"role": "system", "content": "Sort."}, {"role": "user", "content": "Where is it?"}]
SAID = {"role": "assistant", "content": "shipping"}


def zstd(data: bytes) -> bytes:
    try:
        import zstandard
    except ImportError:
        pytest.skip("needs zstandard")
    return bytes(zstandard.ZstdCompressor().compress(data))


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    row = {"messages": [*ASKED, SAID]}
    lines = "".join(json.dumps(row) + "\n" for _ in range(3))
    pretty = "\n".join(json.dumps(row, indent=2) for _ in range(3))
    files = {
        "a.log": lines.encode(), "b.gz": gzip.compress(lines.encode()), "c.txt": json.dumps([row] * 3, indent=2).encode(),
        "d.jsonl": json.dumps([row] * 3, indent=1).encode(), "e.json": pretty.encode(), "f.jsonl": pretty.encode(),
        "h.jsonl": json.dumps([row] * 3).encode(), "i.json": b"\xef\xbb\xbf" + json.dumps([row] * 3).encode(),
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        assert [found for _, found, _ in rows(tmp_path / name)] == [row] * 3, name
    (tmp_path / "one.json").write_text(json.dumps(row["messages"], indent=1))
    assert [found for _, found, _ in rows(tmp_path / "one.json")] == [row["messages"]]
    (tmp_path / "t.txt").write_text(CHATML + "<|endoftext|>" + CHATML)
    assert [one(found).completion for _, found, _ in rows(tmp_path / "t.txt")] == ["shipping", "shipping"]
    (tmp_path / "s.csv").write_text("q;a\nx, y;z\n")
    assert [found for _, found, _ in rows(tmp_path / "s.csv")] == [{"q": "x, y", "a": "z"}]


def test_zstd_is_read_and_a_damaged_one_gives_what_came_before(tmp_path: Path) -> None:
    packed = zstd("".join(json.dumps({"a": random.Random(i).random()}) + "\n" for i in range(200_000)).encode())
    (tmp_path / "a.jsonl.zst").write_bytes(packed)
    assert sum(1 for _ in rows(tmp_path / "a.jsonl.zst")) == 200_000
    (tmp_path / "b.jsonl.zst").write_bytes(
        packed[: len(packed) // 2] + b"\0\0\0\0" + packed[len(packed) // 2 :]
    )
    found = list(rows(tmp_path / "b.jsonl.zst"))
    assert len(found) > 1000
    assert "cannot be read further" in found[-1][1].reason


def test_zstd_without_its_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\x28\xb5\x2f\xfd....")
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(MissingDependencyError, match="zstandard"):
        list(rows(tmp_path / "a.jsonl"))


def test_folders_are_searched_to_the_bottom_and_patterns_are_understood(tmp_path: Path) -> None:
    (tmp_path / "2026" / "01").mkdir(parents=True)
    for name in ("2026/01/a.jsonl.gz", "2026/b.jsonl", "c.csv.zst", "notes.md"):
        (tmp_path / name).touch()
    names = ["2026/01/a.jsonl.gz", "2026/b.jsonl", "c.csv.zst"]
    assert [str(file.relative_to(tmp_path)) for file in log_files([tmp_path])] == names
    assert [file.name for file in log_files([tmp_path / "2026" / "**" / "*.jsonl*", tmp_path / "2026"])] == [
        "a.jsonl.gz",
        "b.jsonl",
    ]
    with pytest.raises(DataError, match="no file has such a name"):
        log_files([tmp_path / "*.parquet"])


def run(files: list[Path], out: Path, **settings: Any) -> Any:
    return import_traces(files, out, parse(ImportConfig, settings, source="test"))


def test_a_batch_is_joined_over_its_two_files(tmp_path: Path) -> None:
    asked, told = (
        [json.loads(line) for line in (FOLDER / f"{name}_batch.jsonl").read_text().splitlines()]
        for name in ("openai", "anthropic")
    )
    (tmp_path / "in.jsonl").write_text(
        "".join(
            json.dumps(row) + "\n"
            for row in (asked[0], {**told[0], "custom_id": "b2"}, {**asked[0], "custom_id": "b3"})
        )
    )
    (tmp_path / "out.jsonl").write_text(
        "".join(
            json.dumps(row) + "\n"
            for row in (
                {**told[1], "custom_id": "b2"},
                asked[1],
                {**asked[1], "custom_id": "b4"},
                {**asked[1], "custom_id": "b3", "response": None, "error": {"message": "too late"}},
            )
        )
    )
    report = run(
        [tmp_path], tmp_path / "out", split={"eval": 0, "test": 0}, duplicates={"near": 0, "exact": False}
    )
    traces = list(read_traces(tmp_path / "out" / "train.jsonl"))
    assert [(trace.id, trace.completion) for trace in traces] == [("b1", "shipping"), ("b2", "shipping")]
    reasons = {
        json.loads(line)["reason"] for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    }
    assert reasons == {
        "half of a call of a batch: its request is not here (b4)",
        "the response is an error: too late",
    }
    first, second = report.files.values()
    assert (first.rows, first.skipped, first.calls, first.rejected) == (3, 3, 0, 0)
    assert (second.rows, second.skipped, second.calls, second.rejected) == (4, 0, 2, 2)


def test_a_batch_with_two_answers_to_one_key_is_refused(tmp_path: Path) -> None:
    asked, told = (json.loads(line) for line in (FOLDER / "openai_batch.jsonl").read_text().splitlines())
    other = {**told, "response": {"body": {"choices": [{"message": {"content": "other"}}]}}}
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in (asked, told, other, {"messages": [*ASKED, SAID]}))
    )
    report = run([tmp_path / "a.jsonl"], tmp_path / "out")
    assert report.rejected == {
        "half of a call of a batch: several lines of a batch with one key, which differ": 3
    }


def test_the_report_names_the_form_of_each_file_and_what_its_rows_say(tmp_path: Path) -> None:
    report = run(
        [FOLDER / "gemini.jsonl", FOLDER / "langfuse.jsonl"],
        tmp_path / "out",
        duplicates={"near": 0, "exact": False},
    )
    assert [source.forms for source in report.files.values()] == [
        {"Gemini": 3},
        {"Langfuse traces": 1, "Langfuse observations": 1, "Langfuse scores": 1},
    ]
    assert {key: report.said[key] for key in ("customer", "session", "feedback", "cost", "outcome")} == {
        "customer": 5,
        "session": 5,
        "feedback": 2,
        "cost": 2,
        "outcome": 0,
    }


def test_a_split_by_what_no_call_says_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": [*ASKED, SAID]}) + "\n")
    for by in ("customer", "session", "cluster", "time"):
        with pytest.raises(DataError, match=f"split by {by}: no call says its {by}"):
            run([tmp_path / "a.jsonl"], tmp_path / "out", split={"by": by})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("by", ["input", "session", "customer", "cluster", "time"])
def test_a_session_is_never_torn(by: str, tmp_path: Path) -> None:
    dice = random.Random(5)
    lines = [
        {"messages": [{"role": "user", "content": f"{dice.random()} {dice.random()}"}], "completion": "a", "session": f"s{i // 3}",
         "customer": f"c{i // 9}", "cluster": f"t{i // 12}", "time": i + (40 if i % 3 else 0)}
        for i in range(300)
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    run([tmp_path / "a.jsonl"], tmp_path / "out", split={"by": by}, duplicates={"near": 0})
    parts = {
        split: list(read_traces(tmp_path / "out" / f"{split}.jsonl")) for split in ("train", "eval", "test")
    }
    assert all(parts.values())
    sides = [{trace.session for trace in part} for part in parts.values()]
    assert len(set.union(*sides)) == sum(map(len, sides))
    if by == "time":
        newest = max(trace.time or 0 for trace in parts["train"])
        ends = [max(t.time or 0 for t in parts["test"] if t.session == s) for s in sides[2]]
        assert newest < min(ends)


def mutilated(data: bytes, dice: random.Random) -> bytes:
    """One of the ways in which files get broken."""
    at, to = sorted(dice.randrange(len(data)) for _ in range(2))
    ways = (
        lambda: data[:at],
        lambda: data[:at] + data[to:],
        lambda: data[:at] + bytes(dice.randrange(256) for _ in range(9)) + data[at:],
        lambda: data.replace(dice.choice([b'"role"', b'"content"', b'"text"', b":", b"[", b"null"]), dice.choice([b'"x"', b"", b"7", b"{"]), dice.randrange(1, 4)),
        lambda: data[:at] + data[at:to][::-1] + data[to:],
        lambda: data.replace(b"\n", dice.choice([b"\n\n", b"\r\n", b"\0\n", b" "])),
    )  # fmt: skip
    return dice.choice(ways)()


def test_two_hundred_mutilated_files_are_read_or_refused_and_the_counts_add_up(tmp_path: Path) -> None:
    good = json.dumps({"messages": [*ASKED, SAID]}).encode() + b"\n"
    sources = [file.read_bytes() for file in sorted(FOLDER.glob("*.jsonl"))]
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "good.jsonl").write_bytes(good)
    dice = random.Random(11)
    for number in range(200):
        (tmp_path / "logs" / f"{number:03}.jsonl").write_bytes(
            mutilated(sources[number % len(sources)] * 2, dice)
        )
    report = run(
        [tmp_path / "logs"],
        tmp_path / "out",
        duplicates={"near": 0, "exact": False},
        split={"eval": 0, "test": 0},
    )
    steps = report.steps
    assert all(before.rows_out == after.rows_in for before, after in pairwise(steps))
    total = {
        key: sum(getattr(source, key) for source in report.files.values())
        for key in ("rows", "calls", "rejected", "skipped", "feedback")
    }
    assert steps[0].rows_in == total["calls"] + total["rejected"]
    assert (
        total["rejected"]
        == sum(report.rejected.values())
        == len((tmp_path / "out" / "rejected.jsonl").read_text().splitlines())
    )
    assert total["skipped"] == sum(report.skipped.values())
    assert total["calls"] == steps[0].rows_out
    for source in report.files.values():
        assert source.calls + source.rejected + source.skipped + source.feedback >= source.rows
    for trace in read_traces(tmp_path / "out" / "train.jsonl"):
        assert all(
            m["content"] or m.get("tool_calls") or m.get("reasoning_content")
            for m in trace.messages
            if m["role"] == "user"
        )
        assert trace.completion or trace.meta["tool_calls"]
