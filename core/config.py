"""Configs: TOML read into pydantic models that refuse unknown keys; `a.b=c` overrides on top.

Whatever is wrong comes back as one line that names the file, the key, what came and what is allowed.
"""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from vertigym.core.bounds import is_too_deep
from vertigym.core.errors import ConfigError, suggest
from vertigym.core.files import read_text


class Config(BaseModel):
    """Base of every config section: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


C = TypeVar("C", bound=BaseModel)
_MOST_CHARACTERS = 2 << 20  # of a config
_MOST_LEVELS = 20
_LONG_KEY = re.compile(rf"(?<![\w\"'-])(?:[\w\"'-]++[ \t]*+\.[ \t]*+){{{_MOST_LEVELS}}}")


def load(model: type[C], path: Path, overrides: Sequence[str] = ()) -> C:
    """Read the TOML file at `path`, apply `key.sub=value` overrides, validate.

    Raises:
        DataError: the file is missing. ConfigError: not TOML, an unknown key, a wrong value.
    """
    return parse(model, read_toml(path), overrides, source=str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """The file's table.

    Raises:
        DataError: the file is missing. ConfigError: not TOML.
    """
    text = read_text(path, _MOST_CHARACTERS)
    if _LONG_KEY.search(text):  # the parser's memory grows with the square of a key's parts
        raise ConfigError(f"{path}: a key of more than {_MOST_LEVELS} parts")
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # of TOML, of a number's digits, of lists in lists
        raise ConfigError(f"{path}: not TOML: {error}") from None
    return _bounded(table, str(path))


def _bounded(table: dict[str, Any], source: str) -> dict[str, Any]:
    """The table, where nothing in it is deeper or larger than settings are."""
    if is_too_deep(table, _MOST_LEVELS):
        raise ConfigError(f"{source}: nested more than {_MOST_LEVELS} levels deep")
    for key, value in _leaves(table):
        if isinstance(value, int) and value.bit_length() > 63:
            raise ConfigError(f"{source}: {key} is a whole number of more than 64 bits")
    return table


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Each value that is no table and no list, with the key it stands under."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, key)
    else:
        yield key, value


def parse(model: type[C], table: Mapping[str, Any], overrides: Sequence[str] = (), *, source: str) -> C:
    """Validate `table` with `overrides` on top; `source` names it in errors.

    Raises:
        ConfigError: an unknown key or a wrong value.
    """
    merged: dict[str, Any] = _copy(table)
    for override in overrides:
        _apply(merged, override)
    _bounded(merged, source)
    if "\\u0000" in json.dumps(merged, default=str):
        raise ConfigError(f"{source}: a text holds a NUL character, which no name or path can")
    try:
        return model.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(f"{source}: {_one_line(error, model)}") from None


def has_key(config: Config, key: str) -> bool:
    """Whether a dotted key was given, not left to its default."""
    first, _, rest = key.partition(".")
    return first in config.model_fields_set and (not rest or has_key(getattr(config, first), rest))


def with_key(config: C, key: str, value: Any) -> C:
    """The config with another value at a dotted key, unchecked."""
    first, _, rest = key.partition(".")
    return config.model_copy(update={first: with_key(getattr(config, first), rest, value) if rest else value})


def _copy(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in table.items()}


def _apply(table: dict[str, Any], override: str) -> None:
    """Set `a.b=c` in `table`; the value is read as TOML, and as a plain string when it is not TOML."""
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"override {override!r}: the form is key=value, for example optimizer.lr=1e-4")
    value = toml_value(text, f"override {override[:80]!r}")
    *parents, last = (part.strip() for part in key.split("."))
    for part in parents:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(f"override {override!r}: {part!r} is a value, not a section")
    table[last] = value


def toml_value(text: str, source: str) -> Any:
    """The value that `text` is in TOML, else the text itself.

    Raises:
        ConfigError: a number or a list beyond what is read; `source` names it.
    """
    try:
        return _bounded(tomllib.loads(f"v = {text}"), source)["v"]
    except tomllib.TOMLDecodeError:
        return text
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: {error}") from None


def _one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """The first fault in words, with near-miss names for an unknown key."""
    faults = error.errors(include_url=False)
    first = next((fault for fault in faults if fault["type"] == "extra_forbidden"), faults[0])
    where = ".".join(str(part) for part in first["loc"])
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    if first["type"] == "extra_forbidden":
        *parents, key = first["loc"]
        sections = [path for path in _paths_to(model, str(key)) if path != where]
        hint = f"; did you mean {' or '.join(sections[:3])}?" if sections else ""
        return f"unknown key {where!r}{hint or suggest(str(key), _keys_at(model, parents))}{more}"
    if first["type"] == "missing":
        return f"key {where!r} is missing{more}"
    message = first["msg"].removeprefix("Value error, ")
    if not where:  # a rule over several keys: the message names them
        return f"{message}{more}"
    came = repr(first["input"])
    return f"{where}: {message} (got {came if len(came) <= 60 else came[:57] + '...'}){more}"


def _keys_at(model: type[BaseModel], path: Iterable[int | str]) -> list[str]:
    """Field names allowed in the section that `path` leads to."""
    for part in path:
        if isinstance(part, int) or part not in model.model_fields:
            continue
        found = _model_in(model.model_fields[part].annotation)
        if found is None:
            return []
        model = found
    return list(model.model_fields)


def _paths_to(model: type[BaseModel], key: str, above: str = "") -> Iterator[str]:
    """Every place of a key of this name, `optimizer.lr`, in the sections of a config."""
    for name, field in model.model_fields.items():
        if name == key:
            yield above + name
        if section := _model_in(field.annotation):
            yield from _paths_to(section, key, f"{above}{name}.")


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first pydantic model named in an annotation such as `Section | None` or `list[Section]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for arg in getattr(annotation, "__args__", ()) if (m := _model_in(arg))), None)
