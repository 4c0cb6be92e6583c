"""JSON schemas as they are read here: types, limits, allowed values and fields; whatever else they say is the
engine's to check.
"""

from typing import Any

_NUMBER = (int, float)
_SHAPES: dict[str, tuple[type, ...]] = {
    "type": (str, list), "enum": (list,), "properties": (dict,), "minimum": _NUMBER, "maximum": _NUMBER
}  # fmt: skip


def schema_fault(schema: Any, where: str) -> str:
    """What is no schema in it, of what is read here; empty where all is well."""
    if isinstance(schema, bool):
        return ""
    if not isinstance(schema, dict):
        return f"{where} is {str(schema)[:40]!r}, not an object"
    for key, kinds in _SHAPES.items():
        if key in schema and (not isinstance(schema[key], kinds) or isinstance(schema[key], bool)):
            return f"{where}.{key} is {str(schema[key])[:40]!r}"
    parts = schema.get("properties", {}).items()
    return next((fault for key, part in parts if (fault := schema_fault(part, f"{where}.{key}"))), "")
