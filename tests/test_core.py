"""Errors, seeds, files that appear whole, and configs that say what is wrong in one line."""

import json
import math
import os
import stat
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from vertigym.core import config, errors
from vertigym.core.config import Config
from vertigym.core.errors import ConfigError, DataError, UnknownNameError, VertigymError, suggest
from vertigym.core.files import (
    append_jsonl,
    dumps,
    jsonable,
    read_json,
    read_jsonl,
    whole_folder,
    write_json,
    write_jsonl,
    write_text,
)
from vertigym.core.seeds import derive, generator
from vertigym.core.types import Score, Segment, StopReason, Task, Trajectory


class TestErrors:
    def test_every_error_is_drawn_in_the_module(self) -> None:
        drawing = errors.__doc__ or ""
        tree = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, VertigymError)]
        assert len(tree) >= 9
        assert all(error.__name__ in drawing for error in tree)

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("acme/Lone-v0", "did you mean 'acme/Loan-v0'"),
            ("loan", "did you mean 'acme/Loan-v0'"),
            ("other/Loan-v7", "did you mean 'acme/Loan-v0'"),
            ("zzz", "known: acme/Loan-v0, acme/Returns-v0"),
        ],
    )
    def test_near_names_are_suggested(self, name: str, expected: str) -> None:
        assert expected in str(UnknownNameError("environment", name, ["acme/Loan-v0", "acme/Returns-v0"]))

    def test_a_long_list_of_strangers_is_not_printed(self) -> None:
        assert suggest("zzz", (f"name{i}" for i in range(100))) == ""


class TestSeeds:
    def test_every_element_of_the_path_matters_and_boundaries_do(self) -> None:
        seeds = [
            derive(0),
            derive(1),
            derive("0"),
            derive(0, "a"),
            derive(0, "ab"),
            derive(0, "a", "b"),
            derive("0a"),
        ]
        assert len(set(seeds)) == len(seeds)
        assert all(0 <= seed < 2**63 for seed in seeds)

    def test_another_process_derives_the_same(self) -> None:
        code = "from vertigym.core.seeds import derive; print(derive(3, 'x', 'ü'))"
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": "7"},
        )
        assert int(done.stdout) == derive(3, "x", "ü")

    def test_generators_of_one_path_repeat(self) -> None:
        assert generator(1, "a").random(3).tolist() == generator(1, "a").random(3).tolist()
        assert generator(1, "a").random() != generator(1, "b").random()


class TestFiles:
    def test_a_failed_write_leaves_the_old_file_and_nothing_else(self, tmp_path: Path) -> None:
        file = tmp_path / "a.json"
        write_json(file, {"x": 1})
        with pytest.raises(ValueError, match="JSON compliant"):
            write_json(file, {"x": float("nan")})
        with pytest.raises(UnicodeEncodeError):
            write_text(file, "\ud800")
        assert read_json(file) == {"x": 1}
        assert [p.name for p in tmp_path.iterdir()] == ["a.json"]

    def test_a_folder_appears_whole_or_not_at_all(self, tmp_path: Path) -> None:
        folder = tmp_path / "deep" / "model"

        def fill(text: str, *, fail: bool = False) -> None:
            with whole_folder(folder) as beside:
                (beside / "weights").write_text(text)
                if fail:
                    raise OSError("no space left on device")

        with pytest.raises(OSError, match="no space"):
            fill("half", fail=True)
        assert list(folder.parent.iterdir()) == []
        fill("one")
        fill("two")
        with pytest.raises(OSError, match="no space"):
            fill("half", fail=True)
        assert (folder / "weights").read_text() == "two"
        assert [p.name for p in folder.parent.iterdir()] == ["model"]

    @pytest.mark.parametrize(("umask", "file", "folder"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750)])
    def test_others_may_read_what_the_umask_lets_them(
        self, umask: int, file: int, folder: int, tmp_path: Path
    ) -> None:
        before = os.umask(umask)
        try:
            write_text(tmp_path / "text", "x")
            with whole_folder(tmp_path / "model") as beside:
                (beside / "script").touch(0o700)
                handle, _ = tempfile.mkstemp(dir=tempfile.mkdtemp(dir=beside))
                os.close(handle)
        finally:
            os.umask(before)
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
        assert modes.pop(tmp_path / "model" / "script") == file | 0o100
        assert set(modes.values()) == {file, folder}
        assert all(mode == (folder if path.is_dir() else file) for path, mode in modes.items())

    def test_jsonl_round_trips_and_names_the_broken_line(self, tmp_path: Path) -> None:
        file = tmp_path / "rows.jsonl"
        rows = [{"t": "grün\n\u2028"}, [1, None], "x"]
        write_jsonl(file, rows[:2])
        append_jsonl(file, rows[2])
        assert read_jsonl(file) == rows
        with file.open("a") as opened:
            opened.write('{"torn": ')
        assert read_jsonl(file, torn_tail=True) == rows
        with pytest.raises(DataError, match=r"rows\.jsonl:4: not JSON"):
            read_jsonl(file)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "no such file"),
            (b"\xff\xfe", "not UTF-8"),
            (b"{", ":1: not JSON"),
            (b"[" * 100_000, "levels deep"),
        ],
    )
    def test_what_cannot_be_read_is_one_line(self, tmp_path: Path, content: bytes | None, message: str) -> None:
        file = tmp_path / "f.json"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_json(file)
        with pytest.raises(DataError, match="is a folder"):
            read_json(tmp_path)

    def test_half_a_surrogate_pair_can_be_written_and_read_back(self, tmp_path: Path) -> None:
        write_jsonl(tmp_path / "f", ["\ud800 ü"])
        assert read_jsonl(tmp_path / "f") == ["\ud800 ü"]

    def test_jsonable_keeps_what_json_holds_and_replaces_the_rest(self) -> None:
        value = {1: float("nan"), "s": StopReason.STOP, "l": (1, {2}), "o": Path("x"), "b": True}
        assert jsonable(value) == {"1": None, "s": "stop", "l": [1, [2]], "o": "x", "b": True}


