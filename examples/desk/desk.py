"""A webshop's support desk, made up: what its small models were asked, and what they answered, as trace rows.

    python examples/desk/desk.py DIR         writes the logs and documents of all three models to DIR

Three models answer here, each wrong in its own, systematic way (a random mistake would be outvoted in
training):

intent    names the desk a message belongs to; it follows an old organisation, in which warranty cases went to
          returns and refunds to invoices
search    rewrites a question for the help pages; it knows half of the words that the pages use
answer    answers from a data sheet with a citation; it takes delivery times for warranties, prices for weights
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from vertigym.core.files import write_jsonl, write_text
from vertigym.core.seeds import generator

_THINGS = "lamp sofa kettle mixer jacket boots tent drill printer camera carpet fridge oven desk bike"
ITEMS = tuple(_THINGS.split())
OPENINGS = ("", "hi, ", "hello, ", "good morning, ", "please help: ", "urgent: ", "hey, ", "sorry, ")
DESKS: dict[str, tuple[str, ...]] = {
    "shipping": ("where is my {}", "the {} has not come", "my parcel with the {} is late", "track my {}"),
    "returns": ("the {} does not fit", "how do I send the {} back", "the {} is not as shown", "wrong {} sent"),
    "refunds": ("money back for the {}", "I cancelled the {} and you kept my money", "pay me back the {}"),
    "invoices": ("I need a receipt for the {}", "invoice with VAT for the {}", "bill for the {} please"),
    "warranty": ("the {} broke after a week", "my {} stopped working", "the {} makes a strange noise"),
    "other": ("are you hiring {} experts", "do you like my {}", "can I sing to my {}"),
}
OLD_DESKS = {"warranty": "returns", "refunds": "invoices"}
# Topic: the words of the help pages, and what customers say instead.
TOPICS: dict[str, tuple[str, ...]] = {
    "reimbursement": ("money back", "pay me back"),
    "dispatch": ("when do you send", "has it left"),
    "surcharge": ("why more money", "extra to pay"),
    "assembly": ("put together", "screws and parts"),
    "disposal": ("throw away", "get rid of old"),
    "calibration": ("set it right", "readings are off"),
    "compatibility": ("does it go with", "work with my other"),
    "cleaning": ("dirt on", "wash"),
    "guarantee": ("broke early", "still covered"),
    "dimensions": ("how big", "will it fit"),
}
FACTS = {"price": "euros", "delivery": "days", "warranty": "months", "weight": "kilos"}
OLD_FACTS = {"warranty": "delivery", "weight": "price"}
NOTHING = "The documents do not say."


def intents(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Messages with the desk that the model named; people correct it with an edit, or put a thumb up."""
    for index in range(count):
        random = generator(seed, "intent", index)
        right = _pick(random, tuple(DESKS))
        text = _pick(random, OPENINGS) + _pick(random, DESKS[right]).format(_pick(random, ITEMS))
        given = OLD_DESKS.get(right, right) if random.random() < 0.7 else right
        said = {"thumb": "up"} if given == right else {"thumb": "down", "edit": right}
        yield _row("intent", index, random, text, given) | {"label": right, "feedback": said}


def pages() -> list[dict[str, str]]:
    """The help pages: one an item and topic, in the shop's own words."""
    return [
        {"id": f"{item}-{topic}", "text": f"{topic} {item}: what to know about {topic} of your {item}"}
        for item in ITEMS
        for topic in TOPICS
    ]


def searches(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Questions with the search words that the model wrote; the page that helped is on record."""
    topics = tuple(TOPICS)
    for index in range(count):
        random = generator(seed, "search", index)
        item, topic = _pick(random, ITEMS), _pick(random, topics)
        phrase = random.integers(len(TOPICS[topic]))
        text = _pick(random, OPENINGS) + f"{TOPICS[topic][phrase]} my {item}"
        # The second way of saying each thing is mostly taken for the next topic.
        wrong = random.random() < (0.65 if phrase else 0.2)
        named = topics[(topics.index(topic) + 1) % len(topics)] if wrong else topic
        yield _row("search", index, random, text, f"{named} {item}") | {"meta": {"page": f"{item}-{topic}"}}


def answers(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Questions about an item with three passages of its data sheet, which lacks one fact of four."""
    facts = tuple(FACTS)
    for index in range(count):
        random = generator(seed, "answer", index)
        item, lacking = _pick(random, ITEMS), _pick(random, facts)
        asked = _pick(random, facts)
        values = {fact: f"{random.integers(11, 31)} {FACTS[fact]}" for fact in facts if fact != lacking}
        names = dict(zip(values, "abc", strict=True))
        sheet = [{"id": names[fact], "text": f"{fact} {value}."} for fact, value in values.items()]
        taken = OLD_FACTS.get(asked, asked) if random.random() < 0.65 else asked
        reply = f"{values[taken]} [{names[taken]}]." if taken in values else NOTHING
        text = "\n".join([*(f"[{one['id']}] {one['text']}" for one in sheet), f"{item} {asked}"])
        row = _row("answer", index, random, text, reply)
        yield row | {"label": values.get(asked, ""), "documents": sheet}


def write(folder: Path, make: Callable[..., Iterator[dict[str, Any]]], count: int, *, seed: int = 0) -> None:
    """`count` rows as train.jsonl, eval.jsonl and test.jsonl (70, 10 and 20 in a hundred)."""
    rows = list(make(count, seed))
    first, second = count * 7 // 10, count * 8 // 10
    for split, part in (("train", rows[:first]), ("eval", rows[first:second]), ("test", rows[second:])):
        write_jsonl(folder / f"{split}.jsonl", part)


def environment(folder: Path, toml: str) -> Path:
    """A folder with this `env.toml`."""
    write_text(folder / "env.toml", toml)
    return folder


def _row(model: str, index: int, random: np.random.Generator, text: str, reply: str) -> dict[str, Any]:
    return {
        "id": f"{model}-{index}",
        "time": 1_767_225_600.0 + 60 * index,
        "messages": [{"role": "user", "content": text}],
        "completion": reply,
        "model": model,
        "version": "old",
        "customer": f"customer-{random.integers(400)}",
    }


def _pick(random: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(random.integers(len(choices)))]


if __name__ == "__main__":
    out = Path(sys.argv[1])
    for name, source in (("intent", intents), ("search", searches), ("answer", answers)):
        write(out / name, source, 6000)
    write_jsonl(out / "search" / "documents.jsonl", pages())
