"""A file of somebody else's is read or refused in one line: no traceback, no crash, five seconds, one gigabyte."""

from pathlib import Path

import pytest

from tests.hostile_files import KINDS, HostileFile, hostile_files
from tests.hostile_imports import fault

QUICK = 30


def check(hostile: HostileFile, folder: Path) -> None:
    found = fault(hostile, folder)
    assert not found, f"{hostile.name}, {hostile.kind}: {found[-3000:]}"


@pytest.mark.parametrize("number", range(QUICK))
def test_a_hostile_file_is_read_or_refused_in_one_line(number: int, tmp_path: Path) -> None:
    *_, hostile = hostile_files(number + 1, seed=2, plain=True)
    check(hostile, tmp_path / "files")


@pytest.mark.slow
def test_two_hundred_hostile_files_are(tmp_path: Path) -> None:
    """`python -m tests.hostile_imports` tries other seeds."""
    for number, hostile in enumerate(hostile_files(200)):
        check(hostile, tmp_path / str(number))


def test_every_kind_is_among_the_two_hundred() -> None:
    assert sum(map(len, KINDS.values())) <= 200
    names = {(h.name, h.kind) for h in hostile_files(20, seed=0)}
    assert len(names) == 20


@pytest.mark.parametrize("content", [b"age,-> fee\n> 3,1\n<= 3,0\n", b"age,-> fee\n> 3,1\n[,0\n"])
def test_the_judge_knows_a_fault(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an import may do, and what it may not: raise anything of its own, take too long, end the process."""
    harmless = HostileFile("model.csv", "sound or refused", content)
    assert not fault(harmless, tmp_path / "a")
    for place, code in enumerate(("1 / 0", "import os; os._exit(3)", "while True: pass", "bytearray(5 << 30)")):
        monkeypatch.setattr("tests.hostile_imports.read_file", lambda file, code=code: exec(code))
        monkeypatch.setattr("tests.hostile_imports.CPU_S", 1)
        assert fault(harmless, tmp_path / str(place)), code