class Inner(Config):
    size: int = Field(1, ge=1)


class Outer(Config):
    name: str
    inner: Inner = Inner()
    parts: tuple[Inner, ...] = ()


class TestConfig:
    def read(self, text: str, *overrides: str, tmp_path: Path) -> Outer:
        (tmp_path / "c.toml").write_text(text)
        return config.load(Outer, tmp_path / "c.toml", overrides)

    def test_overrides_are_toml_values_or_plain_text(self, tmp_path: Path) -> None:
        found = self.read('name = "a"', "inner.size=3", "name=plain/text", tmp_path=tmp_path)
        assert (found.name, found.inner.size) == ("plain/text", 3)

    @pytest.mark.parametrize(
        ("text", "overrides", "message"),
        [
            ("name = ", (), "not TOML"),
            ("", (), "key 'name' is missing"),
            ('name = "a"\nnmae = 1', (), "unknown key 'nmae'; did you mean 'name'"),
            ('name = "a"\n[inner]\nsizes = 1', (), "unknown key 'inner.sizes'; did you mean 'size'"),
            (
                'name = "a"\n[[parts]]\nsize = 1\n[[parts]]\nsiz = 1',
                (),
                "unknown key 'parts.1.siz'; did you mean 'size'",
            ),
            ('name = "a"\n[inner]\nsize = 0', (), r"inner\.size: .*greater than or equal to 1 \(got 0\)"),
            ('name = "a"', ("inner",), "the form is key=value"),
            ('name = "a"', ("name.x=1",), "'name' is a value, not a section"),
        ],
    )
    def test_what_is_wrong_is_one_line(
        self, text: str, overrides: tuple[str, ...], message: str, tmp_path: Path
    ) -> None:
        with pytest.raises(ConfigError, match=message) as caught:
            self.read(text, *overrides, tmp_path=tmp_path)
        assert "\n" not in str(caught.value)


def test_a_task_is_frozen_and_refuses_unknown_fields() -> None:
    task = Task(id="a", prompt="hello")
    assert task.messages() == [{"role": "user", "content": "hello"}]
    with pytest.raises(ValidationError):
        task.id = "b"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Task.model_validate({"id": "a", "prompt": "x", "anser": 1})


def test_unscored_is_none_and_never_zero() -> None:
    score = Score.unscored("the sandbox was lost", worker=3)
    assert score.value is None
    assert score.evidence == {"reason": "the sandbox was lost", "worker": 3}


def test_a_segment_has_one_of_everything_a_token() -> None:
    with pytest.raises(AssertionError):
        Segment((1, 2), (0,), (0.0, 0.0))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1.0, math.nan, math.inf], [1.0, None, None]),
        ((1, 2), [1, 2]),
        ([1, 0.5, math.nan], [1, 0.5, None]),
        ([True, 10**400, "a"], [True, 10**400, "a"]),
        ([None, (1.5,), {1: (2,)}], [None, [1.5], {"1": [2]}]),
        ({3}, [3]),
        (["a", Path("b")], ["a", "b"]),
    ],
)
def test_what_json_cannot_hold_is_replaced(value: object, expected: object) -> None:
    assert jsonable(value) == expected
    assert json.loads(dumps(jsonable(value))) == expected


def test_a_plain_trajectory_is_that_of_dataclasses() -> None:
    segment = Segment([1, 2], [0, 1], [0.0, -0.5])
    whole = Trajectory("a", [{"role": "user", "content": "?"}], Score(None, {"p": 1.0}), (segment, segment))
    assert jsonable(whole.plain()) == jsonable(asdict(whole))
    assert list(whole.plain()) == list(asdict(whole))
