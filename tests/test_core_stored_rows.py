"""Many rows lie in a file, and nobody can tell but by the memory."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from vertigym import envs
from vertigym.core.errors import DataError, OutputError, UnknownNameError
from vertigym.core.files import write_jsonl
from vertigym.core.seeds import generator
from vertigym.core.stored_rows import StoredRows
from vertigym.core.types import Task
from vertigym.envs.tasks import TaskSet
from vertigym.policies import tiny
from vertigym.policies.chat import ChatRenderer
from vertigym.trainer.sft import read_samples
from vertigym.trainer.stream import Shuffled

ROWS = [{"number": i, "text": "é" * i, "pair": (i, None)} for i in range(20)]
ENV = """id = "many/Rows-v0"
kind = "rows"
eval_share = 0.3
files = {train = "train.jsonl"}
reward = {name = "exact"}
"""


@pytest.fixture(params=["few", "many"])
def stored(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(StoredRows, "most", 5 if request.param == "many" else 100)
    return bool(request.param == "many")


def test_what_is_put_in_comes_out(stored: bool) -> None:
    rows = StoredRows(ROWS)
    assert (rows.rows is rows) == stored  # a list, while they are few
    for form in (rows, rows.rows):
        assert list(form) == ROWS
        assert len(form) == 20
        assert form[3] == ROWS[3]
        assert form[-1] == ROWS[-1]
        assert form[2:18:5] == ROWS[2:18:5]
        for place in (20, -21):
            with pytest.raises(IndexError):
                form[place]


def test_rows_are_read_while_more_come(stored: bool) -> None:
    rows: StoredRows[dict[str, Any]] = StoredRows([])
    assert not rows
    for number, row in enumerate(ROWS):
        rows.append(row)
        assert rows[number] == row
        assert rows[0] == ROWS[0]


def test_threads_read_side_by_side(stored: bool) -> None:
    rows = StoredRows(ROWS)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(rows.__getitem__, [*range(20)] * 50)) == ROWS * 50


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/dev/full")
def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StoredRows, "most", 1)
    monkeypatch.setattr("tempfile.TemporaryFile", lambda: FileIO("/dev/full", "r+"))
    with pytest.raises(OutputError, match=r"no room for \d+ rows .*TMPDIR"):
        StoredRows(ROWS)


def test_tasks_are_the_same_wherever_they_lie(stored: bool, tmp_path: Path) -> None:
    rows = [{"question": f"{i}?", "answer": [i], "info": {"half": i / 2}, "cluster": "c"} for i in range(40)]
    write_jsonl(tmp_path / "train.jsonl", rows)
    (tmp_path / "env.toml").write_text(ENV)
    tasks = envs.make(str(tmp_path)).tasks
    train, held_out = tasks.ids("train"), tasks.ids("eval")
    assert sorted([*train, *held_out], key=lambda name: int(name[6:])) == [f"train-{i + 1}" for i in range(40)]
    assert len(train) > 5 < len(held_out)
    assert list(tasks.ids("test")) == []
    assert [tasks.get(f"train-{i + 1}").answer for i in range(40)] == [[i] for i in range(40)]
    assert tasks.get("train-8") == Task(
        id="train-8", prompt="7?", answer=[7], info={"half": 3.5}, split=tasks.get("train-8").split, cluster="c"
    )
    with pytest.raises(UnknownNameError, match="train-99"):
        tasks.get("train-99")


@pytest.mark.parametrize("again", [0, 3, 18])
def test_an_id_that_comes_twice_is_named(stored: bool, again: int) -> None:
    tasks = [Task(id=str(i), prompt="?") for i in [*range(19), again]]
    with pytest.raises(DataError, match=f"two tasks have the id '{again}'"):
        TaskSet(tasks)


def test_ids_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vertigym.envs.tasks._hash", lambda name: len(name))
    tasks = TaskSet(Task(id=name, prompt=name) for name in ("a", "bb", "c", "dd"))
    assert [tasks.get(name).prompt for name in ("dd", "c", "bb", "a")] == ["dd", "c", "bb", "a"]
    with pytest.raises(UnknownNameError):
        tasks.get("e")


def test_rows_to_imitate_are_the_same_wherever_they_lie(stored: bool, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"question": f"{i}+1?", "answer": str(i + 1)} for i in range(30)])
    renderer = ChatRenderer(tiny.make_tokenizer(["0123456789+1?"], tiny.TinySize()))
    found = read_samples(tmp_path / "rows.jsonl", renderer)
    assert isinstance(found, list) != stored
    wrote = [str(renderer.tokenizer.decode([*row[0].predicted])) for row in found]
    assert [text.startswith(str(i + 1)) for i, text in enumerate(wrote)] == [True] * 30


def test_a_shuffled_epoch_is_the_generators_permutation() -> None:
    order = Shuffled(7, 3, "tasks")
    drawn = [order[place] for place in range(14)]
    assert drawn == [
        *generator(3, "tasks", 0).permutation(7).tolist(),
        *generator(3, "tasks", 1).permutation(7),
    ]
    assert {type(place) for place in drawn} == {int}


@pytest.mark.slow
def test_many_tasks_take_little_memory() -> None:
    code = (
        "import re; from vertigym.core.types import Task; from vertigym.envs.tasks import TaskSet\n"
        "def peak(): return int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]) / 1024\n"
        "before = peak()\n"
        "made = (Task(id=str(i), prompt=f'{i} ' * 200, info={'a': [i] * 20}) for i in range(60_000))\n"
        "tasks = TaskSet(made); assert tasks.get('59999').info['a'][0] == 59999; print(peak() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.fullmatch(r"[\d.]+\n", done.stdout)
    assert float(done.stdout) < 60  # MiB; as objects they take 180 and more
