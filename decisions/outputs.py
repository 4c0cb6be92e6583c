"""Which part of a model's output is asked for, and an output cut down to it.

A field is named by its dotted path, as in `fees.total`; records are descended into, lists are taken whole.
"$" stands for the whole output, where that is not a record.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vertigym.decisions.model import Case
from vertigym.decisions.protocols import RuleModel

WHOLE = "$"


def computed_fields(model: RuleModel, pairs: Iterable[tuple[Case, Any]]) -> list[str]:
    """The output fields that the model's nodes compute, over some (case, output) pairs: those a node writes,
    and those whose value is not simply that of the input. Fields that are null in every case are left out."""
    written = _written(model)
    found: dict[str, bool] = {}  # field -> whether it ever had a value
    for case, output in pairs:
        if not isinstance(output, dict):
            return [WHOLE]
        for path, value in leaves(output):
            name = ".".join(path)
            if _rank(name, written) < len(written) or _differs(case, path, value):
                found[name] = found.get(name, False) or value is not None
    names = sorted(name for name, has_value in found.items() if has_value)
    return sorted(names, key=lambda name: _rank(name, written))


def project(output: Any, fields: Sequence[str]) -> Any:
    """The part of `output` that `fields` name; fields it does not have are left out, a record that is null is
    null."""
    if list(fields) == [WHOLE]:
        return output
    answer: dict[str, Any] = {}
    for name in fields:
        for path, value in _part(output, tuple(name.split("."))):
            target = answer
            for key in path[:-1]:
                target = target.setdefault(key, {})
            target[path[-1]] = value
    return answer


def _part(output: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What stands at a path, or the null on the way to it; nothing where neither does."""
    for place, key in enumerate(path, 1):
        if not isinstance(output, dict) or key not in output:
            return
        output = output[key]
        if output is None or place == len(path):
            yield path[:place], output
            return


def value_types(records: Iterable[Any]) -> dict[str, str]:
    """What kind of value each field has over some records, in words: `number`, `date`, `number or text`."""
    found: dict[str, set[str]] = {}
    for record in records:
        for path, value in leaves(record) if isinstance(record, dict) else [((WHOLE,), record)]:
            if value is not None:
                found.setdefault(".".join(path), set()).add(_type(value))
    return {name: " or ".join(sorted(kinds)) for name, kinds in found.items()}


def _type(value: Any) -> str:
    if isinstance(value, str):
        return "date" if re.fullmatch(r"\d{4}-\d\d-\d\d", value) else "text"
    kinds = {bool: "true or false", int: "number", float: "number", list: "list", dict: "record"}
    return kinds.get(type(value), "any")


def leaves(record: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Paths and values, down to whatever is not a record (an empty record is a leaf)."""
    for key, value in record.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*prefix, key))
        else:
            yield (*prefix, key), value


def _written(model: RuleModel) -> list[str]:
    """Fields that table and expression nodes write, in the order of the nodes."""
    names = []
    for node in model.nodes:
        for key in (*node.outputs, *(key for key, _ in node.expressions)):
            loops = node.scope.endswith("[]")
            names.append(node.target if loops else ".".join(part for part in (node.target, key) if part))
    return list(dict.fromkeys(names))


def _rank(name: str, written: Sequence[str]) -> int:
    """Index of the written field that `name` is or lies under; `len(written)` for none."""
    for index, key in enumerate(written):
        if name == key or name.startswith(f"{key}."):
            return index
    return len(written)


def _differs(case: Case, path: tuple[str, ...], value: Any) -> bool:
    at: Any = case
    for key in path:
        if not isinstance(at, dict) or key not in at:
            return True
        at = at[key]
    return bool(at != value)
