"""What is read is bounded: levels, digits, sizes. Beyond, one line says so, whatever the parser."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_envs_decision_import import graph, table
from vertigym.core import bounds
from vertigym.core.bounds import MOST_DIGITS, MOST_LEVELS, is_too_deep, json_value, whole_number
from vertigym.core.config import Config, load, parse, read_toml, toml_value
from vertigym.core.errors import ConfigError, DataError, InputError
from vertigym.core.files import read_json, read_jsonl, read_text
from vertigym.decisions.candidates import allowed
from vertigym.decisions.model import DecisionError, DecisionModel
from vertigym.envs import registry


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


JSON = st.recursive(
    st.none() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
)


@given(JSON)
def test_json_is_read_as_ever(value: Any) -> None:
    assert json_value(json.dumps(value)) == value


@pytest.mark.parametrize(
    "text", [nested(MOST_LEVELS), f'"{"[" * 500}"', '"\\"' + "[" * 500 + '"', "[" + "[]," * 500 + "1]"]
)
def test_brackets_count_where_they_nest(text: str) -> None:
    assert json_value(text) == json.loads(text)
    assert not is_too_deep(json.loads(text))


@pytest.mark.parametrize(
    "text", [nested(MOST_LEVELS + 1), '{"a":' * 50_000, "[" * 1_000_000, '[" \\" [", ' + nested(200) + "]"]
)
def test_what_nests_too_deeply_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="levels deep"):
        json_value(text)


def test_levels_are_counted_of_values_too() -> None:
    value: Any = 1
    for _ in range(500):
        value = {"a": [value]}
    assert is_too_deep(value)
    assert is_too_deep([[[1]]], levels=2)
    assert not is_too_deep([[1, {"a": 1}]], levels=3)


def test_a_number_has_so_many_digits() -> None:
    assert json_value("9" * MOST_DIGITS) == int("9" * MOST_DIGITS) < float("inf")
    for digits in (MOST_DIGITS + 1, 6000):
        with pytest.raises(ValueError, match=f"{digits} digits"):
            whole_number("9" * digits)


@pytest.mark.parametrize("content", ["9" * 6000, nested(5000), '{"a": ' * 5000])
def test_json_files_name_the_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=r"a\.json: (a number|nested)"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.jsonl").write_text(f"1\n{content}\n")
    with pytest.raises(DataError, match=r"a\.jsonl:2: (a number|nested)"):
        read_jsonl(tmp_path / "a.jsonl")


class Settings(Config):
    x: Any = None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x = " + "9" * 6000, "not TOML: .*digits"),
        ("x = " + "9" * 30, "x is a whole number of more than 64 bits"),
        ("x = [{y = " + "9" * 30 + "}]", r"x\.y is a whole number"),
        ("x = " + nested(50_000), "not TOML"),
        ("x = " + nested(60), "nested more than"),
        ("x" + ".x" * 50_000 + " = 1", "a key of more than"),
        ("x." * 30 + "x = 1", "a key of more than"),
        ('"x" . ' * 30 + '"x" = 1', "a key of more than"),
        ("#" * 3_000_000, "too large"),
    ],
)
def test_settings_are_bounded(text: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(InputError, match=why) as caught:
        load(Settings, tmp_path / "a.toml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_settings_within_bounds_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(f"\ufeffx = {nested(10)}\n[a.b.c.d.e]\nf = {2**63 - 1}\n")
    assert read_toml(tmp_path / "a.toml")["a"]["b"]["c"]["d"]["e"]["f"] == 2**63 - 1


@pytest.mark.parametrize("value", ["9" * 6000, nested(5000), "9" * 30])
def test_overrides_and_arguments_are_bounded(value: str) -> None:
    with pytest.raises(ConfigError):
        parse(Settings, {}, [f"x={value}"], source="test")
    with pytest.raises(ConfigError):
        parse(Settings, {}, ["x" + ".x" * 3000 + "=1"], source="test")
    with pytest.raises(ConfigError):
        registry.make(f"vertigym/Returns-v0?rules={value}")
    assert toml_value("just text", "test") == "just text"


def test_a_file_without_end_is_not_read_to_the_end() -> None:
    with pytest.raises(DataError, match="too large: at most 1,000 characters"):
        read_text(Path("/dev/zero"), 1000)


LONG = ("(" * 5000 + ")" * 5000, "[" * 50_000, "9" * 6000, "a" + ".a" * 5000, "1" + " + 1" * 50_000)


@pytest.mark.parametrize("cell", LONG)
def test_expressions_are_bounded(cell: str) -> None:
    node = table("t", ["a"], ["b"], [[cell, "1"]])
    with pytest.raises(DecisionError) as caught:
        DecisionModel(graph(node))
    assert len(str(caught.value)) < 300


def test_a_pattern_of_a_decision_models_input_stops_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "SEARCH_S", 0.05)
    assert allowed(["ab", "cd"], {"pattern": "^a"}) == ("ab",)
    with pytest.raises(InputError, match="takes more than"):
        allowed(["a" * 60 + "!"], {"pattern": "^(a|aa)+$"})
