"""The support desk of examples/desk, and environment folders over it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vertigym.core.files import write_jsonl
from vertigym.examples.desk import desk as shop

__all__ = ["shop"]

INTENT = """
id = "desk/Intent-v0"
kind = "classify"
label = ["feedback.edit", "label"]
labels = ["shipping", "returns", "refunds", "invoices", "warranty"]
none = "other"
"""
SEARCH = 'id = "desk/Search-v0"\nkind = "rewrite"\nrelevant = "meta.page"\n'
ANSWER = 'id = "desk/Answer-v0"\nkind = "cite"\npassages = "there"\n'
OUTCOME = 'id = "desk/Outcome-v0"\nkind = "outcome"\n'
ORDER = 'id = "desk/Order-v0"\nkind = "extract"\nanswer = "label"\n'
SCHEMA = {
    "type": "object",
    "properties": {
        "item": {"type": "string"},
        "count": {"type": "integer"},
        "gift": {"type": ["boolean", "null"]},
        "to": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
    "required": ["item", "count"],
    "additionalProperties": False,
}
CITIES = ("Graz", "Turin", "Porto", "Lund", "Brno", "Ghent", "Split")


def intent(folder: Path, count: int = 600, toml: str = INTENT) -> Path:
    shop.write(folder, shop.intents, count)
    return Path(shop.environment(folder, toml))


def search(folder: Path, count: int = 600, toml: str = SEARCH) -> Path:
    shop.write(folder, shop.searches, count)
    write_jsonl(folder / "documents.jsonl", shop.pages())
    return Path(shop.environment(folder, toml))


def answer(folder: Path, count: int = 600, toml: str = ANSWER) -> Path:
    shop.write(folder, shop.answers, count)
    return Path(shop.environment(folder, toml))


def outcome(folder: Path, count: int = 600, toml: str = OUTCOME) -> Path:
    shop.write(folder, shop.intents, count)
    return Path(shop.environment(folder, toml))


def order(folder: Path, count: int = 300, toml: str = ORDER) -> Path:
    def orders(count: int, seed: int) -> Iterator[dict[str, Any]]:
        for index in range(count):
            item, city = shop.ITEMS[index % 15], CITIES[index % 7]
            record = {"item": item, "count": index % 9 + 1, "to": {"city": city}}
            text = f"order {index}: {index % 9 + 1} pieces of {item}, deliver in {city}"
            row = {"id": f"o{index}", "messages": [{"role": "user", "content": text}], "completion": ""}
            yield row | {"label": json.dumps(record | ({"gift": True} if index % 4 == 0 else {"gift": None}))}

    shop.write(folder, orders, count)
    (folder / "schema.json").write_text(json.dumps(SCHEMA))
    return Path(shop.environment(folder, toml))
